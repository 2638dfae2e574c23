"""How long exports of plans take beside each other: in turns, each in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import TargetError
from ..evaluation.latency import medians, ratio, time_in_turns
from ..evaluation.results import Interval
from ..types import ExportedModel

INTEGERS, FOUND, FLOAT = "integers", "found", "float"
"""The plan as it was, with what was found, and the float model."""


def time_plans(
    models: Mapping[str, ExportedModel], pictures: Sequence[np.ndarray], threads: int
) -> tuple[Interval, dict[str, float]]:
    """Time exports, one of them being the plan as it was.

    Args:
        models: By name; ``found`` may be missing.
        pictures: BGR images.
        threads: Threads of each.

    Returns:
        The time of ``found`` divided by that of ``integers`` in the same round, and every model's milliseconds.

    Raises:
        TargetError: One of them failed.
    """
    taken = time_in_turns(models, pictures, threads)
    if taken.errors:
        name, error = next(iter(taken.errors.items()))
        raise TargetError(f"the export '{name}' cannot be timed: {error}")
    found = ratio(taken, FOUND if FOUND in models else INTEGERS, INTEGERS)
    return found, {name: float(np.median(medians(taken, name))) for name in models}
