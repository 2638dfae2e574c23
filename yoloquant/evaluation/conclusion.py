"""What a comparison of two releases says in one sentence, with the margin that the gate itself names."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.tasks.base import Metric
from ..types import Verdict
from .gate_metrics import METRICS
from .results import GateCheck, Interval

ALIKE = "no difference beyond"
"""How the sentence begins where none was found."""


def conclusion(checks: Sequence[GateCheck], metric: Metric) -> str:
    """Whether two releases differ by more than the gate's limit on the drop of their main figure, in either direction.

    Never is there no difference where a limit on accuracy is broken or undecided. An interval as wide as the margin
    excludes nothing, and the sentence says so.

    Args:
        checks: The gate's checks of the new release.
        metric: The figure.

    Returns:
        The sentence; empty where the gate has no limit on the drop, or it was not measured.
    """
    # The strictest of several gates' limits is the margin.
    found = [c for c in checks if c.metric == metric.drop and c.interval is not None and c.limit > 0]
    if not found:
        return ""
    check = min(found, key=lambda c: c.limit)
    interval, margin = check.interval, check.limit
    assert interval is not None
    judged = [c for c in checks if c.metric in METRICS and METRICS[c.metric].sampled]
    broken = list(dict.fromkeys(METRICS[c.metric].title for c in judged if c.verdict is Verdict.FAIL))
    beyond = f"±{margin * 100:g} point{'' if margin == 0.01 else 's'} of {metric.title}"
    if broken:
        return f"they differ by more than the gate allows: {', '.join(broken)}"
    if interval.high < -margin:
        return f"the new one is better by more than {beyond[1:]} ({_ends(interval)})"
    decided = all(c.verdict is Verdict.PASS for c in judged)
    if decided and -margin <= interval.low and interval.high <= margin:
        return f"{ALIKE} {beyond}: the whole {interval.level:.0%} interval lies within ({_ends(interval)})"
    if decided and abs(interval.value) <= margin:
        return f"{ALIKE} {beyond} was found; the {interval.level:.0%} interval does not exclude one ({_ends(interval)})"
    return f"undecided whether they differ by more than {beyond} ({_ends(interval)})"


def _ends(interval: Interval) -> str:
    return f"{interval.low * 100:+.2f} to {interval.high * 100:+.2f}"
