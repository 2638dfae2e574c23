"""The comparison of synthetic detections in a process of its own: what it costs, and every figure that comes out.

It imports nothing but ``yoloquant``, so that any checkout of it can be put on ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from yoloquant.data.dataset import LabelledImage, ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, RunnerRecord
from yoloquant.runtime.core.detections import Detections
from yoloquant.runtime.core.letterbox import place
from yoloquant.runtime.core.matching import IGNORED, IOU_THRESHOLDS, RIGHT, SIZES, WRONG, Matches, Truth
from yoloquant.runtime.tasks import spec_of
from yoloquant.types import Task

BASELINE = "fp32"
IMGSZ = (640, 640)
OBJECTS = 7.3
"""Labelled boxes in an image, as in COCO."""


class _Picture(LabelledImage):
    """An image that nobody reads."""

    @property
    def sha256(self) -> str:  # type: ignore[override]
        """Its name, since every one is another."""
        return self.path.name


def made_up(images: int, classes: int, artifacts: int, found: int, seed: int) -> Evaluation:
    """An evaluation of models that agree about as much as an INT8 model does with its FP32 model.

    Args:
        images: Images, with 7.3 labels each.
        classes: Classes, few of them frequent and many rare (Zipf).
        artifacts: Artifacts beside the baseline.
        found: Detections of every model in each image.
        seed: Seed.
    """
    draw = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, classes + 1)
    frequency /= frequency.sum()
    labels = _truths(draw, draw.poisson(OBJECTS, images), frequency)
    records = {BASELINE: RunnerRecord()}
    references = []
    for truth in labels:
        detections, matches = _detect(draw, truth, found, frequency)
        records[BASELINE].detections.append(detections)
        records[BASELINE].label_matches.append(matches)
        confident = detections.above(EvaluateOptions().reference_conf)
        references.append(Truth(confident.xyxy, confident.class_id, _sizes(confident.xyxy)))
    for index in range(artifacts):
        record = records[f"artifact{index}"] = RunnerRecord()
        for truth, reference in zip(labels, references, strict=True):
            detections, matches = _detect(draw, truth, found, frequency)
            record.detections.append(detections)
            record.label_matches.append(matches)
            record.reference_matches.append(_matched(draw, detections, reference))
    names = tuple(f"class{i}" for i in range(classes))
    pictures = tuple(
        _Picture(Path(f"{i}.jpg"), truth.classes, truth.boxes / IMGSZ[0]) for i, truth in enumerate(labels)
    )
    return Evaluation(
        data=ValidationSet(pictures, names, "synthetic"),
        task=spec_of(Task.DETECT),
        names=names,
        imgsz=IMGSZ,
        options=EvaluateOptions(baseline=BASELINE),
        letterboxes=[place(IMGSZ, IMGSZ)] * images,
        labels=labels,
        references=references,
        records=records,
        errors={},
        seconds=0.0,
    )


def _boxes(draw: np.random.Generator, count: int) -> np.ndarray:
    """Boxes whose sides are log-uniform, float32 (count, 4)."""
    side = np.exp(draw.uniform(np.log(8), np.log(400), (count, 2)))
    corner = draw.uniform(0, IMGSZ[0] - side)
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def _sizes(boxes: np.ndarray) -> np.ndarray:
    return np.digitize((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), (32.0**2, 96.0**2)).astype(np.int64)


def _truths(draw: np.random.Generator, counts: np.ndarray, frequency: np.ndarray) -> list[Truth]:
    result = []
    for count in counts.tolist():
        boxes = _boxes(draw, count)
        result.append(Truth(boxes, draw.choice(len(frequency), count, p=frequency), _sizes(boxes)))
    return result


def _detect(draw: np.random.Generator, truth: Truth, count: int, frequency: np.ndarray) -> tuple[Detections, Matches]:
    """Detections of one image: most labels are found, the rest is background; scores say so more or less."""
    hits = np.flatnonzero(draw.random(len(truth.classes)) < 0.85)[:count]
    background = count - len(hits)
    boxes = np.concatenate([truth.boxes[hits], _boxes(draw, background)])
    label = np.concatenate([truth.classes[hits], draw.choice(len(frequency), background, p=frequency)])
    score = np.concatenate([draw.beta(1.2, 1.2, len(hits)), draw.beta(0.15, 6.0, background)]).astype(np.float32)
    score = np.round(np.maximum(score, np.float32(0.001)) * 255) / np.float32(255)  # with ties, as an INT8 head's
    order = np.argsort(-score, kind="stable")
    found = Detections(boxes[order], score[order], label[order])
    partner = np.concatenate([hits, np.full(background, -1)])[order]
    return found, _match(draw, found, truth, partner)


def _matched(draw: np.random.Generator, found: Detections, truth: Truth) -> Matches:
    """Matches with another model's detections: the first so many of a class that both have."""
    partner = np.full(len(found), -1)
    for cls in np.unique(truth.classes):
        mine, theirs = np.flatnonzero(found.class_id == cls), np.flatnonzero(truth.classes == cls)
        both = min(len(mine), len(theirs))
        partner[mine[:both]] = theirs[:both]
    return _match(draw, found, truth, partner)


