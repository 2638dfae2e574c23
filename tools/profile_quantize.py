"""Where ``quantize`` spends its processor time, stage by stage, and what leaving parts of it out gives.

    python tools/profile_quantize.py model=yolo11n.pt data=coco256.yaml without=score_shift,both

Every line of the table is a calibration in a process of its own with one thread and nothing kept from earlier ones:
first as the options have it, then with each of ``without`` switched off. Processor time counts, which other work on
the machine stretches, but less than time. ``min-max`` also takes every range from minimum and maximum. With
``checks=true`` every line ends with a hash of the plans, to be compared with another checkout's. Writes
``profile.md`` and ``profile.json``.

Options (``key=value`` or ``--key value``): model, data, imgsz (640), images (16, calibration), scheme (auto), without
(nothing; of output_aware, score_shift, both, min-max), checks (false), output (runs/profile_quantize).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"

from tools.bench.checkout import environment
from tools.bench.table import table
from tools.options import boolean, parse_options, positive

ROOT = Path(__file__).resolve().parents[1]
DEFAULTS = {
    "model": "yolo11n.pt",
    "data": "coco8.yaml",
    "imgsz": "640",
    "images": "16",
    "scheme": "auto",
    "without": "",
    "checks": "false",
    "output": "runs/profile_quantize",
}
OFF = {
    "output_aware": {"output_aware": False},
    "score_shift": {"score_shift": False},
    "both": {"output_aware": False, "score_shift": False},
    "min-max": {
        "output_aware": False,
        "score_shift": False,
        **dict.fromkeys(("range_activation", "range_pre_activation", "range_score", "range_head"), "minmax"),
        "range_weight": "minmax",
    },
}
"""Options by what is left out."""
STAGES = {
    "trace": "the network traced",
    "observe": "calibration images observed",
    "backward": "their backward passes",
    "solve_plan": "ranges solved",
    "describe": "images that will be scored described, for the audit",
    "with_safe_weights": "weights safe without VNNI",
    "score_shifts": "scores held against the float model's",
}
IN_PTQ = ("observe", "describe", "solve_plan", "with_safe_weights", "score_shifts")
"""Those that ``ptq`` calls by these names."""
IMPORTS, REST, WHOLE = "imports", "all else", "together"
_SECONDS = 3600
_WORKER = "--worker"


class Clock:
    """Processor time by stage; what a stage spends inside another one is that one's."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside: list[float] = []

    def watch(self, place: Any, name: str, stage: str) -> None:
        """Count a function's time from now on."""
        setattr(place, name, self._timed(getattr(place, name), stage))

    def _timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            self._inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.process_time() - start
                self.seconds[stage] += whole - self._inside.pop()
                if self._inside:
                    self._inside[-1] += whole

        return timed


def calibrate(options: dict[str, Any], output: Path) -> dict[str, Any]:
    """Calibrate in this process; processor seconds by stage, and a hash of the plans."""
    from yoloquant import api
    from yoloquant.graph import traced_model
    from yoloquant.quantization import ptq
    from yoloquant.quantization.importance import Importance

    clock, imported = Clock(), time.process_time()
    clock.watch(traced_model, "trace", "trace")
    for name in IN_PTQ:
        clock.watch(ptq, name, name)
    clock.watch(Importance, "backward", "backward")
    artifact = api.quantize(options.pop("model"), cache=False, **options)
    artifact.save(output / "quantized.pt")
    whole, stages = time.process_time(), {s: clock.seconds[s] for s in STAGES}
    plans = json.dumps(artifact.state(), sort_keys=True)
    return {
        "stages": {IMPORTS: imported, **stages, REST: whole - imported - sum(stages.values()), WHOLE: whole},
        "sha256": hashlib.sha256(plans.encode()).hexdigest(),
    }


def measured(values: dict[str, str], without: str, output: Path) -> dict[str, Any]:
    """Let a process of its own calibrate.

    Raises:
        SystemExit: It failed; what it said was printed.
    """
    folder = output / (without or "all")
    folder.mkdir(parents=True, exist_ok=True)
    given = {key: values[key] for key in ("model", "data", "scheme")}
    told = {**given, "imgsz": positive(values["imgsz"]), "images": positive(values["images"]), **OFF.get(without, {})}
    line = [sys.executable, str(Path(__file__).resolve()), _WORKER, json.dumps(told), str(folder)]
    print(f"calibrating, {f'without {without}' if without else 'with everything'} ...", file=sys.stderr, flush=True)
    done = subprocess.run(line, env=environment(ROOT), capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise SystemExit(2)
    found: dict[str, Any] = json.loads((folder / "stages.json").read_text(encoding="utf-8"))
    return found


def markdown(values: dict[str, str], found: dict[str, dict[str, Any]], *, checks: bool) -> str:
    """Stages as rows, calibrations as columns: processor seconds."""
    names = {IMPORTS: "imports", **STAGES, REST: REST, WHOLE: f"**{WHOLE}**"}
    head = ("processor s", *(f"without {name}" if name else "with everything" for name in found))
    rows = [(shown, *(f"{one['stages'][stage]:.1f}" for one in found.values())) for stage, shown in names.items()]
    if checks:
        rows.append(("hash of the plans", *(one["sha256"][:12] for one in found.values())))
    setting = (
        f"{Path(values['model']).name}, {Path(values['data']).name}, {values['imgsz']} px, {values['images']} "
        f"calibration images, scheme {values['scheme']}, one thread; {os.cpu_count()} cores."
    )
    return f"{setting}\n\n{table(head, rows)}\n"


def main(arguments: Sequence[str]) -> int:
    """Measure and print the table."""
    if arguments and arguments[0] == _WORKER:
        output = Path(arguments[2])
        (output / "stages.json").write_text(json.dumps(calibrate(json.loads(arguments[1]), output)), encoding="utf-8")
        return 0
    values = parse_options(arguments, DEFAULTS, str(__doc__))
    without = [name for name in values["without"].split(",") if name]
    if unknown := [name for name in without if name not in OFF]:
        print(f"without={unknown[0]} is unknown; allowed are {', '.join(OFF)}", file=sys.stderr)
        return 2
    output = Path(values["output"]).absolute()
    found = {name: measured(values, name, output) for name in ("", *without)}
    text = markdown(values, found, checks=boolean(values["checks"]))
    (output / "profile.md").write_text(text, encoding="utf-8")
    (output / "profile.json").write_text(json.dumps({"options": values, "found": found}, indent=1), encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
