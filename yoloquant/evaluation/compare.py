"""Holding one artifact against the FP32 baseline: estimates, and intervals by paired bootstrap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..runtime.core.metrics import ApTable, ClassScores, ap_table, class_scores, per_size_map
from .bootstrap import BootstrapOptions, image_weights, interval
from .evaluate import Evaluation, RunnerRecord
from .results import Accuracy, Comparison, Interval, Latency


@dataclass(frozen=True)
class Measurements:
    """What a gate may ask about one artifact.

    Attributes:
        comparison: The estimates.
        intervals: Interval of each measurement that has one, by the name of its gate limit.
        class_drops: Interval of each class's AP drop, by class name.
        class_boxes: Labelled boxes per class name.
        images: Number of images.
    """

    comparison: Comparison
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    class_drops: Mapping[str, Interval] = field(default_factory=dict)
    class_boxes: Mapping[str, int] = field(default_factory=dict)
    images: int = 0


@dataclass(frozen=True)
class Resampled:
    """Measurements with intervals, from one set of resamples.

    Attributes:
        intervals: By the name of the gate limit.
        class_drops: Drop of each class's AP50-95.
        fidelity_per_class: Fidelity of each class.
    """

    intervals: Mapping[str, Interval]
    class_drops: Mapping[str, Interval]
    fidelity_per_class: Mapping[str, float]


class Comparer:
    """Scores artifacts against one baseline on one set of resamples.

    Args:
        evaluation: What was measured.
        options: How intervals are computed.
    """

    def __init__(self, evaluation: Evaluation, options: BootstrapOptions | None = None) -> None:
        self.evaluation = evaluation
        self.options = options or BootstrapOptions()
        self.weights = image_weights(len(evaluation.data), self.options)
        self._scores: dict[tuple[str, bool], dict[int, ClassScores]] = {}
        self._baseline: tuple[np.ndarray, ApTable] | None = None

    def accuracy(self, name: str) -> Accuracy | None:
        """Accuracy of one model; None without labels."""
        record, evaluation = self.evaluation.records[name], self.evaluation
        if not evaluation.data.labelled:
            return None
        table = ap_table(self._label_scores(name), self.weights[:1])
        return Accuracy(
            map50_95=float(table.map50_95[0]),
            map50=float(table.map50[0]),
            per_class=self._by_name(table),
            per_size=per_size_map(record.detections, record.label_matches, evaluation.labels),
        )

    def resampled(self, name: str, weights: np.ndarray) -> Resampled:
        """Measure one artifact under image weights.

        Args:
            name: Name of the artifact's runner.
            weights: float64 (1 + replicates, images); row 0 is the sample, the others its resamples.
        """
        level = self.options.level
        reference = ap_table(self._reference_scores(name), weights)
        shift = self._confidence_shift(self.evaluation.records[name], weights)
        intervals = {
            "fidelity": interval(reference.map50_95, level),
            "confidence_shift": interval(shift, level),
        }
        if not self.evaluation.data.labelled:
            return Resampled(intervals, {}, self._by_name(reference))
        base, table = self._baseline_table(weights), ap_table(self._label_scores(name), weights)
        intervals["map_drop"] = interval(base.map50_95 - table.map50_95, level)
        intervals["map50_drop"] = interval(base.map50 - table.map50, level)
        drops = base.per_class - table.per_class
        present = [(i, c) for i, c in enumerate(base.classes.tolist()) if np.isfinite(drops[0, i])]
        class_drops = {self._name(c): interval(drops[:, i], level) for i, c in present}
        return Resampled(intervals, class_drops, self._by_name(reference))

    def compare(
        self, name: str, *, timing_baseline: str | None = None, size_ratio: float | None = None
    ) -> Measurements:
        """Compare one artifact with the baseline.

        Args:
            name: Name of the artifact's runner.
            timing_baseline: Runner of a float model in the same runtime.
            size_ratio: Size of the artifact divided by the FP32 model's.
        """
        record, evaluation = self.evaluation.records[name], self.evaluation
        found = self.resampled(name, self.weights)
        overlaps = np.concatenate([m.overlap[m.partner >= 0] for m in record.reference_matches])
        comparison = Comparison(
            map_drop=found.intervals.get("map_drop"),
            map50_drop=found.intervals.get("map50_drop"),
            fidelity=found.intervals["fidelity"],
            fidelity_per_class=dict(found.fidelity_per_class),
            fidelity_per_size=per_size_map(record.detections, record.reference_matches, evaluation.references),
            per_class_drop={key: value.value for key, value in found.class_drops.items()},
            per_size_drop=self._size_drop(record) if evaluation.data.labelled else {},
            confidence_shift=found.intervals["confidence_shift"].value,
            box_iou=float(overlaps.mean(dtype=np.float64)) if len(overlaps) else 0.0,
            matched=len(overlaps),
            latency_ratio=self._latency_ratio(name, timing_baseline),
            size_ratio=size_ratio,
        )
        boxes = self.class_boxes(self.weights[0])
        return Measurements(comparison, found.intervals, found.class_drops, boxes, len(evaluation.data))

    def class_boxes(self, weights: np.ndarray) -> dict[str, int]:
        """Labelled boxes per class name, for one row of image weights (images,)."""
        labels = self.evaluation.labels
        classes = np.concatenate([truth.classes for truth in labels])
        per_box = np.repeat(weights, [len(truth.classes) for truth in labels])
        return {self._name(c): int(per_box[classes == c].sum()) for c in np.unique(classes).tolist()}

    def latency(self, name: str, threads: int) -> Latency | None:
        """Time of one inference; None if it was never timed."""
        times = list(self.evaluation.records[name].infer_ms.values())
        if not times:
            return None
        return Latency(float(np.median(times)), float(np.percentile(times, 90)), len(times), threads)

    def _label_scores(self, name: str) -> dict[int, ClassScores]:
        if (name, True) not in self._scores:
            record = self.evaluation.records[name]
            self._scores[name, True] = class_scores(record.detections, record.label_matches, self.evaluation.labels)
        return self._scores[name, True]

    def _reference_scores(self, name: str) -> dict[int, ClassScores]:
        if (name, False) not in self._scores:
            record, truths = self.evaluation.records[name], self.evaluation.references
            self._scores[name, False] = class_scores(record.detections, record.reference_matches, truths)
        return self._scores[name, False]

    def _baseline_table(self, weights: np.ndarray) -> ApTable:
        """The baseline's AP under weights; the last one is kept, since every artifact asks for the same."""
        if self._baseline is None or self._baseline[0] is not weights:
            scores = self._label_scores(self.evaluation.options.baseline)
            self._baseline = (weights, ap_table(scores, weights))
        return self._baseline[1]

    def _size_drop(self, record: RunnerRecord) -> dict[str, float | None]:
        labels, base = self.evaluation.labels, self.evaluation.baseline
        mine = per_size_map(record.detections, record.label_matches, labels)
        theirs = per_size_map(base.detections, base.label_matches, labels)
        return {
            size: None if value is None or mine[size] is None else value - mine[size]  # type: ignore[operator]
            for size, value in theirs.items()
        }

    def _confidence_shift(self, record: RunnerRecord, weights: np.ndarray) -> np.ndarray:
        """Mean change of confidence over pairs matched at IoU 0.5, per row of weights; 0 where there are none."""
        images = len(self.evaluation.data)
        shift, count = np.zeros(images), np.zeros(images)
        for i, (found, matches) in enumerate(zip(record.detections, record.reference_matches, strict=True)):
            pairs = matches.partner >= 0
            # References are the baseline's first detections, so their indices are its own.
            before = self.evaluation.baseline.detections[i].confidence[matches.partner[pairs]]
            shift[i] = (found.confidence[pairs] - before).sum(dtype=np.float64)
            count[i] = pairs.sum()
        total = weights @ count
        return np.divide(weights @ shift, total, out=np.zeros(len(weights)), where=total > 0)

    def _latency_ratio(self, name: str, timing_baseline: str | None) -> float | None:
        records = self.evaluation.records
        if timing_baseline is None or timing_baseline not in records:
            return None
        mine, theirs = records[name].infer_ms, records[timing_baseline].infer_ms
        common = sorted(mine.keys() & theirs.keys())
        if not common:
            return None
        return float(np.median([mine[i] for i in common]) / np.median([theirs[i] for i in common]))

    def _name(self, index: int) -> str:
        names = self.evaluation.names
        return names[index] if index < len(names) else f"class_{index}"

    def _by_name(self, table: ApTable) -> dict[str, float]:
        values = table.per_class[0].tolist()
        return {self._name(c): v for c, v in zip(table.classes.tolist(), values, strict=True) if np.isfinite(v)}
