"""Score every export of a segment, pose, OBB, classify or detect model beside the float model, as a Markdown table.

Calibration uses training images alone; the val split is scored, by the task's own metrics, with paired bootstrap
intervals. With ``theirs=true`` Ultralytics' INT8 exports of the same checkpoint are made and scored by its own ``val``.

    python tools/benchmark_tasks.py model=yolo11n-seg.pt data=coco_seg/data.yaml targets=onnxruntime,litert
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from options import parse_options

import yoloquant
from yoloquant.data.calibration_options import CalibrationOptions
from yoloquant.evaluation.results import TargetResult, ValidationResult
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.runtime.tasks import TaskSpec, spec_of

USAGE = """\
usage: python tools/benchmark_tasks.py model=<checkpoint> data=<data yaml, or folder of class folders> [key=value ...]

  targets   onnxruntime,openvino,litert,tensorrt (the last one is simulated)
  images    calibration images, default 128
  limit     scored images, default all
  imgsz     input size, default the checkpoint's
  threads   threads of every runtime, default 2
  latency   time every artifact beside a float model in the same runtime, default false
  theirs    also score Ultralytics' INT8 exports, default false
  out       file that the table is appended to
"""
DEFAULTS = {
    **{"model": "", "data": "", "targets": "onnxruntime,openvino,litert,tensorrt", "images": "128", "limit": ""},
    **{"imgsz": "", "threads": "2", "latency": "false", "theirs": "false", "out": ""},
}
FORMATS = {"onnxruntime": "onnx", "openvino": "openvino", "litert": "litert"}
"""Name of Ultralytics' export format by the name of our target."""
FIDELITIES = ("fidelity", "mask_fidelity", "pose_fidelity", "divergence")


def measure(options: dict[str, str], folder: Path) -> tuple[ValidationResult, TaskSpec]:
    """Calibrate, export and score.

    Args:
        options: See ``USAGE``.
        folder: Where the artifacts go.
    """
    imgsz = int(options["imgsz"]) if options["imgsz"] else None
    calibration = CalibrationOptions(images=int(options["images"]))
    how = QuantizeOptions(imgsz=imgsz, calibration=calibration)
    artifact = yoloquant.quantize(options["model"], data=options["data"], scheme="auto", options=how)
    exports = yoloquant.export(artifact, targets=options["targets"].split(","), folder=folder, keep_going=True)
    judged = ValidateOptions(
        limit=int(options["limit"]) if options["limit"] else None,
        threads=int(options["threads"]),
        latency=options["latency"] == "true",
        memory=False,
    )
    result = yoloquant.validate(artifact, exports, data=options["data"], options=judged)
    return result, spec_of(artifact.info.task)


def table(result: ValidationResult, task: TaskSpec) -> list[str]:
    """Rows of the table: metrics with their drops in points, and what fidelity is for the task."""
    compared = [t.comparison.intervals for t in result.targets if t.comparison]
    fidelities = [name for name in FIDELITIES if any(name in intervals for intervals in compared)]
    titles = [m.title for m in task.metrics] + [name.replace("_", " ") for name in fidelities] + ["latency / FP32"]
    lines = [f"| | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
    lines.append(_row("FP32 (PyTorch)", result.baseline, task, fidelities))
    return lines + [_row(target.target, target, task, fidelities) for target in result.targets]


def _row(name: str, target: TargetResult, task: TaskSpec, fidelities: Sequence[str]) -> str:
    if target.error:
        return f"| {name} | {target.error} |"
    cells = []
    intervals = target.comparison.intervals if target.comparison else {}
    for metric in task.metrics:
        value = target.accuracy.metrics.get(metric.name) if target.accuracy else None
        text = "" if value is None else f"{value:.4f}"
        if (drop := intervals.get(metric.drop)) is not None:
            text += f" ({drop.value * 100:+.2f} [{drop.low * 100:+.2f}, {drop.high * 100:+.2f}])"
        cells.append(text)
    cells += [f"{intervals[f].value:.3f}" if f in intervals else "" for f in fidelities]
    ratio = target.comparison.latency_ratio if target.comparison else None
    cells.append("" if ratio is None else f"{ratio:.2f}")
    return f"| {name} | {' | '.join(cells)} |"


def theirs(options: dict[str, str], folder: Path) -> list[str]:
    """Ultralytics' INT8 exports, calibrated and scored as it does by default."""
    import shutil

    from ultralytics import YOLO

    lines = []
    for runtime in options["targets"].split(","):
        if runtime not in FORMATS:
            continue
        place = folder / f"theirs-{runtime}"
        place.mkdir()
        checkpoint = place / Path(options["model"]).name
        shutil.copyfile(options["model"], checkpoint)
        keys: dict[str, Any] = {"imgsz": int(options["imgsz"])} if options["imgsz"] else {}
        try:
            path = YOLO(str(checkpoint)).export(
                format=FORMATS[runtime], quantize=8, data=options["data"], device="cpu", **keys
            )
            task = YOLO(str(checkpoint)).task
            found = YOLO(path, task=task).val(data=options["data"], batch=1, device="cpu", plots=False, **keys)
        except Exception as exc:  # a line of the table, as other failures
            lines.append(f"| {runtime}, Ultralytics | {type(exc).__name__}: {str(exc)[:120]} |")
            continue
        shown = ", ".join(f"{key} {value:.4f}" for key, value in found.results_dict.items() if "fitness" not in key)
        lines.append(f"| {runtime}, Ultralytics | {shown} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments, DEFAULTS, USAGE)
    if not options["model"] or not options["data"]:
        print(USAGE)
        return 2
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as scratch:
        result, task = measure(options, Path(scratch) / "exports")
        lines = [f"### {Path(options['model']).name}, {result.images} images, {result.imgsz[1]} px", ""]
        lines += table(result, task)
        if options["theirs"] == "true":
            lines += theirs(options, Path(scratch))
    text = "\n".join(lines) + "\n"
    print(text)
    if options["out"]:
        with Path(options["out"]).open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
