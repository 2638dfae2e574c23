"""Every quantity that a gate can limit, as one table: what it is, its unit, and which limits make sense."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ..runtime.tasks import spec_of
from ..types import Task


class LimitUnit(str, Enum):
    """What a limit is written in, and how people read it."""

    POINTS = "points"  # a fraction of 1 in the file; read as points of accuracy, x 100
    FRACTION = "fraction"  # between 0 and 1
    RATIO = "ratio"  # a factor: 1 is the FP32 model
    COUNT = "number per image"


@dataclass(frozen=True)
class GateMetric:
    """One quantity that a gate can limit.

    Attributes:
        title: What it is called in messages.
        unit: What its limit is written in.
        least: Smallest limit that makes sense.
        most: Largest limit that makes sense; above it, somebody wrote points, percent or nothing at all.
        at_least: Whether the limit is a lower bound; an upper bound otherwise.
        absolute: Whether the size of the value counts and not its sign.
        needs_labels: Whether it exists only on labelled images.
        sampled: Whether it is measured on images, so that too few of them prove nothing.
        tasks: Tasks that have it; empty for all. A limit on another task's metric is none of a model's business.
    """

    title: str
    unit: LimitUnit
    least: float
    most: float
    at_least: bool = False
    absolute: bool = False
    needs_labels: bool = False
    sampled: bool = True
    tasks: frozenset[str] = frozenset()

    @property
    def sign(self) -> float:
        """1 for an upper bound, -1 for a lower one."""
        return -1.0 if self.at_least else 1.0

    def problem(self, name: str, limit: float) -> str:
        """Why a limit is out of range, in one sentence with the likely fix; empty if it is in range."""
        if self.least <= limit <= self.most:
            return ""
        text = f"{name}: {limit:g} is out of range; a limit of {name} is a {self.unit.value} between "
        if self.unit is LimitUnit.POINTS:
            text = f"{name}: {limit:g} would be {limit * 100:g} points; a limit of {name} is a fraction of 1 between "
        text += f"{self.least:g} and {self.most:g}"
        meant = limit / 100
        return f"{text}; did you mean {meant:g}?" if self.least <= meant <= self.most and meant > 0 else text


def _drop(title: str, tasks: frozenset[str] = frozenset()) -> GateMetric:
    # A limit below 0 demands a gain.
    return GateMetric(title, LimitUnit.POINTS, -0.25, 0.25, needs_labels=True, tasks=tasks)


def _of_tasks() -> dict[str, GateMetric]:
    """Drops of every figure that a task is scored by, and fidelity by every similarity that it knows."""
    found: dict[str, GateMetric] = {}
    having: dict[str, set[str]] = {}
    for task in Task:
        spec = spec_of(task)
        for metric in spec.metrics:
            # A metric of several tasks is one entry that names them all.
            having.setdefault(metric.drop, set()).add(task.value)
            found.setdefault(metric.drop, _drop(f"{metric.title} drop"))
        for similarity in spec.similarities[1:]:
            name = f"{similarity.prefix}fidelity"
            having.setdefault(name, set()).add(task.value)
            found.setdefault(name, _fidelity(f"fidelity of {similarity.title} to FP32"))
    return {name: replace(metric, tasks=frozenset(having[name])) for name, metric in found.items()}


def _fidelity(title: str) -> GateMetric:
    return GateMetric(title, LimitUnit.FRACTION, 0.5, 1.0, at_least=True)


_BOXES = frozenset(task.value for task in Task if not spec_of(task).class_folders)
SAME_MODEL = "same_model_fidelity"
"""Fidelity of a release to the last one, where both quantize the same float weights; among others nobody expects it."""
AT_MATCHED, AT_EACH_MATCHED = "matched_", "matched_per_class_"
"""Before the names of what is lost by artifacts that are deployed at a confidence of their own."""


def _operating() -> dict[str, GateMetric]:
    """What is lost at the deployed confidence, and what of it remains where the artifact has its own."""
    found: dict[str, GateMetric] = {}
    places = {
        "": "the deployed confidence",
        AT_MATCHED: "the matched confidence",
        AT_EACH_MATCHED: "each class's matched confidence",
    }
    for prefix, place in places.items():
        for name, title in (("f1", "F1"), ("precision", "precision"), ("recall", "recall")):
            found[f"{prefix}{name}_drop"] = _drop(f"{title} drop at {place}", _BOXES)
        found[f"{prefix}false_alarm_rise"] = GateMetric(
            f"more false alarms at {place}", LimitUnit.COUNT, 0.0, 100.0, needs_labels=True, tasks=_BOXES
        )
    return found


METRICS: dict[str, GateMetric] = {
    **_of_tasks(),
    "per_class_drop": _drop("largest drop of a class"),
    "fidelity": _fidelity("fidelity to FP32"),
    SAME_MODEL: _fidelity("fidelity to FP32 from the same weights"),
    # The least and no mean: two classes that are swapped hardly move a mean over eighty.
    "per_class_fidelity": GateMetric("least fidelity of a class", LimitUnit.FRACTION, 0.1, 1.0, at_least=True),
    "divergence": GateMetric(
        "divergence of probabilities", LimitUnit.FRACTION, 0.0, 5.0, tasks=frozenset({Task.CLASSIFY.value})
    ),
    **_operating(),
    # mAP and fidelity rank by confidence, so they do not see one that has moved everywhere alike.
    "confidence_shift": GateMetric("mean confidence shift", LimitUnit.FRACTION, 0.0, 0.5, absolute=True),
    "latency_ratio": GateMetric(
        "latency relative to FP32 in the same runtime", LimitUnit.RATIO, 0.01, 20.0, sampled=False
    ),
    "size_ratio": GateMetric("size relative to FP32", LimitUnit.RATIO, 0.01, 20.0, sampled=False),
}
"""By the name of the limit in a gate file. A new task's metrics are found in its own file."""
