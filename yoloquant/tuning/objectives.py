"""What a study makes better, in which direction, and which results are better than which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Literal, TypeVar

from ..errors import UsageError

T = TypeVar("T")
Scores = Mapping[str, float]
"""What was measured of a trial, by the name of the objective."""


class Objective(str, Enum):
    """What can be made better."""

    FIDELITY = "fidelity"  # mAP50-95 of the detections held against the float model's, 0 to 1
    MAP_DROP = "map_drop"  # of mAP50-95 on held-back images, as a fraction (0.005 is half a point)
    LATENCY = "latency"  # milliseconds in the target's runtime
    SIZE = "size"  # bytes of the target's artifact
    MULTIPLICATIONS = "multiplications"  # multiply-accumulate operations of one image

    @property
    def larger_is_better(self) -> bool:
        """Whether more of it is better."""
        return self is Objective.FIDELITY

    @property
    def of_accuracy(self) -> bool:
        """Whether it is a measure of accuracy."""
        return self in {Objective.FIDELITY, Objective.MAP_DROP}

    @property
    def of_artifact(self) -> bool:
        """Whether an artifact must be exported to know it."""
        return self in {Objective.LATENCY, Objective.SIZE}

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """As Optuna calls it."""
        return "maximize" if self.larger_is_better else "minimize"

    def cost(self, scores: Scores) -> float:
        """A score as something to make small."""
        value = scores[self.value]
        return -value if self.larger_is_better else value


def check_objectives(objectives: Sequence[Objective], *, limited: bool) -> None:
    """Refuse objectives that make no sense together.

    Args:
        objectives: What is made better.
        limited: Whether there is a limit on the drop.

    Raises:
        UsageError: One is named twice, or none of them says how good the model still is.
    """
    if len(set(objectives)) < len(objectives):
        raise UsageError(f"objective={','.join(o.value for o in objectives)} names one twice; name each once")
    # every objective but accuracy is best for a model that computes nothing
    if not limited and not any(o.of_accuracy for o in objectives):
        raise UsageError(
            f"objective={','.join(o.value for o in objectives)} would choose the model that finds nothing; add "
            "map_drop or fidelity, or a limit such as drop=0.005"
        )


def ranked(found: Sequence[tuple[T, Scores]], objectives: Sequence[Objective], drop: float | None) -> list[T]:
    """Results from the best to the worst: within the limit first, then by how many others are better in everything.

    Args:
        found: Results with their scores.
        objectives: What counts; the first decides among equals.
        drop: Largest drop of mAP50-95 that is wanted.
    """

    def key(item: tuple[T, Scores]) -> tuple[float, ...]:
        mine = [o.cost(item[1]) for o in objectives]
        beaten = sum(dominates([o.cost(s) for o in objectives], mine) for _, s in found)
        # dominance and not the first objective alone: of several objectives the whole front is looked at again
        return (excess(item[1], drop), beaten, *mine)

    return [each for each, _ in sorted(found, key=key)]


def front(found: Sequence[tuple[T, Scores]], objectives: Sequence[Objective]) -> list[T]:
    """Results that no other beats in everything (the Pareto front), by the first objective.

    Results with the same scores are one; the first stands for them.
    """
    costs = [[o.cost(scores) for o in objectives] for _, scores in found]
    kept: dict[tuple[float, ...], T] = {}
    for (each, _), mine in zip(found, costs, strict=True):
        if not any(dominates(other, mine) for other in costs):
            # the same recipe, measured again or in another process, is one point of the front
            kept.setdefault(tuple(mine), each)
    return [kept[mine] for mine in sorted(kept)]


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether costs are nowhere larger than others, and somewhere smaller."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def excess(scores: Scores, drop: float | None) -> float:
    """By how much a result is over the limit; 0 within it. A result whose drop is not a number is over it."""
    if drop is None:
        return 0.0
    over = scores[Objective.MAP_DROP.value] - drop
    return max(over, 0.0) if math.isfinite(over) else math.inf


def choose(found: Sequence[tuple[T, Scores]], objectives: Sequence[Objective], drop: float | None) -> T | None:
    """The one result that a study ends with.

    Within the limit the one that is best in what the limit does not hold already; without a limit the best by the first
    objective; where nothing is within the limit, the one that is least over it.

    Args:
        found: Results with their scores.
        objectives: What counts, the most important first.
        drop: Largest drop of mAP50-95 that is wanted.
    """
    if not found:
        return None
    within = [(each, scores) for each, scores in found if not excess(scores, drop)]
    if drop is None or not within:
        return ranked(found, objectives, drop)[0] if drop is not None else _best(found, objectives)
    # accuracy is held by the limit already: within it, it only decides between equals
    free = [o for o in objectives if not o.of_accuracy]
    return _best(within, [*free, *(o for o in objectives if o.of_accuracy)])


def _best(found: Sequence[tuple[T, Scores]], objectives: Sequence[Objective]) -> T:
    return min(found, key=lambda item: [o.cost(item[1]) for o in objectives])[0]
