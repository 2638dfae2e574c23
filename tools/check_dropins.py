"""Hold Ultralytics' own ``val`` of a checkpoint and of its drop-in exports against this project's figures.

Plain ``YOLO(path).val(rect=False)`` loads each file with Ultralytics' backend, prepares images, decodes, selects and
scores by itself; nothing of this project takes part. Every figure must equal the one that our evaluation gives: to
0.001, the share of right classes to 0.0005. Files are opened as anybody's program opens them: on x86 processors without
VNNI, ONNX Runtime's fastest kernels clamp sums there, which ``yoloquant validate`` keeps it from; and OpenVINO computes
floats in what the processor has, where ``validate`` asks for float32.

Scores of integer files tie, and the sorts that Ultralytics ranks detections and classes by (``np.argsort`` and
``torch.argsort`` as they are by default) leave open in which order. So a file whose figure differs is validated by
Ultralytics once more with sorts that keep ties in their order, as ours do. Only if its figure is ours then, the
difference was that order, and the row says so.

    python tools/check_dropins.py model=yolo11n-seg.pt data=coco_seg/data.yaml targets=onnxruntime,openvino,litert
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from benchmark_tasks import calibrated
from options import parse_options

import yoloquant
from tools.bench.tell import tell
from yoloquant import targets
from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.gate import load_gate
from yoloquant.evaluation.judged_models import BASELINE
from yoloquant.evaluation.results import TargetResult, ValidationResult
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.evaluation.verdict import ArtifactInfo, VerdictOptions, reach_verdict
from yoloquant.quantization.artifact import Artifact
from yoloquant.runtime.backends import BackendOptions
from yoloquant.runtime.core.runner import Runner
from yoloquant.runtime.tasks import TaskSpec, spec_of
from yoloquant.types import ExportedModel

USAGE = """\
usage: python tools/check_dropins.py model=<checkpoint> data=<data yaml, or folder of class folders> [key=value ...]

  targets   drop-in targets, default onnxruntime,openvino,litert
  images    calibration images, default 128
  imgsz     input size, default the checkpoint's
  threads   threads of every runtime of ours, default 2
  artifact  checkpoint (.pt) of the calibrated model, read if it is there, else written; default none
  ties      ask again with ties in order: beyond (where figures differ by more than they may, default) or any
  out       file that the table is appended to
"""
DEFAULTS = {
    **{"model": "", "data": "", "targets": "onnxruntime,openvino,litert", "images": "128", "imgsz": "", "threads": "2"},
    **{"artifact": "", "ties": "beyond", "out": ""},
}
THEIRS = {
    **{"map50_95": "metrics/mAP50-95(B)", "map50": "metrics/mAP50(B)"},
    **{"mask_map50_95": "metrics/mAP50-95(M)", "mask_map50": "metrics/mAP50(M)"},
    **{"pose_map50_95": "metrics/mAP50-95(P)", "pose_map50": "metrics/mAP50(P)"},
    **{"top1": "metrics/accuracy_top1", "top5": "metrics/accuracy_top5"},
}
"""Ultralytics' names of our metrics."""
TIES = ("beyond", "any")
LIMIT, LIMITS = 0.001, {"top1": 0.0005, "top5": 0.0005}
ROUNDING = 1e-6
"""How far two figures of the same ranking may be apart: Ultralytics sums in float32 here and there."""


@dataclass(frozen=True)
class Figure:
    """One metric of one file.

    Attributes:
        file: Name of the target, or ``FP32``.
        metric: Name of the metric.
        ours: What ``yoloquant validate`` says.
        theirs: What Ultralytics' ``val`` says.
        in_order: What it says where its sorts keep ties in their order; None if nobody asked.
    """

    file: str
    metric: str
    ours: float
    theirs: float
    in_order: float | None = None

    @property
    def equal(self) -> bool:
        """Whether the two are as close as they must be."""
        return abs(self.ours - self.theirs) <= LIMITS.get(self.metric, LIMIT)

    @property
    def same(self) -> bool:
        """Whether the two come from the same ranking."""
        return abs(self.ours - self.theirs) <= ROUNDING

    @property
    def explained(self) -> bool:
        """Whether ties alone keep the two apart."""
        return self.in_order is not None and abs(self.ours - self.in_order) <= ROUNDING

    @property
    def remark(self) -> str:
        """What the last column says."""
        if self.explained and not self.same:
            return f"ties: {self.in_order:.4f} in order"
        return "" if self.equal else "DIFFERS"


