"""Score every export of a segment, pose, OBB, classify or detect model beside the float model, as a Markdown table.

Calibration uses training images alone; the val split is scored, by the task's own metrics, with paired bootstrap
intervals. With ``theirs=true`` Ultralytics' INT8 exports of the same checkpoint are made and scored by its own ``val``.

    python tools/benchmark_tasks.py model=yolo11n-seg.pt data=coco_seg/data.yaml targets=onnxruntime,litert

With ``latency=true`` besides, each of them and our file for its runtime take turns, inference by inference.
``scores=false`` does nothing else, which wants few images and a quiet machine:

    python tools/benchmark_tasks.py model=yolo11n-seg.pt data=coco_seg/data.yaml images=16 theirs=true latency=true \
        scores=false targets=onnxruntime,openvino,litert
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yoloquant
from tools.bench.beside import beside_table, time_beside
from tools.bench.tell import tell
from tools.bench.theirs import TheirExport, export_theirs
from tools.options import boolean, parse_options, positive
from yoloquant import targets
from yoloquant.data.calibration_options import CalibrationOptions
from yoloquant.data.dataset import ValidationSet, load_yaml
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
from yoloquant.targets.exports import ExportResult
from yoloquant.types import ExportedModel

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
  theirs    also score Ultralytics' INT8 exports, default false; with latency=true they are timed beside ours
  scores    false scores nothing and only times beside theirs, default true
  rounds    inferences of each file where they take turns, default 60
  out       file that the table is appended to
"""
DEFAULTS = {
    **{"model": "", "data": "", "targets": "onnxruntime,openvino,litert,tensorrt", "images": "128", "limit": ""},
    **{"simulated": "false", "artifact": ""},
    **{"imgsz": "", "threads": "2", "latency": "false", "theirs": "false", "out": ""},
    **{"scores": "true", "rounds": "60"},
}
TIMED_IMAGES = 8
FIDELITIES = ("fidelity", "mask_fidelity", "pose_fidelity", "divergence")


def measure(options: dict[str, str], artifact: Artifact, exports: ExportResult | None) -> ValidationResult:
    """Score files, or plans.

    Args:
        options: See ``USAGE``.
        artifact: The calibrated model.
        exports: Its files; None to run plans in PyTorch.
    """
    judged = ValidateOptions(
        limit=int(options["limit"]) if options["limit"] else None,
        threads=int(options["threads"]),
        latency=boolean(options["latency"]),
        memory=False,
    )
    if exports is None:
        return simulated(artifact, options["targets"].split(","), options["data"], judged)
    return yoloquant.validate(artifact, exports, data=options["data"], options=judged)


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
    for name in names:
        scheme = targets.get(name).scheme
        # with the biases that its exports have, or a classifier's layers would not be moved back
        modules[name] = simulate(artifact.graph, artifact.plan_for(scheme), bias=artifact.bias_for(scheme))
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


def made_by_ultralytics(options: dict[str, str], artifact: Artifact, folder: Path) -> list[TheirExport]:
    """Ultralytics' INT8 exports, calibrated as it does by default: on the images that are scored."""
    data = ValidationSet.open(options["data"], artifact.info)
    place = Path(options["data"]) if Path(options["data"]).exists() else load_yaml(options["data"])[0]
    runtimes, side = options["targets"].split(","), max(artifact.info.imgsz)
    return export_theirs(Path(options["model"]), place, side, folder, runtimes, data_sha256=data.data_hash)


def theirs(options: dict[str, str], exports: Sequence[TheirExport], imgsz: int, task: str) -> list[str]:
    """Rows of the table for Ultralytics' exports, scored by its own ``val``."""
    from ultralytics import YOLO

    lines = []
    for export in exports:
        if export.path is None:
            lines.append(f"| {export.runtime}, Ultralytics | {export.error[:120]} |")
            continue
        keys: dict[str, Any] = {"imgsz": imgsz, "batch": 1, "device": "cpu", "plots": False}
        try:
            found = YOLO(export.path, task=task).val(data=options["data"], **keys)
        except Exception as exc:  # a line of the table, as other failures
            lines.append(f"| {export.runtime}, Ultralytics | {type(exc).__name__}: {str(exc)[:120]} |")
            continue
        shown = ", ".join(f"{key} {value:.4f}" for key, value in found.results_dict.items() if "fitness" not in key)
        lines.append(f"| {export.runtime}, Ultralytics | {shown} |")
    return lines


def in_turns(
    options: dict[str, str], artifact: Artifact, ours: Sequence[ExportedModel], others: Sequence[TheirExport]
) -> list[str]:
    """The table of latencies beside Ultralytics' exports."""
    info = artifact.info
    data, prepare = ValidationSet.open(options["data"], info).take(TIMED_IMAGES), spec_of(info.task).prepare
    images = [prepare(data.read(index), info.imgsz)[0] for index in range(len(data))]
    threads, rounds = positive(options["threads"]), positive(options["rounds"])
    return ["", beside_table(time_beside(ours, others, images, threads=threads, rounds=rounds))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments, DEFAULTS, USAGE)
    if not options["model"] or not options["data"]:
        print(USAGE)
        return 2
    if options["artifact"] and not options["artifact"].endswith(".pt"):  # minutes of calibration lie before it
        print(f"artifact='{options['artifact']}' is a checkpoint, whose name must end in .pt")
        return 2
    try:
        scores, latency, beside = (boolean(options[key]) for key in ("scores", "latency", "theirs"))
        positive(options["rounds"])
    except argparse.ArgumentTypeError as exc:
        print(f"error: {exc}")
        return 2
    runs_files = options["simulated"] != "true"
    if not scores and not (latency and beside and runs_files):
        print("scores=false only times files beside Ultralytics': give latency=true and theirs=true with it")
        return 2
    names = options["targets"].split(",")
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as scratch:
        artifact = calibrated(options, names)
        task, imgsz = spec_of(artifact.info.task), max(artifact.info.imgsz)
        exports = None
        if runs_files:
            folder = Path(scratch) / "exports"
            exports = yoloquant.export(artifact, targets=names, output=folder, keep_going=True)
        lines = [f"### {Path(options['model']).name}, {imgsz} px", ""]
        if scores:
            result = measure(options, artifact, exports)
            lines = [f"### {Path(options['model']).name}, {result.images} images, {result.imgsz[1]} px", ""]
            lines += table(result, task)
        if beside:
            others = made_by_ultralytics(options, artifact, Path(scratch) / "theirs")
            lines += theirs(options, others, imgsz, task.task.value) if scores else []
            lines += in_turns(options, artifact, exports.exports, others) if latency and exports is not None else []
    text = "\n".join(lines) + "\n"
    tell(text, options["out"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
