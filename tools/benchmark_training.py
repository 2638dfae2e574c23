"""What quantization-aware training costs beside float training: step time and peak memory, in one run.

    python tools/benchmark_training.py model=../shared/weights/yolo11n.pt data=../shared/data/coco256/coco256.yaml

Every kind of training is the real trainer in a process of its own; they take turns, a few steps each, on the same
pixels in the same order, and ratios are taken within a round. A step is what lies between loading a batch and the next
one: preprocessing, forward, loss (with the teacher's forward where there is a teacher), backward, optimizer, averaging.
Memory is the process's resident peak during the measured steps (Linux), or that of the tensors on a GPU. Nothing is
validated, saved or plotted. ``training.md`` and ``training.json`` are written. Exit code 4 if a kind of training
failed; one that lacks its package is named and left out.

Options (``key=value`` or ``--key value``): model, data, imgsz (640), batch (4), steps (2, of a turn), rounds (9),
warmup (3), threads (2), device (cpu), amp (false; true or bf16), images (32, calibration), variants
(float,distill,detect,both,native; also tensorrt), output (runs/training).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from yoloquant import QuantizeOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine
os.environ.setdefault("YOLO_OFFLINE", "true")

from tools.bench.training_cost import FLOAT, VARIANTS, Cost, Rounds, measure, ratios, same_images
from tools.bench.training_worker import Job
from tools.options import parse_options, positive
from yoloquant.errors import UsageError, YoloquantError
from yoloquant.io import output_folder, write_text

DEFAULTS = {
    "model": "yolo11n.pt",
    "data": "coco8.yaml",
    "imgsz": "640",
    "batch": "4",
    "steps": "2",
    "rounds": "9",
    "warmup": "3",
    "threads": "2",
    "device": "cpu",
    "amp": "false",
    "images": "32",
    "variants": "float,distill,detect,both,native",
    "output": "runs/training",
}
_AMP = {"false": False, "true": True, "bf16": "bf16"}
TIME_GOAL, MEMORY_GOAL = 1.6, 1.5  # times the float step's, with the teacher's forward


@dataclass(frozen=True)
class Settings:
    """What is measured, and how; see the module's description."""

    model: Path
    data: str
    imgsz: int
    batch: int
    images: int
    threads: int
    device: str
    amp: bool | str
    variants: tuple[str, ...]
    plan: Rounds
    output: Path

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Settings:
        """Read the command line.

        Raises:
            UsageError: A value that is not allowed.
            argparse.ArgumentTypeError: A number that is none.
        """
        values = parse_options(arguments, DEFAULTS, __doc__ or "")
        if values["amp"] not in _AMP:
            raise UsageError(f"amp={values['amp']} is not supported; allowed are {', '.join(_AMP)}")
        return cls(
            model=Path(values["model"]),
            data=values["data"],
            device=values["device"],
            amp=_AMP[values["amp"]],
            variants=_known(values["variants"]),
            plan=Rounds(*(positive(values[key]) for key in ("warmup", "steps", "rounds"))),
            output=Path(values["output"]),
            **{key: positive(values[key]) for key in ("imgsz", "batch", "images", "threads")},
        )


def _known(text: str) -> tuple[str, ...]:
    """The wanted kinds of training, the float one first: it is what the others are compared with."""
    names = [n.strip() for n in text.split(",") if n.strip()]
    for name in names:
        if name not in VARIANTS:
            raise UsageError(f"variants={name} is unknown; allowed are {', '.join(VARIANTS)}")
    return tuple(dict.fromkeys([FLOAT, *names]))


def calibrated(settings: Settings) -> Path:
    """The checkpoint that everybody trains: the float model, with a plan of each scheme that is needed beside it."""
    from yoloquant import api
    from yoloquant.data.calibration import CalibrationOptions

    schemes = dict.fromkeys((VARIANTS[n].qat or {"scheme": "portable"})["scheme"] for n in settings.variants)
    options = QuantizeOptions(imgsz=settings.imgsz, calibration=CalibrationOptions(images=settings.images))
    artifact = api.quantize(settings.model, data=settings.data, scheme=list(schemes), options=options)
    return artifact.save(settings.output / f"{settings.model.stem}_calibrated.pt")


