"""A segment or pose model's files on more images than are labelled for its task: fidelity of all, drop of the boxes.

Few images are labelled with masks or keypoints, and a drop on some dozens of them has an interval of points. Boxes are
labelled more often; and fidelity to the float model, of boxes, masks and keypoints alike, asks for no labels at all.
Every file runs in its own runtime over the val split of ``data`` and that of ``more``, and is judged on each set and on
both together, with intervals paired by image.

    python tools/benchmark_pooled.py model=yolo11n-seg.pt data=coco_seg/data.yaml more=coco256.yaml artifact=seg.pt
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yoloquant
from tools.bench.pooled import boxes_alone, pooled, unlabelled, without_labels
from tools.bench.table import table
from tools.bench.tell import tell
from tools.benchmark_tasks import calibrated
from tools.options import parse_options, positive
from yoloquant import targets
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import UsageError, YoloquantError
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import Evaluation, evaluate
from yoloquant.evaluation.judged_models import BASELINE
from yoloquant.evaluation.results import Interval
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.quantization.artifact import Artifact
from yoloquant.runtime.core.runner import Runner
from yoloquant.runtime.tasks import spec_of
from yoloquant.types import ModelInfo

USAGE = """\
usage: python tools/benchmark_pooled.py model=<checkpoint> data=<yaml of its task> more=<yaml of boxes> [key=value ...]

  targets   onnxruntime,openvino,litert,tensorrt (the last one is simulated)
  images    calibration images, of data's train split, default 128
  limit     scored images of each set, default all
  imgsz     input size, default the checkpoint's
  threads   threads of every runtime, default 2
  bootstrap resamples of the intervals, default 1000
  artifact  checkpoint (.pt) of the calibrated model, read if it is there, else written; default none
  out       file that the table is appended to
"""
DEFAULTS = {
    **{"model": "", "data": "", "more": "", "targets": "onnxruntime,openvino,litert,tensorrt", "images": "128"},
    **{"limit": "", "imgsz": "", "threads": "2", "bootstrap": "1000", "artifact": "", "out": ""},
}


def measure(options: dict[str, str], folder: Path) -> list[tuple[str, ...]]:
    """Calibrate, export, run; the table with its heading.

    Args:
        options: See ``USAGE``.
        folder: Where files are written.

    Raises:
        UsageError: The model's task has no boxes.
        YoloquantError: The model or the data cannot be used.
    """
    names = options["targets"].split(",")
    limit = positive(options["limit"]) if options["limit"] else None
    bootstrap = BootstrapOptions(replicates=positive(options["bootstrap"]))
    artifact = calibrated(options, names)
    info = artifact.info
    if spec_of(info.task).class_folders:
        raise UsageError(f"{options['model']} is a {info.task.value} model, which has no boxes to score on 'more'")
    own = ValidationSet.open(options["data"], info).take(limit).for_classes(info.names)
    more = ValidationSet.from_yaml(options["more"]).take(limit)
    runners = opened(artifact, names, folder, positive(options["threads"]))
    try:
        parts = [(own, evaluate(runners, own)), (more, evaluate(runners, unlabelled(more)))]
    finally:
        for runner in runners.values():
            runner.close()
    return rows(parts, info, bootstrap)


def opened(artifact: Artifact, names: Sequence[str], folder: Path, threads: int) -> dict[str, Runner]:
    """The float model, and every file in its own runtime."""
    exports = yoloquant.export(artifact, targets=list(names), output=folder).exports
    runners: dict[str, Runner] = {BASELINE: TorchRunner(artifact.graph.module, artifact.info, threads)}
    return runners | {one.name: targets.get(one.name).load(one, threads) for one in exports}


def rows(
    parts: Sequence[tuple[ValidationSet, Evaluation]], info: ModelInfo, bootstrap: BootstrapOptions
) -> list[tuple[str, ...]]:
    """The table of every file on every set and on all of them.

    Args:
        parts: Each set with its labels, and what was found on its images.
        info: The model.
        bootstrap: How intervals are made.
    """
    boxes = [boxes_alone(found, data, info) for data, found in parts]
    agreed = [without_labels(found) for _, found in parts]
    kinds = spec_of(info.task).similarities
    titles = [f"{kind.prefix.replace('_', ' ')}fidelity" for kind in kinds]
    lines = [("", "images", "box mAP50-95", "box drop in points", *titles)]
    sets = [*zip(boxes, agreed, strict=True), (pooled(boxes), pooled(agreed))]
    comparers = [(Comparer(one, bootstrap), Comparer(other, bootstrap)) for one, other in sets]
    for name in boxes[0].records:
        for scored, compared in comparers:
            data, accuracy = scored.evaluation.data, scored.accuracy(name)
            first = (name, f"{len(data)} {Path(data.source).stem}", f"{accuracy.map50_95:.4f}" if accuracy else "")
            if name == BASELINE:
                lines.append((*first, "", *[""] * len(kinds)))
                continue
            drop = scored.compare(name).comparison.map_drop
            found = compared.compare(name).intervals
            cells = [_interval(found[f"{kind.prefix}fidelity"], ".3f", 1) for kind in kinds]
            lines.append((*first, _interval(drop, "+.2f", 100) if drop else "", *cells))
    return lines


def _interval(value: Interval, form: str, factor: float) -> str:
    middle, low, high = (format(v * factor, form) for v in (value.value, value.low, value.high))
    return f"{middle} [{low}, {high}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments, DEFAULTS, USAGE)
    if not all(options[key] for key in ("model", "data", "more")):
        print(USAGE)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="yoloquant-") as scratch:
            head, *found = measure(options, Path(scratch) / "exports")
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    text = f"### {Path(options['model']).name}\n\n{table(head, found)}\n"
    tell(text, options["out"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
