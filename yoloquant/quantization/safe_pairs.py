"""Weights of which no neighbouring pair can leave a signed 16-bit register.

x86 processors without VNNI add the products of two neighbouring uint8 operands with their int8 weights in 16 bits (see
``saturation``). Only pairs of one sign can leave them: 255 * (w0 + w1). A channel is safe if its scale is at least
1/127 of its largest such pair, since both integers may be rounded up by a half: 255 * (127 + 1) = 32640. That costs
far less than half range everywhere, which quadruples the rounding error: over YOLO11n's channels the scale grows by
15 % in the median, and the squared rounding error by half.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LARGEST = 127  # of two integers together before they are rounded
Integers = npt.NDArray[np.int64]


def pairs(channels: int, taps: int) -> tuple[Integers, ...]:
    """Which operands of a convolution share a 16-bit register, for every order that kernels use.

    oneDNN pairs neighbouring input channels at the same tap, an odd last one with padding. ONNX Runtime's MLAS lines
    the channels up tap after tap and pairs neighbours; for an even number of channels that is the same.

    Args:
        channels: Input channels of a group. With a single one there are no pairs: depthwise kernels widen first.
        taps: Height times width of the kernel.

    Returns:
        Per order an array (pairs, 2) of operands, which are numbered tap after tap, channels fastest.
    """
    if channels == 1:
        return ()
    index = np.arange(taps * channels)
    by_tap = index.reshape(taps, channels)[:, : channels // 2 * 2].reshape(-1, 2)
    if channels % 2 == 0:
        return (by_tap,)
    return (by_tap, index[: len(index) // 2 * 2].reshape(-1, 2))


def operands(weight: Tensor, axis: int) -> tuple[Tensor, int]:
    """A weight as (results, operands), operands in the order of ``pairs``, and the number of its taps.

    Args:
        weight: (out, in, ...) with axis 0, as convolutions and linear layers have it, or (in, out, ...) with axis 1, as
            transposed convolutions do; each of their taps is a 1x1 convolution of its own, so results are (out * taps).
        axis: Axis of the output channels.
    """
    if axis == 1:
        return weight.reshape(*weight.shape[:2], -1).permute(1, 2, 0).reshape(-1, weight.shape[0]), 1
    taps = weight[0, 0].numel()
    return weight.reshape(*weight.shape[:2], -1).transpose(1, 2).reshape(weight.shape[0], -1), taps


def least_scale(weight: Tensor, axis: int | None) -> Tensor:
    """The smallest scale of each output channel with which no pair can leave 16 bits.

    Args:
        weight: See ``operands``.
        axis: Axis of the output channels; None for one scale, whatever the axis.

    Returns:
        float32 (channels,), or () without an axis; 0 where there is no pair.
    """
    if axis is None:
        # one scale is asked for where the kernel's layout is not known: it must be safe along either axis
        both = [least_scale(weight, a).max() for a in range(min(weight.dim(), 2))]
        return torch.stack(both).max()
    rows, taps = operands(weight, axis)
    found = weight.new_zeros(len(rows))
    for order in pairs(rows.shape[1] // taps, taps):
        first, second = rows[:, order[:, 0]], rows[:, order[:, 1]]
        for sign in (1, -1):
            # weights of opposite signs, in operands that are never negative, cannot add up
            together = (sign * first).clamp(min=0) + (sign * second).clamp(min=0)
            found = torch.maximum(found, together.amax(1))
    return found.reshape(weight.shape[axis], -1).amax(1) / LARGEST