def job(settings: Settings, name: str, checkpoint: Path) -> Job:
    """What a variant's process does; only what makes the variant differs."""
    variant = VARIANTS[name]
    arguments = {
        "data": settings.data,
        "imgsz": settings.imgsz,
        "batch": settings.batch,
        "nbs": settings.batch,  # a step for every batch
        "device": settings.device,
        "amp": settings.amp,
        "epochs": 100_000,  # ended from outside
        "patience": 0,
        "optimizer": "AdamW",
        "lr0": 1e-5,
        "weight_decay": 0.0,
        "warmup_epochs": 0.0,
        "mosaic": 0.0,
        "close_mosaic": 0,
        "workers": 0,
        "seed": 0,
        "val": False,
        "save": False,
        "plots": False,
        "project": str((settings.output / "runs").resolve()),
        "name": name,
        "exist_ok": True,
        **variant.arguments,
    }
    qat = None if variant.qat is None else dict(variant.qat)
    return Job(checkpoint.resolve(), arguments, qat, settings.threads, (settings.output / f"{name}.log").resolve())


def run(settings: Settings) -> dict[str, Any]:
    """The whole benchmark.

    Returns:
        What is written to ``training.json``.

    Raises:
        YoloquantError: The model or the data cannot be used, or float training failed.
    """
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # of the workers too
    output_folder(settings.output)
    missing = {n: VARIANTS[n].missing for n in settings.variants if VARIANTS[n].missing}
    checkpoint = calibrated(settings)
    jobs = {n: job(settings, n, checkpoint) for n in settings.variants if n not in missing}
    load = _load()
    costs = measure(jobs, settings.plan, lambda done, total: _progress(done, total, "rounds"))
    if costs[FLOAT].error:
        raise YoloquantError(f"float training failed: {costs[FLOAT].error}")
    rows = [_row(n, costs.get(n), costs[FLOAT], missing.get(n, "")) for n in settings.variants]
    result = {
        "format": 1,
        "environment": {**_environment(settings), "load": load},
        "same_images": same_images(costs),
        "rows": rows,
    }
    write_text(settings.output / "training.json", json.dumps(result, indent=1))
    write_text(settings.output / "training.md", markdown(result))
    return result


def _row(name: str, cost: Cost | None, base: Cost, missing: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "title": VARIANTS[name].title, "missing": missing, "error": ""}
    if cost is None or cost.error:
        return {**row, "error": "" if cost is None else cost.error}
    return {
        **row,
        "step_ms": [t * 1e3 for t in cost.times],
        "busy_ms": [t * 1e3 for t in cost.busy],
        "phases_ms": {k: v * 1e3 for k, v in cost.phases().items()},
        "time_ratio": _spread(ratios(cost.times, base.times)),
        "busy_ratio": _spread(ratios(cost.busy, base.busy)),
        "peak_mb": cost.peak_mb,
        "base_mb": cost.rounds[0].base_mb,
        "memory_ratio": cost.peak_mb / base.peak_mb,
        "memory_ratio_above_base": cost.above_mb / base.above_mb,
    }


def _spread(found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("median", "min", "max"), found, strict=True))


def _environment(settings: Settings) -> dict[str, Any]:
    import torch

    from yoloquant.quantization.artifact import versions

    return {
        "model": settings.model.name,
        "data": Path(settings.data).name,
        "imgsz": settings.imgsz,
        "batch": settings.batch,
        "amp": settings.amp,
        "device": settings.device,
        "processor": _processor(settings, torch),
        "threads": settings.threads,
        "cores": os.cpu_count(),
        "warmup": settings.plan.warmup,
        "steps": settings.plan.steps,
        "rounds": settings.plan.rounds,
        "versions": {**versions(), **_numba()},
    }


