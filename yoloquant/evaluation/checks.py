"""One limit held against one measurement: rules, the verdict, and the sentence that explains it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum

from pydantic import BaseModel, ConfigDict, Field

from ..types import Verdict
from .compare import Measurements
from .gate_metrics import METRICS, GateMetric, LimitUnit
from .results import GateCheck, Interval


class LimitRule(str, Enum):
    """How a limit is held against a measurement with an interval."""

    PROVE = "prove"  # the whole interval must be on the good side; inconclusive while it straddles the limit
    LIKELY = "likely"  # passes by the estimate, fails only if the whole interval is on the bad side; else inconclusive
    VETO = "veto"  # fails only if the whole interval is on the bad side; passes otherwise
    ESTIMATE = "estimate"  # the estimate alone decides


class Limit(BaseModel):
    """One limit. A plain number in the YAML stands for a limit with the rule ``prove``.

    Attributes:
        limit: The limit, in the unit of its metric (``gate_metrics.METRICS``).
        rule: How it is held against an interval.
        noise: Half-width, in the same unit, of what resampling images cannot see: other kernels, precisions or thread
            counts move mAP50-95 by up to 0.008 on 84 images. The interval is widened by it in quadrature.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: float = Field(allow_inf_nan=False)
    rule: LimitRule = LimitRule.PROVE
    noise: float = Field(default=0.0, ge=0.0, le=0.5, allow_inf_nan=False)


def check_limit(name: str, limit: Limit, measured: Measurements, min_boxes: int = 1) -> GateCheck | None:
    """Hold a measurement against a limit.

    Args:
        name: Name of the metric.
        limit: The limit.
        measured: What was measured.
        min_boxes: Classes with fewer labelled boxes, or detections of the FP32 model, do not count.

    Returns:
        The check; None if the quantity was not measured.
    """
    metric = METRICS[name]
    value, interval, label = _measurement(name, limit, measured, min_boxes)
    if value is None:
        return None
    if interval is not None:
        interval = _widened(_absolute(interval) if metric.absolute else interval, limit.noise)
        value = interval.value
    verdict = decide(value, interval, limit, sign=metric.sign)
    title = f"{metric.title} ({label})" if label else metric.title
    message = _message(metric, title, verdict, limit, measured.images, value, interval)
    return GateCheck(name, value, limit.limit, verdict, interval, message)


def decide(value: float, interval: Interval | None, limit: Limit, *, sign: float = 1.0) -> Verdict:
    """Verdict of one limit.

    Args:
        value: The estimate.
        interval: Its interval; None where it has none, and then the estimate decides.
        limit: The limit and its rule.
        sign: 1 if the limit is an upper bound, -1 if it is a lower bound.
    """
    bound = sign * limit.limit
    if interval is None or limit.rule is LimitRule.ESTIMATE:
        return Verdict.PASS if sign * value <= bound else Verdict.FAIL
    # Turned around, a lower bound becomes an upper one, so that every rule is written once.
    low, high = sorted((sign * interval.low, sign * interval.high))
    # the same for every rule: an interval wholly on the bad side has proved the failure
    if low > bound:
        return Verdict.FAIL
    if limit.rule is LimitRule.VETO or high <= bound:
        return Verdict.PASS
    if limit.rule is LimitRule.LIKELY and sign * value <= bound:
        return Verdict.PASS
    return Verdict.INCONCLUSIVE


def images_to_settle(value: float, interval: Interval, limit: float, images: int) -> int | None:
    """How many more images would move the interval off the limit, if the estimate stays where it is.

    The interval's width falls as 1/sqrt(images).

    Returns:
        The number, or None if the estimate lies on the limit.
    """
    gap = abs(value - limit)
    reach = abs((interval.high if value < limit else interval.low) - value)
    if gap <= 1e-9 or not math.isfinite(reach / gap):
        return None
    return max(1, math.ceil(images * (reach / gap) ** 2) - images)


