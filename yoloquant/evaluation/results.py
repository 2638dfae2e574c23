"""What validation returns: plain frozen data that reports and gates read. No computation here.

Units: every mAP, AP and drop is a fraction between 0 and 1 (0.005 is half a point); a *drop* is FP32 minus target, so
positive means worse. Latencies are milliseconds, sizes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..summarized import Summarized, data_frame
from ..types import Verdict

# Readers refuse any other: a key that changed its meaning would be compared with what it meant before.
SCHEMA_VERSION = 4
RESULTS = "results.npz"
"""File in a report's folder that holds what every model found on every image."""
OLD = "old"
"""Name of the baseline's row where it is the last release and not the FP32 model."""
OLD_RELEASE = "old release"
"""What people read then instead of FP32."""


@dataclass(frozen=True)
class Interval:
    """A value with its two-sided confidence interval.

    Attributes:
        value: The estimate on the whole sample.
        low: Lower end.
        high: Upper end.
        level: Confidence level, for instance 0.95.
        std: Standard deviation of the bootstrap replicates.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    std: float = 0.0


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of one model on one set of images.

    Attributes:
        map50_95: The task's main metric: mean average precision over IoU 0.50:0.95 as Ultralytics computes it (of
            boxes, or rotated boxes); top-1 accuracy of a classifier.
        map50: Its milder form: mean average precision at IoU 0.50; top-5 accuracy.
        per_class: mAP50-95 per class name, for classes that have labels.
        per_size: mAP50-95 for ``small``, ``medium`` and ``large`` objects (COCO areas in original pixels); None if
            there are no labels of that size.
        metrics: Every metric of the task by its name, also those of masks or keypoints.
    """

    # Beside `metrics`, so that tables and gates need not know what a task calls its main figures.
    map50_95: float
    map50: float
    per_class: dict[str, float] = field(default_factory=dict)
    per_size: dict[str, float | None] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Latency:
    """Time of one inference, without pre- and post-processing, in a process of its own.

    Attributes:
        median_ms: Median over all runs (p50), in milliseconds.
        p90_ms: 90th percentile.
        runs: Number of inferences.
        threads: Threads of the runtime.
        low_ms: 10th percentile of the rounds' medians: how far the machine itself scatters.
        high_ms: 90th percentile of the rounds' medians.
    """

    median_ms: float
    p90_ms: float
    runs: int
    threads: int
    low_ms: float | None = None
    high_ms: float | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """What a model does at one confidence, at IoU 0.5 and pooled over classes.

    Attributes:
        conf: The confidence; detections above it count.
        detections: Detections per image.
        precision: Right detections among all; None without labels, like everything below.
        recall: Labels that were found among all.
        f1: Harmonic mean of precision and recall.
        false_alarms: Wrong detections per image.
        precision_per_class: The same for every class that has labels.
        recall_per_class: Likewise.
        f1_per_class: Likewise.
        false_alarms_per_class: Likewise.
    """

    conf: float
    detections: Interval
    precision: Interval | None = None
    recall: Interval | None = None
    f1: Interval | None = None
    false_alarms: Interval | None = None
    precision_per_class: dict[str, float] = field(default_factory=dict)
    recall_per_class: dict[str, float] = field(default_factory=dict)
    f1_per_class: dict[str, float] = field(default_factory=dict)
    false_alarms_per_class: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GateCheck:
    """One limit of a gate, held against one measurement.

    Attributes:
        name: The limit's name in the gate file, for instance ``map_drop``.
        value: The measurement.
        limit: The limit; the check passes while value (or its interval) is on the good side.
        verdict: Outcome.
        interval: Confidence interval, where the measurement has one.
        message: One sentence for people, with how many more images would settle an inconclusive check.
    """

    name: str
    value: float | None
    limit: float
    verdict: Verdict
    interval: Interval | None = None
    message: str = ""

    @property
    def metric(self) -> str:
        """The limit's name without the gate's, which stands behind it where several gates judge."""
        return self.name.partition(" (")[0]


