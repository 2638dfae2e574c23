"""What an add of two products in a signed 16-bit register does to integer weights."""

from __future__ import annotations

import torch
from torch import Tensor

from yoloquant.quantization.safe_pairs import operands, pairs


def unsafe_channels(integers: Tensor, axis: int) -> int:
    """How many output channels have a pair of integers that can leave 16 bits with some uint8 operands."""
    rows, taps = operands(integers.to(torch.int64), axis)
    bad = torch.zeros(len(rows), dtype=torch.bool)
    for order in pairs(rows.shape[1] // taps, taps):
        first, second = rows[:, order[:, 0]], rows[:, order[:, 1]]
        high = 255 * (first.clamp(min=0) + second.clamp(min=0)) > 2**15 - 1
        low = 255 * (first.clamp(max=0) + second.clamp(max=0)) < -(2**15)
        bad |= (high | low).any(1)
    return int(bad.reshape(integers.shape[axis], -1).any(1).sum())