def _numba() -> dict[str, str]:
    """The version of what compiles our loops; without it steps take longer."""
    try:
        return {"numba": metadata.version("numba")}
    except metadata.PackageNotFoundError:
        return {}


def _processor(settings: Settings, torch: Any) -> str:
    if settings.device != "cpu":
        return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else settings.device
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "cpu"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")


def markdown(result: Mapping[str, Any]) -> str:
    """The result as Markdown: setting, table, and what could not be measured."""
    from tools.bench.table import table

    e = result["environment"]
    used = ", ".join(f"{name} {e['versions'].get(name, 'absent')}" for name in ("ultralytics", "torch", "numba"))
    setting = (
        f"{e['model']} on {e['data']}, {e['imgsz']} px, batch {e['batch']}, {e['processor']}, {e['threads']} threads "
        f"of {e['cores']} cores (load {e['load']:.1f} at the start), amp={e['amp']}; {e['rounds']} rounds of "
        f"{e['steps']} steps after {e['warmup']}; {used}. Ratios are medians over rounds [smallest, largest]."
    )
    head = (
        "training",
        "ms per step",
        "x float",
        "processor time x float",
        "peak MB",
        "x float",
        "beyond libraries x float",
    )
    parts = [setting, table(head, [_cells(row) for row in result["rows"]])]
    measured = [row for row in result["rows"] if row.get("phases_ms")]
    if measured:
        phases = ("forward", "backward", "optimizer")
        rows = [(r["title"], *(f"{r['phases_ms'].get(p, float('nan')):.0f}" for p in phases)) for r in measured]
        parts.append(
            "Milliseconds, with the loss and the teacher in the forward:\n\n" + table(("training", *phases), rows)
        )
    parts += [f"- {r['title']}: not measured, {r['missing']} is not installed" for r in result["rows"] if r["missing"]]
    parts += [f"- {r['title']}: failed: {r['error']}" for r in result["rows"] if r["error"]]
    if not result["same_images"]:
        parts.append("The kinds of training did not see the same images, so the figures do not compare.")
    return "\n\n".join([*parts, _goal(result["rows"])]) + "\n"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    if row["missing"] or row["error"]:
        return (row["title"], *["not installed" if row["missing"] else "failed"], *["-"] * 5)
    times = sorted(row["step_ms"])
    return (
        row["title"],
        f"{times[len(times) // 2]:.0f}",
        _ratio(row["time_ratio"]),
        _ratio(row["busy_ratio"]),
        f"{row['peak_mb']:.0f}",
        f"{row['memory_ratio']:.2f}",
        f"{row['memory_ratio_above_base']:.2f}",
    )


def _ratio(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:.2f} [{spread['min']:.2f}, {spread['max']:.2f}]"


def _goal(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether the default training holds the goals."""
    found = next((r for r in rows if r["name"] == "distill" and "time_ratio" in r), None)
    if found is None:
        return "The default training was not measured."
    time_ratio, memory = found["time_ratio"]["median"], found["memory_ratio"]
    return (
        f"Goals for the default training: step time {time_ratio:.2f} x (at most {TIME_GOAL}: "
        f"{'met' if time_ratio <= TIME_GOAL else 'missed'}), peak memory {memory:.2f} x (at most {MEMORY_GOAL}: "
        f"{'met' if memory <= MEMORY_GOAL else 'missed'})."
    )


def _load() -> float:
    """Processes that wanted a core in the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _progress(done: int, total: int, what: str) -> None:
    print(f"\r{done}/{total} {what}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and print its table."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        settings = Settings.parse(arguments)
        result = run(settings)
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print((settings.output / "training.md").read_text(encoding="utf-8"))
    return 4 if any(row["error"] for row in result["rows"]) or not result["same_images"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
