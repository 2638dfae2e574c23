"""Whether a written file holds exactly the plan's scales: read back from its bytes, for every runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..errors import TargetError

if TYPE_CHECKING:
    from ..quantization.plan import Plan, Point

Scales = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Scale and zero_point by the name of their point, as ``Target.read_scales`` reads them."""
KEY = "scales"
"""Under which an export's metadata say how many points and scales were read back from its file."""
_SHOWN = 3


def check_scales(plan: Plan, found: Scales, *, what: str = "the file") -> int:
    """Hold what a file holds against a plan, bit by bit.

    A converter that merges two ranges, an exporter that rounds a scale, or a file of another calibration is found here
    and not in accuracy, where 2 % of one layer's scale are less than two correct kernels differ by.

    Args:
        plan: What the file was written from.
        found: What was read back from its bytes.
        what: What errors call the file.

    Returns:
        How many scales the file has: one for each channel, or for the tensor.

    Raises:
        TargetError: A point lacks in the file, is not the plan's, or has another scale or zero_point; it is named.
    """
    points = plan.by_name
    missing = [name for name in points if name not in found]
    unknown = [name for name in found if name not in points]
    wrong = [name for name in points if name in found and not same_scale(points[name], found[name])]
    if missing:
        raise TargetError(f"{what} lacks {len(missing)} of the {len(points)} points of its plan: {_some(missing)}")
    if unknown:
        raise TargetError(f"{what} has {len(unknown)} points that its plan has not: {_some(unknown)}")
    if wrong:
        raise TargetError(
            f"{len(wrong)} of {len(points)} points have another range in {what} than in the plan: {_some(wrong)}; a "
            "converter that merges ranges does so, and then the points that a concat or an add joins must be tied"
        )
    return sum(np.size(scale) for scale, _ in found.values())


def same_scale(point: Point | None, found: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether a file holds a point's scale and zero_point to the last bit, with as many channels."""
    if point is None or point.params is None:
        return False
    wanted = (point.params.scale, point.params.zero_point)
    # as bytes: nothing is close enough, and an array of one scale is not a scalar
    return all(
        np.asarray(a).shape == np.asarray(b).shape and np.asarray(a, kind).tobytes() == np.asarray(b, kind).tobytes()
        for a, b, kind in zip(found, wanted, (np.float32, np.int64), strict=True)
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
