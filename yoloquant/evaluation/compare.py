"""Holding one artifact against the FP32 baseline: estimates, and intervals by paired bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..runtime.core.class_order import class_labels
from ..runtime.core.matching import Matches, Truth
from ..runtime.tasks.base import Scores
from .bootstrap import BootstrapOptions, image_weights, interval
from .evaluate import Evaluation, RunnerRecord
from .gate_metrics import AT_EACH_MATCHED, AT_MATCHED, METRICS, SAME_MODEL
from .match_by import USUAL, MatchBy
from .operating import (
    LEAST,
    Counted,
    count,
    matched_conf,
    matched_f1,
    of_class,
    operating_drops,
    operating_point,
)
from .results import Accuracy, Comparison, Interval, OperatingPoint

CONF = 0.25
"""Confidence that is deployed where nobody says another: that of Ultralytics' ``predict``."""


def class_confidences(names: Sequence[str], conf: float, per_class: Mapping[str, float]) -> list[float]:
    """One confidence for every class: its own, or the common one where it has none."""
    return [per_class.get(label, conf) for label in class_labels(names)]


@dataclass(frozen=True)
class Measurements:
    """What a gate may ask about one artifact.

    Attributes:
        comparison: The estimates.
        intervals: Interval of each measurement that has one, by the name of its gate limit.
        class_drops: Interval of each class's AP drop, by the class's label.
        class_boxes: Labelled boxes per class label.
        images: Number of images; copies of one file count once, since they make intervals narrow and prove nothing.
        replicates: Replicates that the intervals stand on; None if they are not from a bootstrap.
        baseline_map: mAP50-95 of the FP32 model on the labels; None without labels.
        references: The FP32 model's own detections that fidelity is held against; None if they were not counted.
        reasons: Why a metric was not measured, by its name, where there is more to say than that it was not.
        task: The model's task; limits on other tasks' metrics are none of its business. Empty if it is not known.
        class_fidelity: Interval of each class's fidelity, by the class's label.
        class_references: The FP32 model's own detections per class label.
    """

    comparison: Comparison
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    class_drops: Mapping[str, Interval] = field(default_factory=dict)
    class_boxes: Mapping[str, int] = field(default_factory=dict)
    images: int = 0
    replicates: int | None = None
    baseline_map: float | None = None
    references: int | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    task: str = ""
    class_fidelity: Mapping[str, Interval] = field(default_factory=dict)
    class_references: Mapping[str, int] = field(default_factory=dict)

    @property
    def labelled(self) -> bool:
        """Whether there were labels."""
        return "map_drop" in self.intervals or self.baseline_map is not None

    def why_unmeasured(self, name: str) -> str:
        """Why a metric has no value."""
        if name in self.reasons:
            return self.reasons[name]
        if name == "per_class_drop" and self.labelled:
            return "no class has enough labelled boxes"
        if name == SAME_MODEL:
            return "it is not known that two releases quantize the same float weights"
        if name == "per_class_fidelity":
            return "the FP32 model finds too few objects of every class"
        if METRICS[name].needs_labels and not self.labelled:
            return "the images have no labels"
        if name == "latency_ratio":
            return "no float model was timed in the same runtime"
        return "it is not known for this artifact"

    def of_same_model(self) -> Measurements:
        """The same of a release that was made from the FP32 model of the last one, which stands for the baseline."""
        return replace(self, intervals={**self.intervals, SAME_MODEL: self.intervals["fidelity"]})


@dataclass(frozen=True)
class Resampled:
    """Measurements with intervals, from one set of resamples.

    Attributes:
        intervals: By the name of the gate limit.
        class_drops: Drop of each class's AP50-95.
        class_fidelity: Fidelity of each class.
        baseline_map: mAP50-95 of the FP32 model on the sample; None without labels.
        references: Detections of the FP32 model in the sample that fidelity is held against.
    """

    intervals: Mapping[str, Interval]
    class_drops: Mapping[str, Interval]
    class_fidelity: Mapping[str, Interval]
    baseline_map: float | None = None
    references: int = 0


