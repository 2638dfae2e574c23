"""From importance to a plan: how many units of each group go, so that a target is met."""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from ..errors import PruneError, UsageError
from .cost import Cost, CostModel
from .criteria import Limits, Measure, PruningScope
from .groups import Group, Groups
from .importance import RemovalUnit

STEPS = 400  # thresholds that a search looks at


def check_ignored(groups: Groups, limits: Limits) -> None:
    """Raise UsageError for a pattern that matches no group."""
    for pattern in (*limits.ignored, *(limits.protected or {})):
        if not any(fnmatchcase(name, pattern) for name in groups.by_name):
            names = ", ".join(list(groups.by_name)[:6])
            raise UsageError(f"'{pattern}' matches no prunable layer; they are {names} ... (prune dry-run=true)")


class Ladder:
    """All prunings from nothing to as much as the limits allow, in small steps that never add a channel back.

    Args:
        groups: Of the network.
        units: Every unit with its importance.
        limits: What must stay.
        scope: How removals are spread.
    """

    def __init__(self, groups: Groups, units: Sequence[RemovalUnit], limits: Limits, scope: PruningScope) -> None:
        check_ignored(groups, limits)
        self.groups, self._limits = groups, limits
        self._ranks: dict[str, list[float]] = defaultdict(list)
        for unit in units:
            # as a share of the group: one threshold then cuts the same share everywhere
            value = unit.rank / groups.by_name[unit.group].count if scope is PruningScope.UNIFORM else unit.score
            self._ranks[unit.group].append(value)
        # thresholds are quantiles of what there is, so steps remove about the same number of units each
        values = sorted(v for ranks in self._ranks.values() for v in ranks)
        picks = sorted({min(len(values) - 1, i * len(values) // STEPS) for i in range(1, STEPS + 1)})
        self._thresholds = [values[i] for i in picks]

    def __len__(self) -> int:
        return len(self._thresholds) + 1

    def kept(self, step: int) -> dict[str, int]:
        """Units left of every group at a step; 0 prunes nothing."""
        if step == 0:
            return self.groups.full()
        threshold = self._thresholds[step - 1]
        return {g.name: self._left(g, threshold) for g in self.groups.groups}

    def _left(self, group: Group, threshold: float) -> int:
        # ranks ascend within a group, so a threshold cuts a prefix
        units = group.count - bisect.bisect_right(self._ranks[group.name], threshold)
        fewest = group.count * (1 - self._limits.share(group.name))
        # 1e-9: shares like 0.8 are not exact, and must not forbid the width that they name
        allowed = [n for n in group.allowed(self._limits.round_to) if n >= fewest - 1e-9] or [group.count]
        # of two equally near widths the larger: rounding must not prune more than asked
        return min(allowed, key=lambda n: (abs(n - units), -n))


def solve(ladder: Ladder, cost: Callable[[Mapping[str, int]], float], share: float, what: str) -> dict[str, int]:
    """Find the mildest pruning that removes a share of a cost.

    Args:
        ladder: The prunings to choose from.
        cost: What to reduce, of units left; it never grows along the ladder.
        share: How much must go, above 0 and below 1.
        what: Its name, for messages.

    Returns:
        Units left of every group.

    Raises:
        UsageError: The share is not between 0 and 1.
        PruneError: So much cannot go; the message states the most that can.
    """
    if not 0 < share < 1:
        raise UsageError(f"a target of {share:g} is not supported; the share of {what} to remove lies between 0 and 1")
    full = cost(ladder.kept(0))
    goal = full * (1 - share)
    last = ladder.kept(len(ladder) - 1)
    most = 1 - cost(last) / full
    if most < share:
        nearest = math.floor(most * 1000) / 10  # rounded down, so that asking for it works
        raise PruneError(
            f"{share:.1%} of {what} cannot be removed: the most that max_ratio, round_to and ignored layers leave is "
            f"{nearest:.1f}%; {'ask for that, ' if nearest else ''}raise max_ratio, or lower round_to"
        )
    # costs fall along the ladder, so the mildest step that meets the goal is found by halving
    low, high = 0, len(ladder) - 1  # low misses the goal, high meets it
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(ladder.kept(middle)) <= goal else (middle, high)
    return ladder.kept(high)


def measure_of(model: CostModel, measure: Measure) -> Callable[[Mapping[str, int]], float]:
    """The cost that a measure names; latency is measured elsewhere."""
    if measure is Measure.FLOPS:
        return lambda kept: _cost(model, kept).macs
    if measure is Measure.PARAMETERS:
        return lambda kept: _cost(model, kept).parameters
    sizes = {g.name: sum(a.step for a in g.atoms) for g in model.groups.groups}
    return lambda kept: float(sum(sizes[name] * n for name, n in kept.items()))


def _cost(model: CostModel, kept: Mapping[str, int]) -> Cost:
    return model(kept)