@dataclass(frozen=True)
class Comparison:
    """One artifact held against the FP32 baseline on the same images.

    Attributes:
        map_drop: Drop of the main metric; None when there are no labels.
        map50_drop: Drop of its milder form; None when there are no labels.
        fidelity: mAP50-95 of the artifact's detections scored against the baseline's own detections; of a classifier
            the share of images with the same first class.
        fidelity_per_class: The same per class name.
        fidelity_per_size: The same for small, medium and large.
        per_class_drop: Drop of AP50-95 per class name.
        per_size_drop: Drop per size.
        confidence_shift: Mean of (artifact - baseline) confidence over matched detections.
        box_iou: Mean IoU of matched detections.
        matched: Number of matched detections.
        latency_ratio: Latency divided by that of the FP32 model *in the same runtime*, or of another float precision of
            it that was judged too and is faster; the median of rounds in which both took turns. None if that was not
            measured.
        size_ratio: Size divided by the FP32 model's.
        intervals: Everything that has an interval, by the name of its gate limit: drops of every metric of the task,
            fidelity of masks or keypoints, divergence of a classifier's probabilities.
        latency_spread: ``latency_ratio`` with the 10th and 90th percentile of the rounds; None if not measured.
        matched_conf: The confidence at which the artifact reaches the baseline's F1 at the deployed one (or raises as
            many false alarms, as was asked; without labels: finds as much); None where the baseline gives nothing to
            match.
        matched_conf_per_class: The same of every class of which the baseline gives enough to match, by its name.
    """

    map_drop: Interval | None
    map50_drop: Interval | None
    fidelity: Interval
    fidelity_per_class: dict[str, float] = field(default_factory=dict)
    fidelity_per_size: dict[str, float | None] = field(default_factory=dict)
    per_class_drop: dict[str, float] = field(default_factory=dict)
    per_size_drop: dict[str, float | None] = field(default_factory=dict)
    confidence_shift: float = 0.0
    box_iou: float = 1.0
    matched: int = 0
    latency_ratio: float | None = None
    size_ratio: float | None = None
    intervals: dict[str, Interval] = field(default_factory=dict)
    latency_spread: Interval | None = None
    matched_conf: Interval | None = None
    matched_conf_per_class: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TargetResult:
    """Everything measured for one artifact.

    Attributes:
        target: Name of the row: the target, and the file behind a colon where several are of one target; ``fp32`` for
            the baseline itself.
        path: File or folder name of the artifact.
        sha256: Hash of the artifact's content, of the checkpoint for the baseline; empty if it is not known.
        scheme: Quantization scheme.
        verdict: Outcome over all checks.
        accuracy: None when there are no labels or the target failed.
        comparison: None for the baseline or when the target failed.
        latency: None when not measured.
        latency_note: Why the latency was not measured; empty if it was.
        size_bytes: Size of the artifact.
        peak_memory_bytes: Peak resident memory of the process while it ran, if it was measured in its own process.
        checks: Every gate limit and its outcome.
        error: Why it could not be built or run.
        notes: Remarks, for instance points that were calibrated because training lacked them.
        operating: What it does at the confidence that is deployed; None for a classifier or when it failed.
        matched: What it does at the confidence that matches the baseline's; None where there is none.
    """

    target: str
    path: str
    scheme: str
    verdict: Verdict
    accuracy: Accuracy | None = None
    comparison: Comparison | None = None
    latency: Latency | None = None
    size_bytes: int = 0
    peak_memory_bytes: int | None = None
    checks: tuple[GateCheck, ...] = ()
    error: str = ""
    notes: tuple[str, ...] = ()
    sha256: str = ""
    latency_note: str = ""
    operating: OperatingPoint | None = None
    matched: OperatingPoint | None = None


Lines = tuple[tuple[tuple[float, ...], ...], ...]
"""Lines of points x, y."""


@dataclass(frozen=True)
class Example:
    """One image with the baseline's and an artifact's detections, for people to look at.

    Attributes:
        image: Path of the image.
        target: Name of the artifact.
        fp32: Rows of x1, y1, x2, y2, confidence, class in original pixels.
        quantized: The same for the artifact.
        fp32_lines: What shows each of the baseline's besides its box, as lines of x, y in original pixels: outlines of
            masks, limbs between keypoints, sides of rotated boxes. Empty where there is nothing.
        quantized_lines: The same for the artifact.
    """

    image: str
    target: str
    fp32: tuple[tuple[float, ...], ...]
    quantized: tuple[tuple[float, ...], ...]
    fp32_lines: tuple[Lines, ...] = ()
    quantized_lines: tuple[Lines, ...] = ()


@dataclass(frozen=True, repr=False)
class ValidationResult(Summarized):
    """Outcome of a whole validation.

    Attributes:
        verdict: ERROR if a requested target was not measured, else FAIL, INCONCLUSIVE or PASS: the worst of all.
        baseline: The FP32 model's own result.
        targets: One result per requested artifact, in the order asked.
        names: Class names.
        images: Number of images scored.
        labels: Number of labelled boxes; 0 for an unlabelled source.
        imgsz: Input height and width.
        gate: Name of the gate.
        environment: Versions, host, threads, hashes of model and data, time; strings and numbers only.
        examples: A few images to look at.
        seconds: Wall time of the validation.
        notes: What holds for every target, for instance that classes were mapped by name or stale exports allowed.
    """

    verdict: Verdict
    baseline: TargetResult
    targets: tuple[TargetResult, ...]
    names: tuple[str, ...]
    images: int
    labels: int
    imgsz: tuple[int, int]
    gate: str
    environment: dict[str, Any] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """The table of every model, and the verdict."""
        # Inside: it imports this module.
        from .summary import table

        return table(self)

    def to_df(self) -> Any:
        """One row for every model as a ``pandas.DataFrame``; fractions as everywhere in results.

        Raises:
            UsageError: pandas is not installed.
        """
        # As above.
        from .summary import rows

        return data_frame(rows(self))
