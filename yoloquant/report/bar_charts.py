"""Rows of the page's bar charts: lengths are worked out here, the template only draws them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..evaluation.results import TargetResult, ValidationResult
from .numbers import fixed, is_number, megabytes, points, ratio
from .worst_classes import worst_classes

SIZES = ("small", "medium", "large")
# of the worst classes: what a reader looks at; all are in report.json
CLASSES = 20


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: What it stands for.
        text: The value in words.
        start: Left end in percent of the chart's width.
        width: Length in percent of the chart's width.
        tone: ``plain``, ``good``, ``bad`` or ``base``; the sign in ``text`` says the same without colour.
    """

    name: str
    text: str
    start: float
    width: float
    tone: str = "plain"


def size_bars(result: ValidationResult) -> list[Bar]:
    """Size on disk of the baseline and of every target."""
    # a target that failed has no file, and a live model no size
    rows = [t for t in (result.baseline, *result.targets) if t.size_bytes > 0]
    top = max((t.size_bytes for t in rows), default=1)
    bars = []
    for target in rows:
        factor = ratio(target.comparison.size_ratio) if target.comparison and target.comparison.size_ratio else ""
        text = megabytes(target.size_bytes) + (f" ({factor})" if factor else "")
        tone = "base" if target is result.baseline else "plain"
        bars.append(Bar(target.target, text, 0, _percent(target.size_bytes / top), tone))
    return bars


def shift_bars(result: ValidationResult) -> list[Bar]:
    """Mean confidence shift of matched detections, target by target."""
    pairs = [(t.target, t.comparison.confidence_shift) for t in result.targets if t.comparison]
    # -1: confidences that shrink lose detections at a fixed threshold
    return _signed([(name, shift, fixed(shift, 4, signed=True)) for name, shift in pairs], worse=-1)


def class_bars(target: TargetResult) -> tuple[list[Bar], int]:
    """The classes that lost most, worst first, and how many more there are."""
    drops, left = worst_classes(target, CLASSES)
    return _signed([(name, drop, points(drop, signed=True)) for name, drop in drops], worse=1), left


def size_drop_bars(target: TargetResult) -> list[Bar]:
    """Drop for small, medium and large objects; without labels, the loss of fidelity."""
    comparison = target.comparison
    if comparison is None:
        return []
    drops = comparison.per_size_drop or {
        k: None if v is None else 1 - v for k, v in comparison.fidelity_per_size.items()
    }
    return _signed([(name, drops[name], points(drops[name], signed=True)) for name in _ordered(drops)], worse=1)


def fidelity_bars(target: TargetResult) -> list[Bar]:
    """Fidelity for small, medium and large objects, on a scale from 0 to 1."""
    values = target.comparison.fidelity_per_size if target.comparison else {}
    rows = [(name, values[name]) for name in _ordered(values)]
    return [Bar(n, fixed(v, 3), 0, _percent(min(1.0, max(0.0, v)) if is_number(v) else 0.0)) for n, v in rows]


def _ordered(sizes: Collection[str]) -> list[str]:
    return [*(s for s in SIZES if s in sizes), *(s for s in sizes if s not in SIZES)]


def _signed(rows: Sequence[tuple[str, float | None, str]], *, worse: int) -> list[Bar]:
    """Bars to both sides of zero (the middle of the chart) on one common scale; ``worse`` is the sign that is bad."""
    # or 1.0: bars of zero length where nothing changed
    top = max((abs(value) for _, value, _ in rows if is_number(value)), default=0.0) or 1.0
    bars = []
    for name, value, text in rows:
        if not is_number(value):
            # listed without a bar: a class that could not be measured must not look as if it had not changed
            bars.append(Bar(name, text, 50, 0))
            continue
        width = _percent(abs(value) / top) / 2
        tone = "plain" if value == 0 else "bad" if value * worse > 0 else "good"
        bars.append(Bar(name, text, 50 if value >= 0 else 50 - width, width, tone))
    return bars


def _percent(share: float) -> float:
    # a hundredth of a percent is less than a pixel, and keeps the page small
    return round(100 * share, 2)