def compare(file: str, task: TaskSpec, ours: TargetResult, theirs: Mapping[str, float]) -> list[Figure]:
    """Every metric of a file that both have.

    Args:
        file: What it is called.
        task: Its task, which says what metrics there are.
        ours: Our validation of it.
        theirs: ``results_dict`` of Ultralytics' validation.
    """
    if ours.accuracy is None:
        raise ValueError(f"{file} was not scored: {ours.error or 'there are no labels'}")
    metrics = ours.accuracy.metrics
    return [
        Figure(file, m.name, float(metrics[m.name]), float(theirs[THEIRS[m.name]]))
        for m in task.metrics
        if m.name in metrics
    ]


def measure(options: Mapping[str, str], folder: Path) -> list[Figure]:
    """Calibrate, export, and validate twice."""
    names = options["targets"].split(",")
    artifact = calibrated(dict(options), names)
    exports = yoloquant.export(artifact, targets=names, output=folder / "exports").exports
    result = scored(artifact, exports, options["data"], int(options["threads"]))
    checkpoint = folder / Path(options["model"]).name
    shutil.copyfile(options["model"], checkpoint)  # Ultralytics writes beside what it reads
    task, size = spec_of(artifact.info.task), max(artifact.info.imgsz)
    files = [("FP32", checkpoint, result.baseline)]
    by_name = {target.target: target for target in result.targets}
    files += [(e.name, e.path, by_name[e.name]) for e in exports if e.drop_in]
    found: list[Figure] = []
    for name, path, ours in files:
        plain = theirs(path, task.task.value, options["data"], size, folder)
        figures = compare(name, task, ours, plain)
        if not all(f.same if options["ties"] == "any" else f.equal for f in figures):
            with ties_in_order():
                again = theirs(path, task.task.value, options["data"], size, folder)
            figures = [replace(f, in_order=float(again[THEIRS[f.metric]])) for f in figures]
        found += figures
    return found


@contextmanager
def ties_in_order() -> Iterator[None]:
    """While it lasts, sorts of numpy and torch that nobody asked anything special of keep ties in their order."""
    import numpy as np
    import torch

    of_arrays, of_tensors = np.argsort, torch.argsort

    def arrays(a: Any, axis: int = -1, kind: Any = None, **further: Any) -> Any:
        return of_arrays(a, axis, kind="stable" if kind is None else kind, **further)

    def tensors(tensor: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
        return of_tensors(tensor, dim=dim, descending=descending, stable=stable)

    with (
        mock.patch.object(np, "argsort", arrays),
        mock.patch.object(torch, "argsort", tensors),
        mock.patch.object(torch.Tensor, "argsort", tensors),
    ):
        yield


def scored(artifact: Artifact, exports: Sequence[ExportedModel], data: str, threads: int) -> ValidationResult:
    """Our evaluation of the float model and of files, opened without the settings that only our runtime makes."""
    images = ValidationSet.open(data, artifact.info).for_classes(artifact.info.names)
    runners: dict[str, Runner] = {BASELINE: TorchRunner(artifact.graph.module, artifact.info, threads)}
    for exported in exports:
        options = BackendOptions(threads=threads, exact_sums=False, precision="")
        runners[exported.name] = targets.get(exported.name).open(exported, options)
    evaluation = evaluate(runners, images, EvaluateOptions(baseline=BASELINE))
    facts = {name: ArtifactInfo(target=name.partition(":")[0]) for name in runners}
    return reach_verdict(evaluation, load_gate(ValidateOptions().gate), facts, VerdictOptions(threads=threads))


def theirs(path: Path, task: str, data: str, imgsz: int, folder: Path) -> dict[str, float]:
    """What plain Ultralytics says of a file."""
    from ultralytics import YOLO

    keys: dict[str, Any] = {"imgsz": imgsz, "rect": False, "batch": 1, "device": "cpu", "plots": False}
    scored = YOLO(path, task=task).val(data=data, verbose=False, project=str(folder / "val"), **keys)
    return dict(scored.results_dict)


def table(figures: Sequence[Figure]) -> list[str]:
    """Rows of a Markdown table."""
    lines = ["| file | metric | yoloquant | Ultralytics | |", "|---|---|---:|---:|---|"]
    return lines + [f"| {f.file} | {f.metric} | {f.ours:.4f} | {f.theirs:.4f} | {f.remark} |" for f in figures]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns 1 if a figure differs, and not by ties alone."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    options = parse_options(sys.argv[1:] if arguments is None else arguments, DEFAULTS, USAGE)
    if not options["model"] or not options["data"]:
        print(USAGE)
        return 2
    if options["ties"] not in TIES:
        print(f"ties='{options['ties']}' is not one of {', '.join(TIES)}")
        return 2
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as scratch:
        figures = measure(options, Path(scratch))
    text = "\n".join([f"### {Path(options['model']).name}", "", *table(figures)]) + "\n"
    tell(text, options["out"])
    return int(not all(f.equal or f.explained for f in figures))


if __name__ == "__main__":
    raise SystemExit(main())
