"""What a convolution reads at some of its results: enough to measure on, at a hundredth of the cost of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_DEFAULTS: tuple[Any, ...] = ((1, 1), (0, 0), (1, 1))


def conv_operands(
    image: Tensor, kernel: tuple[int, int], options: Sequence[Any], choose: Callable[[int], Tensor]
) -> Tensor:
    """Gather the values that meet the weights.

    Args:
        image: (1, channels, height, width).
        kernel: Height and width of the kernel.
        options: Stride, padding and dilation as ``aten.conv2d`` has them behind the bias; what is missing is default.
        choose: Which of so many results are looked at, counted row by row.

    Returns:
        (channels, taps, places), taps row by row; zeros where the kernel reads padding.
    """
    stride, padding, dilation = (*options[:3], *_DEFAULTS[len(options[:3]) :])
    left, right, top, bottom = _padding(padding, kernel, dilation)
    inner = image[0]
    padded = (inner.shape[1] + top + bottom, inner.shape[2] + left + right)
    height, width = (
        (size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(padded, kernel, stride, dilation, strict=True)
    )
    at = choose(height * width)
    taps = torch.cartesian_prod(*(torch.arange(k) * d for k, d in zip(kernel, dilation, strict=True)))
    # Indices (taps, places) into rows and columns.
    rows = (at // width * stride[0])[None] + taps[:, :1] - top
    columns = (at % width * stride[1])[None] + taps[:, 1:] - left
    # the image is not padded, which would copy all of it for the few values at its rim
    inside = (rows >= 0) & (rows < inner.shape[1]) & (columns >= 0) & (columns < inner.shape[2])
    # by one index: rows and columns apart take several times as long
    flat = rows.clamp(0, inner.shape[1] - 1) * inner.shape[2] + columns.clamp(0, inner.shape[2] - 1)
    values = inner.reshape(len(inner), -1).index_select(1, flat.reshape(-1)).reshape(len(inner), *flat.shape)
    return values if bool(inside.all()) else values.masked_fill_(~inside, 0)


def _padding(padding: Any, kernel: tuple[int, ...], dilation: Sequence[int]) -> tuple[int, int, int, int]:
    """Left, right, top and bottom."""
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        # An odd line goes behind, as in torch.
        return (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2)
    return (padding[1], padding[1], padding[0], padding[0])
