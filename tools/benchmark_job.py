"""What ``quantize`` and the whole job cost: processor time, time and memory, of this checkout and another in turns.

    python tools/benchmark_job.py against=../before model=yolo11n.pt data=coco256.yaml targets=onnxruntime,openvino

Every measurement is the command in a process of its own with one thread, in a folder of its own, and counts every
process that it starts. Checkouts take turns, and ratios are taken within a turn: processor time is what to look at
where other work shares the machine, which stretches it too. Each starts with an empty cache. With ``again=true`` this
checkout does every job a second time, into another folder, with what its first run kept. With ``theirs=true``
Ultralytics exports the same checkpoint to INT8 for the runtimes that it knows of those and validates each file and the
float model. Writes ``job.md`` and ``job.json``; ends with 1 if a command failed.

Options (``key=value`` or ``--key value``): against (another checkout, for instance a git worktree of an older commit;
none if not given), model, data, imgsz (640), images (16, calibration), verbs (quantize,run), targets (all), rounds (1),
again (false), theirs (false), output (runs/benchmark_job).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"

from tools.bench.checkout import JobCost, command, environment, measured
from tools.bench.table import table
from tools.bench.theirs import FORMATS
from tools.options import boolean, parse_options, positive
from yoloquant import targets
from yoloquant.errors import UsageError, YoloquantError
from yoloquant.io import CACHE, output_folder, write_text

ROOT = Path(__file__).resolve().parents[1]
WORKER = ROOT / "tools" / "bench" / "ultralytics_job.py"
DEFAULTS = {
    "against": "",
    "model": "yolo11n.pt",
    "data": "coco8.yaml",
    "imgsz": "640",
    "images": "16",
    "verbs": "quantize,run",
    "targets": "all",
    "rounds": "1",
    "again": "false",
    "theirs": "false",
    "output": "runs/benchmark_job",
}
OURS, AGAIN, AGAINST, THEIRS = "this checkout", "this checkout, again", "against", "Ultralytics"
VERBS = ("quantize", "run")
_PASS_OR_FAIL = {"quantize": (0,), "run": (0, 1, 3)}  # a verdict is no failure of the job


def lines(values: Mapping[str, str], verb: str, folder: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The command and the environment of everybody who does a job."""
    common = [f"{key}={_absolute(values[key])}" for key in ("model", "data")]
    common += [f"imgsz={values['imgsz']}", f"images={values['images']}"]
    more = [f"targets={values['targets']}"] if verb == "run" else []
    checkouts = {OURS: ROOT, **({AGAINST: Path(values["against"]).absolute()} if values["against"] else {})}
    found = {
        name: ([*command(place), verb, *common, *more, f"output={folder / name}"], environment(place))
        for name, place in checkouts.items()
    }
    if verb == "run" and boolean(values["theirs"]):
        formats = [FORMATS[t.name] for t in targets.resolve(values["targets"]) if t.name in FORMATS]
        told = [_absolute(values["model"]), _absolute(values["data"]), values["imgsz"], ",".join(formats)]
        found[THEIRS] = ([sys.executable, str(WORKER), *told], environment(ROOT))
    return found


def _absolute(text: str) -> str:
    return str(Path(text).absolute()) if Path(text).exists() else text


def measure(values: Mapping[str, str], verb: str, output: Path) -> dict[str, list[JobCost]]:
    """Let everybody do a job, in turns."""
    costs: dict[str, list[JobCost]] = {}
    for turn in range(positive(values["rounds"])):
        folder = (output / f"{verb}{turn}").absolute()
        shutil.rmtree(folder, ignore_errors=True)  # files of an earlier measurement would be found again
        jobs = lines(values, verb, folder)
        if boolean(values["again"]):
            jobs[AGAIN] = lines(values, verb, folder / "again")[OURS]
        for name, (line, variables) in jobs.items():
            # one for the turn: another checkout's code has other keys
            kept = {CACHE: str(folder / "cache")}
            place = output_folder(folder / name)
            print(f"{verb}: {name}, turn {turn + 1} ...", file=sys.stderr, flush=True)
            cost = measured(line, folder / f"{name}.log", cwd=place, env={**variables, **kept})
            costs.setdefault(name, []).append(cost)
            if cost.code not in _PASS_OR_FAIL[verb]:
                print(f"{name} ended with {cost.code}; see {folder / f'{name}.log'}", file=sys.stderr)
    return costs


