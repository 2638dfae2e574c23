"""Input sizes that a model can have."""

from __future__ import annotations

from typing import Any

from ..errors import UsageError

MAX_IMGSZ = 8192


def check_imgsz(imgsz: Any, stride: int) -> tuple[int, int]:
    """Validate an input size.

    Args:
        imgsz: One number for a square, or height and width, in pixels.
        stride: The model's largest stride; both sides must be multiples of it.

    Returns:
        Height and width.

    Raises:
        UsageError: It is not a positive multiple of the stride.
    """
    values = list(imgsz) if isinstance(imgsz, (list, tuple)) else [imgsz]
    try:
        sides = [int(v) for v in values]
        # 640.5 is refused, not cut
        exact = all(float(v) == int(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        sides, exact = [], False
    if len(sides) == 1:
        sides *= 2
    if not exact or len(sides) != 2 or any(s < stride or s % stride or s > MAX_IMGSZ for s in sides):
        raise UsageError(
            f"imgsz={imgsz} is not supported; it must be one number or height,width, each a multiple of {stride} "
            f"between {stride} and {MAX_IMGSZ}, {_nearest_sizes(sides, stride)}"
        )
    return sides[0], sides[1]


def square_size(imgsz: Any) -> None:
    """Refuse to train at a height and width that differ: Ultralytics trains squares of the longer side.

    Raises:
        UsageError: They differ.
    """
    # as texts: what is no number is refused later, with its own message
    if isinstance(imgsz, (list, tuple)) and len(set(map(str, imgsz))) > 1:
        shown = ",".join(map(str, imgsz))
        raise UsageError(
            f"imgsz={shown} together with training is not supported: Ultralytics trains square images, so the result "
            f"would be of another size than asked; train with imgsz={max(imgsz)}, or quantize at imgsz={shown} without "
            "train= and prune="
        )


def _nearest_sizes(sides: list[int], stride: int) -> str:
    # of a pair the first that does not fit; too small and too large ones have no neighbours to offer
    wrong = next((s for s in sides if stride < s < MAX_IMGSZ and s % stride), None)
    if wrong is None:
        return f"for instance imgsz={max(640 // stride, 1) * stride}"
    below = wrong // stride * stride
    return f"the nearest to {wrong} are {below} and {below + stride}"
