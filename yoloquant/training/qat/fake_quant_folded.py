"""A convolution's weight with its BatchNorm folded into it, on the grid of its output channels, in one pass.

``function_hooks.fold`` followed by ``fake_quant.FakeQuantizeChannels`` computes the same in some sixty small
operations, which for the many small weights of a YOLO take longer than their arithmetic. Importing this needs numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import fake_quant_numba as loops
from .fake_quant_chunked import IntegerGrid

_Array = npt.NDArray[np.float32]


def serves(weight: Tensor, scale: Tensor) -> bool:
    """Whether a weight can be done here: float32 on a CPU, with one scale for each output channel."""
    # a single channel is quantized as one tensor (``lsq.LSQQuantizer.forward``), by other loops
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
    return on_cpu and weight.numel() > 0 and scale.shape == weight.shape[:1] and len(scale) > 1


class FoldQuantize(torch.autograd.Function):
    """Folded and quantized weight, and folded bias, with LSQ's gradients for the scales (arXiv 1902.08153)."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor | None,
        norm: tuple[Tensor, ...],
        scale: Tensor,
        grid: IntegerGrid,
        *gains: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Fold in the order of operations of ``function_hooks.fold``, and quantize.

        Args:
            ctx: Autograd's context.
            weight: (out, in, h, w), float32.
            bias: (out,) or None.
            norm: Mean of the BatchNorm and one over its standard deviation, both (out,).
            scale: (out,).
            grid: Integers.
            *gains: Weight and bias of the BatchNorm, (out,).

        Returns:
            Weight on its grid, and bias.
        """
        gamma, beta = gains
        ctx.save_for_backward(weight, bias, scale, gamma, *norm)
        ctx.grid = grid
        mean, inverse = (_numpy(t) for t in norm)
        # contiguous, whatever the weight's layout: a row of the loops is one output channel without gaps
        out = torch.empty(weight.shape)
        limits = np.float32(grid.qmin), np.float32(grid.qmax)
        loops.fold_quantize(_rows(weight), _rows(out), _numpy(gamma) * inverse, _numpy(scale), *limits)
        return out, torch.from_numpy(_centred(bias, mean) * inverse * _numpy(gamma) + _numpy(beta))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Straight-through inside the range, nothing outside."""
        weight, bias, scale, gamma, *norm = ctx.saved_tensors
        mean, inverse = (_numpy(t) for t in norm)
        gain, result = _numpy(gamma), torch.empty(weight.shape)
        by_factor, by_scale = np.empty_like(gain), np.empty_like(gain)
        limits = np.float32(ctx.grid.qmin), np.float32(ctx.grid.qmax)
        loops.fold_quantize_gradients(
            _rows(weight), _rows(grads[0]), _rows(result), gain * inverse, _numpy(scale), by_factor, by_scale, *limits
        )
        of_bias = _numpy(grads[1])
        by_gamma = by_factor * inverse + of_bias * _centred(bias, mean) * inverse
        by_bias = None if bias is None else torch.from_numpy(of_bias * inverse * gain)
        # beta is added last, so its gradient is the bias's own
        return result, by_bias, None, torch.from_numpy(by_scale), None, torch.from_numpy(by_gamma), grads[1]


def _centred(bias: Tensor | None, mean: _Array) -> _Array:
    start: _Array = np.zeros_like(mean) if bias is None else _numpy(bias)
    return start - mean


def _numpy(x: Tensor) -> _Array:
    # contiguous copies weights only where they are channels-last
    return x.detach().contiguous().numpy()  # type: ignore[no-any-return]


def _rows(weight: Tensor) -> _Array:
    """(out, in * h * w)."""
    return _numpy(weight).reshape(weight.shape[0], -1)