def ratio(costs: Mapping[str, Sequence[JobCost]], name: str, what: str, of: str = OURS) -> float | None:
    """This checkout's cost in those of another, the median over turns; None if there is no other."""
    if name not in costs:
        return None
    pairs = zip(costs[of], costs[name], strict=True)
    share: float = median(getattr(ours, what) / getattr(theirs, what) for ours, theirs in pairs)
    return share


def markdown(values: Mapping[str, str], results: Mapping[str, Mapping[str, Sequence[JobCost]]]) -> str:
    """The table: who took what, and this checkout's cost in everybody else's."""
    head = ("command", "by", "processor s", "s", "peak MB", "ours: processor time x", "time x", "memory x")
    rows = []
    for verb, costs in results.items():
        for name, found in costs.items():
            middle = [f"{median(getattr(c, what) for c in found):.1f}" for what in ("cpu", "wall", "peak_mb")]
            shares = [None if name == OURS else ratio(costs, name, what) for what in ("cpu", "wall", "peak_mb")]
            rows.append((verb, name, *middle, *("" if share is None else f"{share:.2f}" for share in shares)))
    load = f"load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    setting = (
        f"{Path(values['model']).name}, {values['imgsz']} px, {values['images']} calibration images, targets "
        f"{values['targets']}, {values['rounds']} turns, one thread; {os.cpu_count()} cores, {load}."
    )
    return f"{setting}\n\n{table(head, rows)}\n{_again(results)}"


def _again(results: Mapping[str, Mapping[str, Sequence[JobCost]]]) -> str:
    """What a second run costs in everybody's first; empty if there was none."""
    rows = []
    for verb, costs in results.items():
        for name in (OURS, AGAINST, THEIRS) if AGAIN in costs else ():
            shares = [ratio(costs, name, what, of=AGAIN) for what in ("cpu", "wall", "peak_mb")]
            rows += [(verb, name, *(f"{s:.2f}" for s in shares if s is not None))] if shares[0] is not None else []
    head = ("command", "a second run in that of", "processor time x", "time x", "memory x")
    return f"\n{table(head, rows)}\n" if rows else ""


def _checked(values: Mapping[str, str]) -> tuple[str, ...]:
    verbs = tuple(v.strip() for v in values["verbs"].split(",") if v.strip())
    unknown = [v for v in verbs if v not in VERBS]
    if unknown or not verbs:
        raise UsageError(f"verbs={values['verbs']} is not supported; allowed are {', '.join(VERBS)}")
    if values["against"] and not (Path(values["against"]) / "pyproject.toml").is_file():
        raise UsageError(f"against='{values['against']}' is no checkout of this project: it has no pyproject.toml")
    return verbs


def main(arguments: Sequence[str]) -> int:
    """Measure and print the table."""
    try:
        values = parse_options(arguments, DEFAULTS, str(__doc__))
        verbs, output = _checked(values), output_folder(values["output"])
        results = {verb: measure(values, verb, output) for verb in verbs}
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    text = markdown(values, results)
    plain: dict[str, Any] = {v: {n: [asdict(c) for c in f] for n, f in r.items()} for v, r in results.items()}
    write_text(output / "job.md", text)
    write_text(output / "job.json", json.dumps({"options": values, "results": plain}, indent=1))
    print(text)
    failed = [c for v, r in results.items() for f in r.values() for c in f if c.code not in _PASS_OR_FAIL[v]]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
