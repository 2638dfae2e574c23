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
from yoloquant import targets
from yoloquant.data.calibration_options import CalibrationOptions
from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.gate import load_gate
from yoloquant.evaluation.judged_models import BASELINE
from yoloquant.evaluation.results import TargetResult, ValidationResult
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.evaluation.verdict import ArtifactInfo, VerdictOptions, reach_verdict
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.quantization.simulate import simulate
from yoloquant.runtime.core.runner import Runner
from yoloquant.runtime.tasks import TaskSpec, spec_of

USAGE = """\
usage: python tools/benchmark_tasks.py model=<checkpoint> data=<data yaml, or folder of class folders> [key=value ...]

  targets   onnxruntime,openvino,litert,tensorrt (the last one is simulated); a precision may follow a colon
  images    calibration images, default 128
  limit     scored images, default all
  imgsz     input size, default the checkpoint's
  threads   threads of every runtime, default 2
  simulated run every plan in PyTorch instead of the exported files, default false
  artifact  checkpoint (.pt) of the calibrated model, read if it is there, else written; default none
  latency   time every artifact beside a float model in the same runtime, default false
  theirs    also score Ultralytics' INT8 exports, default false
  out       file that the table is appended to
"""
DEFAULTS = {
    **{"model": "", "data": "", "targets": "onnxruntime,openvino,litert,tensorrt", "images": "128", "limit": ""},
    **{"simulated": "false", "artifact": ""},
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
    names = options["targets"].split(",")
    artifact = calibrated(options, names)
    judged = ValidateOptions(
        limit=int(options["limit"]) if options["limit"] else None,
        threads=int(options["threads"]),
        latency=options["latency"] == "true",
        memory=False,
    )
    if options["simulated"] == "true":
        result = simulated(artifact, names, options["data"], judged)
    else:
        exports = yoloquant.export(artifact, targets=names, output=folder, keep_going=True)
        result = yoloquant.validate(artifact, exports, data=options["data"], options=judged)
    return result, spec_of(artifact.info.task)


def calibrated(options: dict[str, str], names: Sequence[str]) -> Artifact:
    """The model with a plan for each target, calibrated on training images, or read where that was done before."""
    kept = Path(options["artifact"]) if options["artifact"] else None
    if kept is not None and kept.is_file():
        return Artifact.load(kept)
    imgsz = int(options["imgsz"]) if options["imgsz"] else None
    how = QuantizeOptions(imgsz=imgsz, calibration=CalibrationOptions(images=int(options["images"])))
    schemes = list(dict.fromkeys(targets.get(name).scheme.name for name in names))
    artifact = yoloquant.quantize(options["model"], data=options["data"], scheme=schemes, options=how)
    if kept is not None:
        artifact.save(kept)
    return artifact


def simulated(artifact: Artifact, names: Sequence[str], data: str, options: ValidateOptions) -> ValidationResult:
    """Score the plan of each target in PyTorch beside the float model."""
    images = ValidationSet.open(data, artifact.info).take(options.limit).for_classes(artifact.info.names)
    modules = {BASELINE: artifact.graph.module}
    modules |= {name: simulate(artifact.graph, artifact.plan_for(targets.get(name).scheme)) for name in names}
    runners: dict[str, Runner] = {
        name: TorchRunner(module, artifact.info, options.threads) for name, module in modules.items()
    }
    evaluation = evaluate(runners, images, EvaluateOptions(baseline=BASELINE))
    facts = {name: ArtifactInfo(simulated=name != BASELINE, target=name.partition(":")[0]) for name in modules}
    return reach_verdict(evaluation, load_gate(options.gate), facts, VerdictOptions(threads=options.threads or 0))


def table(result: ValidationResult, task: TaskSpec) -> list[str]:
    """Rows of the table: metrics with their drops in points, and what fidelity is for the task."""
    compared = [t.comparison.intervals for t in result.targets if t.comparison]
    fidelities = [name for name in FIDELITIES if any(name in intervals for intervals in compared)]
    titles = (
        [m.title for m in task.metrics] + [name.replace("_", " ") for name in fidelities] + ["latency / FP32", "MB"]
    )
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
    cells.append(f"{target.size_bytes / 1e6:.2f}" if target.size_bytes else "")
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
    if options["artifact"] and not options["artifact"].endswith(".pt"):  # minutes of calibration lie before it
        print(f"artifact='{options['artifact']}' is a checkpoint, whose name must end in .pt")
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