class Comparer:
    """Scores artifacts against one baseline on one set of resamples.

    Args:
        evaluation: What was measured.
        options: How intervals are computed.
        conf: The confidence that is deployed, which operating points are measured at.
        match: What the matched confidence makes alike; without labels the number of detections.
        keep: Artifacts whose sorted detections are kept, for questions that come back to them.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        options: BootstrapOptions | None = None,
        conf: float = CONF,
        match: MatchBy = USUAL,
        keep: int = 1,
    ) -> None:
        self.evaluation, self.conf, self.match, self._keep = evaluation, conf, match, keep
        self.options = options or BootstrapOptions()
        # drawn once: every artifact is compared on the same resamples, so artifacts can be compared with each other too
        self.weights = image_weights(len(evaluation.data), self.options)
        self._labels = class_labels(evaluation.names)
        # By model, and whether against labels: accuracy, drops and classes ask for the same, and AP sorts everything.
        # Of the baseline and the last artifacts alone, since all of them may be gigabytes.
        self._scores: dict[tuple[str, bool], Scores] = {}
        self._last: list[str] = []
        # By content: a file that was copied is no second image.
        self._distinct = len({image.sha256 for image in evaluation.data.images})
        self._counted: dict[str, Counted] = {}
        self._by_class: dict[int, Counted] = {}

    def accuracy(self, name: str) -> Accuracy | None:
        """Accuracy of one model; None without labels."""
        if not self.evaluation.data.labelled:
            return None
        # row 0 of what the comparison needs anyway, and keeps
        scores, weights = self._label_scores(name), self.weights
        values = {key: float(value[0]) for key, value in scores.values(weights).items()}
        # The first two of every task: its main figure and a milder one.
        strict, loose = (metric.name for metric in self.evaluation.task.metrics[:2])
        return Accuracy(
            map50_95=values[strict],
            map50=values[loose],
            per_class=self._by_label(*scores.per_class(weights)),
            per_size=scores.per_size(),
            metrics=values,
        )

    def resampled(self, name: str, weights: np.ndarray) -> Resampled:
        """Measure one artifact under image weights.

        Args:
            name: Name of the artifact's runner.
            weights: float64 (1 + replicates, images); row 0 is the sample, the others its resamples.
        """
        level = self.options.level
        reference = self._reference_scores(name)
        shift = self._confidence_shift(self.evaluation.records[name], weights)
        intervals = {key: interval(values, level) for key, values in reference.values(weights).items()}
        intervals["confidence_shift"] = interval(shift, level)
        class_fidelity = self._intervals(*reference.per_class(weights))
        per_image = np.array([len(truth.classes) for truth in self.evaluation.references])
        # Row 0 may weigh a part of the images only, where many samples of one pass are judged (tools/simulate_gate.py).
        references = round(float(weights[0] @ per_image))
        if not self.evaluation.data.labelled:
            return Resampled(intervals, {}, class_fidelity, references=references)
        # A classifier gives every image one class, so there is no threshold whose effect could be counted.
        if not self.evaluation.task.class_folders:
            before, after = self.counted(self.evaluation.options.baseline), self.counted(name)
            intervals.update(operating_drops(before, after, self.conf, weights, level))
        base, own = self._label_scores(self.evaluation.options.baseline), self._label_scores(name)
        # subtracted row by row: what an easy or hard resample does to both models cancels
        theirs, ours = base.values(weights), own.values(weights)
        for metric in self.evaluation.task.metrics:
            intervals[metric.drop] = interval(theirs[metric.name] - ours[metric.name], level)
        classes, per_class = base.per_class(weights)
        # a class without truths on these images has no drop
        class_drops = self._intervals(classes, per_class - own.per_class(weights)[1])
        main = float(theirs[self.evaluation.task.metrics[0].name][0])
        return Resampled(intervals, class_drops, class_fidelity, main, references)

    def compare(
        self,
        name: str,
        *,
        latency_ratio: Interval | None = None,
        size_ratio: float | None = None,
        reasons: Mapping[str, str] | None = None,
    ) -> Measurements:
        """Compare one artifact with the baseline.

        Args:
            name: Name of the artifact's runner.
            latency_ratio: Latency divided by a float model's in the same runtime, with its spread.
            size_ratio: Size of the artifact divided by the FP32 model's.
            reasons: Why a metric was not measured, by its name.
        """
        record, evaluation = self.evaluation.records[name], self.evaluation
        found = self.resampled(name, self.weights)
        matched, per_class = self.matched_conf(name), self.matched_per_class(name)
        if matched is not None and evaluation.data.labelled:
            further = self._matched_drops(name, matched.value, per_class)
            found = replace(found, intervals={**found.intervals, **further})
        overlaps = np.concatenate([m.overlap[m.partner >= 0] for m in record.reference_matches])
        comparison = Comparison(
            map_drop=found.intervals.get(evaluation.task.metrics[0].drop),
            map50_drop=found.intervals.get(evaluation.task.metrics[1].drop),
            fidelity=found.intervals["fidelity"],
            fidelity_per_class={key: value.value for key, value in found.class_fidelity.items()},
            fidelity_per_size=self._reference_scores(name).per_size(),
            per_class_drop={key: value.value for key, value in found.class_drops.items()},
            per_size_drop=self._size_drop(name) if evaluation.data.labelled else {},
            confidence_shift=found.intervals["confidence_shift"].value,
            box_iou=float(overlaps.mean(dtype=np.float64)) if len(overlaps) else 0.0,
            matched=len(overlaps),
            latency_ratio=None if latency_ratio is None else latency_ratio.value,
            latency_spread=latency_ratio,
            size_ratio=size_ratio,
            intervals=dict(found.intervals),
            matched_conf=matched,
            matched_conf_per_class=per_class,
        )
        return self.measurements(comparison, found, self.weights, reasons)

    def measurements(
        self,
        comparison: Comparison,
        found: Resampled,
        weights: np.ndarray,
        reasons: Mapping[str, str] | None = None,
    ) -> Measurements:
        """Put together what a gate may ask about one artifact on one sample.

        Args:
            comparison: The estimates.
            found: What ``resampled`` returned for the weights.
            weights: float64 (1 + replicates, images).
            reasons: Why a metric was not measured, by its name.
        """
        spread = comparison.latency_spread
        return Measurements(
            comparison,
            {**found.intervals, **({"latency_ratio": spread} if spread else {})},
            found.class_drops,
            self.class_boxes(weights[0]),
            # A part of the images (a row of weights) may hold fewer than all, but never more than there are different
            # ones.
            images=min(round(float(weights[0].sum())), self._distinct),
            replicates=len(weights) - 1,
            baseline_map=found.baseline_map,
            references=found.references,
            reasons=reasons or {},
            task=self.evaluation.task.task.value,
            class_fidelity=found.class_fidelity,
            class_references=self.class_boxes(weights[0], self.evaluation.references),
        )

    def counted(self, name: str) -> Counted:
        """A model's detections over all images, right or wrong."""
        self._turn_to(name)
        if name not in self._counted:
            record = self.evaluation.records[name]
            self._counted[name] = count(record.detections, record.label_matches, self.evaluation.labels)
        return self._counted[name]

    def operating(self, name: str, conf: float | None = None) -> OperatingPoint | None:
        """What a model does at a confidence, the deployed one if None; None for tasks without boxes."""
        if self.evaluation.task.class_folders:
            return None
        labelled = self.evaluation.data.labelled
        at, level = self.conf if conf is None else conf, self.options.level
        return operating_point(self.counted(name), at, self.weights, level, self._labels, labelled=labelled)

    def matched_conf(self, name: str) -> Interval | None:
        """The confidence at which an artifact does what the baseline does at the deployed one; see ``operating``."""
        if self.evaluation.task.class_folders:
            return None
        return self._matched(self.counted(self.evaluation.options.baseline), self.counted(name), self.weights)

    def matched_per_class(self, name: str) -> dict[str, float]:
        """The same confidence of every class that gives enough to match, by the class's label."""
        if self.evaluation.task.class_folders:
            return {}
        before, after = self.counted(self.evaluation.options.baseline), self.counted(name)
        # The baseline's are the same for every artifact.
        if not self._by_class:
            self._by_class = {k: of_class(before, k) for k in np.unique(before.classes).tolist()}
        # The estimate alone: intervals of eighty classes would take eighty times as long, and nothing asks for them.
        one = self.weights[:1]
        found = {k: self._matched(old, of_class(after, k), one, LEAST) for k, old in self._by_class.items()}
        return {self._label(k): value.value for k, value in found.items() if value is not None}

    def _matched(self, before: Counted, after: Counted, weights: np.ndarray, least: int = 1) -> Interval | None:
        labelled, level = self.evaluation.data.labelled, self.options.level
        if labelled and self.match is MatchBy.F1:
            return matched_f1(before, after, self.conf, weights, level, least=least)
        return matched_conf(before, after, self.conf, weights, level, labelled=labelled, least=least)

    def _matched_drops(self, name: str, conf: float, per_class: Mapping[str, float]) -> dict[str, Interval]:
        """What is lost if the artifact is deployed at its matched confidence, or at one for each class."""
        before, after = self.counted(self.evaluation.options.baseline), self.counted(name)
        own = np.array(class_confidences(self.evaluation.names, conf, per_class), np.float32)
        found = {}
        for prefix, at in ((AT_MATCHED, conf), (AT_EACH_MATCHED, own)):
            drops = operating_drops(before, after, self.conf, self.weights, self.options.level, at)
            found.update({f"{prefix}{key}": value for key, value in drops.items()})
        return found

    def class_boxes(self, weights: np.ndarray, truths: Sequence[Truth] | None = None) -> dict[str, int]:
        """Labelled boxes per class label, or others, for one row of image weights (images,)."""
        truths = self.evaluation.labels if truths is None else truths
        classes = np.concatenate([truth.classes for truth in truths])
        per_box = np.repeat(weights, [len(truth.classes) for truth in truths])
        return {self._label(c): int(per_box[classes == c].sum()) for c in np.unique(classes).tolist()}

    def _turn_to(self, name: str) -> None:
        """Forget what was kept of the artifact that was asked for longest ago, if there are too many."""
        if name in self._last or name == self.evaluation.options.baseline:
            return
        self._last.append(name)
        if len(self._last) > self._keep:
            other = self._last.pop(0)
            self._counted.pop(other, None)
            for labelled in (True, False):
                self._scores.pop((other, labelled), None)

    def _label_scores(self, name: str) -> Scores:
        self._turn_to(name)
        if (name, True) not in self._scores:
            record, evaluation = self.evaluation.records[name], self.evaluation
            matches = self._matches(record.label_matches, record.further_label_matches)
            self._scores[name, True] = evaluation.task.scores(record.detections, matches, evaluation.labels)
        return self._scores[name, True]

    def _reference_scores(self, name: str) -> Scores:
        self._turn_to(name)
        if (name, False) not in self._scores:
            record, evaluation = self.evaluation.records[name], self.evaluation
            matches = self._matches(record.reference_matches, record.further_reference_matches)
            self._scores[name, False] = evaluation.task.fidelity(record.detections, matches, evaluation.references)
        return self._scores[name, False]

    def _matches(self, main: list[Matches], further: Mapping[str, list[Matches]]) -> dict[str, list[Matches]]:
        """Matches by the prefix of their similarity."""
        return {self.evaluation.task.similarities[0].prefix: main, **further}

    def _size_drop(self, name: str) -> dict[str, float | None]:
        mine = self._label_scores(name).per_size()
        theirs = self._label_scores(self.evaluation.options.baseline).per_size()
        return {
            size: None if value is None or mine[size] is None else value - mine[size]  # type: ignore[operator]
            for size, value in theirs.items()
        }

    def _confidence_shift(self, record: RunnerRecord, weights: np.ndarray) -> np.ndarray:
        """Mean change of confidence over pairs matched at IoU 0.5, per row of weights; 0 where there are none."""
        images = len(self.evaluation.data)
        # Sums for each image, so that resamples weigh images, whose detections belong together, and not pairs.
        shift, count = np.zeros(images), np.zeros(images)
        for i, (found, matches) in enumerate(zip(record.detections, record.reference_matches, strict=True)):
            pairs = matches.partner >= 0
            # References are the baseline's first detections, so their indices are its own.
            before = self.evaluation.baseline.detections[i].confidence[matches.partner[pairs]]
            shift[i] = (found.confidence[pairs] - before).sum(dtype=np.float64)
            count[i] = pairs.sum()
        total = weights @ count
        return np.divide(weights @ shift, total, out=np.zeros(len(weights)), where=total > 0)

    def _label(self, index: int) -> str:
        return self._labels[index] if index < len(self._labels) else f"class_{index}"

    def _intervals(self, classes: np.ndarray, values: np.ndarray) -> dict[str, Interval]:
        """Interval of every class that the sample holds, from its estimate and replicates (1 + replicates, c)."""
        present = [(i, c) for i, c in enumerate(classes.tolist()) if np.isfinite(values[0, i])]
        return {self._label(c): interval(values[:, i], self.options.level) for i, c in present}

    def _by_label(self, classes: np.ndarray, per_class: np.ndarray) -> dict[str, float]:
        values = zip(classes.tolist(), per_class[0].tolist(), strict=True)
        return {self._label(c): v for c, v in values if np.isfinite(v)}