def _measurement(
    name: str, limit: Limit, measured: Measurements, min_boxes: int
) -> tuple[float | None, Interval | None, str]:
    """Estimate, interval and label of a metric; the estimate is None if it was not measured."""
    if name == "per_class_drop":
        return _worst_class(limit, measured.class_drops, measured.class_boxes, min_boxes)
    if name == "per_class_fidelity":
        return _worst_class(limit, measured.class_fidelity, measured.class_references, min_boxes, sign=-1.0)
    interval = measured.intervals.get(name)
    if interval is not None:
        return interval.value, interval, ""
    # What has no interval, such as size_ratio, is called in `Comparison` as its limit is.
    value = getattr(measured.comparison, name, None)
    return (float(value), None, "") if isinstance(value, (int, float)) else (None, None, "")


def _worst_class(
    limit: Limit, found: Mapping[str, Interval], counts: Mapping[str, int], least: int, sign: float = 1.0
) -> tuple[float | None, Interval | None, str]:
    """The class that is nearest to failing: by its better end under ``veto``, by its worse one under ``prove``."""
    many = {name: value for name, value in found.items() if counts.get(name, 0) >= least}
    if not many:
        return None, None, ""

    def badness(name: str) -> float:
        low, high = sorted((sign * many[name].low, sign * many[name].high))
        return {LimitRule.VETO: low, LimitRule.PROVE: high}.get(limit.rule, sign * many[name].value)

    worst = max(many, key=badness)
    return many[worst].value, many[worst], worst


def _absolute(interval: Interval) -> Interval:
    """Interval of the absolute value of something whose interval is known."""
    low, high = abs(interval.low), abs(interval.high)
    # An interval across 0 comes as near to it as anything can.
    inner = 0.0 if interval.low <= 0 <= interval.high else min(low, high)
    return Interval(abs(interval.value), inner, max(low, high), interval.level, interval.std)


def _widened(interval: Interval, noise: float) -> Interval:
    """The interval with another, independent source of error in it."""
    if noise == 0.0:
        return interval
    value = interval.value
    low, high = (math.hypot(value - interval.low, noise), math.hypot(interval.high - value, noise))
    return Interval(value, value - low, value + high, interval.level, interval.std)


def _message(
    metric: GateMetric,
    title: str,
    verdict: Verdict,
    limit: Limit,
    images: int,
    value: float,
    interval: Interval | None,
) -> str:
    relation = "at least" if metric.at_least else "at most"
    text = f"{title} is {value:.4f}, allowed is {relation} {limit.limit:g}"
    if metric.unit is LimitUnit.POINTS:
        text += f" ({limit.limit * 100:g} point{'' if limit.limit == 0.01 else 's'})"
    if interval is None or limit.rule is LimitRule.ESTIMATE:
        return text
    # Percentiles of rounds are no confidence interval, so they are not called one.
    kind = f"{interval.level:.0%} interval" if metric.sampled else "spread"
    text += f" ({kind} {interval.low:.4f} to {interval.high:.4f})"
    # a spread of times is no matter of images: more of them would not narrow it
    if metric.sampled:
        return text + _outlook(metric, verdict, limit, images, value, interval)
    scatters = verdict is Verdict.INCONCLUSIVE
    return text + ("; it scatters across the limit, so measure again on a quiet machine" if scatters else "")


def _outlook(metric: GateMetric, verdict: Verdict, limit: Limit, images: int, value: float, interval: Interval) -> str:
    """What more images would give."""
    more = images_to_settle(value, interval, limit.limit, images)
    if verdict is Verdict.INCONCLUSIVE:
        return (
            f"; about {more} more images would settle it" if more else "; it lies on the limit, images cannot settle it"
        )
    if verdict is not Verdict.PASS:
        return ""
    if metric.sign * value > metric.sign * limit.limit:
        return "; the excess is within the noise of this many images"
    low, high = sorted((metric.sign * interval.low, metric.sign * interval.high))
    unproven = high > metric.sign * limit.limit >= low
    return f"; not proven: about {more} more images would prove it" if unproven and more else ""
