"""Which classes lost most."""

from __future__ import annotations

from ..evaluation.results import TargetResult
from .numbers import is_number


def worst_classes(target: TargetResult, count: int) -> tuple[list[tuple[str, float]], int]:
    """The classes with the largest drop of AP50-95, worst first; without labels, with the largest loss of fidelity.

    Args:
        target: One artifact's result.
        count: How many to return at most.

    Returns:
        Pairs of class name and drop as a fraction, and how many classes were left out.
    """
    comparison = target.comparison
    if comparison is None:
        return [], 0
    # one minus fidelity, so that larger is worse either way
    drops = comparison.per_class_drop or {name: 1 - value for name, value in comparison.fidelity_per_class.items()}
    known = [(name, drop) for name, drop in drops.items() if is_number(drop)]
    # by name among equals: the same result must give the same page
    known.sort(key=lambda pair: (-pair[1], pair[0]))
    return known[:count], max(0, len(known) - count)


def drop_title(target: TargetResult) -> str:
    """What :func:`worst_classes` ranks by, as a column title."""
    labelled = target.comparison is not None and bool(target.comparison.per_class_drop)
    return "AP50-95 drop, points" if labelled else "Fidelity loss, points"