def _match(draw: np.random.Generator, found: Detections, truth: Truth, partner: np.ndarray) -> Matches:
    """What ``matching.match`` would return for overlaps that are drawn."""
    overlap = np.where(partner >= 0, draw.beta(6.0, 1.0, len(partner)), 0.0).astype(np.float32)
    partner = np.where(overlap >= IOU_THRESHOLDS[0], partner, -1)
    right = overlap[:, None] >= IOU_THRESHOLDS
    status = np.zeros((len(partner), 1 + len(SIZES), len(IOU_THRESHOLDS)), np.uint8)
    status[:, 0] = np.where(right, RIGHT, WRONG)
    sizes = _sizes(found.xyxy)
    own = np.where(partner >= 0, truth.sizes[partner] if len(truth.sizes) else -1, -1)
    for index in range(len(SIZES)):
        missed = np.where(sizes == index, WRONG, IGNORED)[:, None]
        status[:, 1 + index] = np.where(right, np.where(own == index, RIGHT, IGNORED)[:, None], missed)
    return Matches(status, partner.astype(np.int64), np.where(partner >= 0, overlap, 0).astype(np.float32))


def compare(evaluation: Evaluation, replicates: int) -> dict[str, Any]:
    """Every artifact held against the baseline, as a verdict does; plain figures."""
    comparer = Comparer(evaluation, BootstrapOptions(replicates=replicates))
    result: dict[str, Any] = {BASELINE: _plain(comparer.accuracy(BASELINE))}
    for name in evaluation.records:
        if name != BASELINE:
            measured = comparer.compare(name)
            result[name] = [_plain(measured.comparison), _plain(measured.class_drops), _plain(comparer.accuracy(name))]
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def peak_memory() -> int:
    """Peak resident memory of this process in bytes; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def main(numbers: list[int], output: Path) -> None:
    """Make the detections up, compare them, and write what it cost and what came out as JSON."""
    images, classes, artifacts, found, replicates = numbers
    evaluation = made_up(images, classes, artifacts, found, seed=0)
    before, wall, cpu = peak_memory(), time.perf_counter(), os.times()
    figures = compare(evaluation, replicates)
    seconds, after = time.perf_counter() - wall, os.times()
    used = after.user + after.system - cpu.user - cpu.system
    costs = {"seconds": seconds, "cpu_seconds": used, "memory_before": before, "peak_memory": peak_memory()}
    output.write_text(json.dumps({**costs, "figures": figures}))


if __name__ == "__main__":
    main([int(text) for text in sys.argv[2:]], Path(sys.argv[1]))
