"""Fake quantization with gradients for the ranges, written so that a training step stays affordable.

The gradient of the scale is the step-size gradient of LSQ (Esser et al. 2020, arXiv 1902.08153, equation 3), that of
the offset is LSQ+'s (Bhalgat et al. 2020, arXiv 2004.09576, equation 4). Forward results are bit for bit those of
``torch.fake_quantize_per_tensor_affine``. Only the float input is kept for the backward pass. Where numba is
installed ``fake_quant_fused`` computes float32 on a CPU, ``fake_quant_eager`` everything else.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from torch import Tensor

from . import fake_quant_eager as passes
from .fake_quant_chunked import IntegerGrid, Pair

__all__ = ["FakeQuantize", "FakeQuantizeChannels", "FakeQuantizeSiLU", "IntegerGrid", "RoundStraight", "ScaleGradient"]

logger = logging.getLogger(__name__)


# once a process, so that the hint below appears once as well
@functools.cache
def _fused() -> Any:
    """The compiled loops; None where numba is missing."""
    try:
        from . import fake_quant_fused as kernels_fused
    except ImportError as exc:
        logger.info("training steps take longer without compiled loops (%s): pip install yoloquant[train]", exc)
        return None
    return kernels_fused


def _compiled(x: Tensor, grid: IntegerGrid | None) -> Any:
    """The compiled loops if they can do a tensor whose first grid is ``grid``, else None."""
    # before the import below, which a run on a GPU need not pay for
    if x.device.type != "cpu":
        return None
    fused = _fused()
    return fused if fused is not None and fused.serves(x, grid) else None


def fold_quantize(
    weight: Tensor, bias: Tensor | None, norm: Any, scale: Tensor, grid: IntegerGrid
) -> tuple[Tensor, Tensor] | None:
    """Fold a BatchNorm into a convolution and quantize its weight, in one pass.

    Args:
        weight: (out, in, h, w).
        bias: (out,) or None.
        norm: The BatchNorm2d, whose statistics are frozen.
        scale: (out,).
        grid: Integers; no offset.

    Returns:
        Quantized weight and folded bias, differentiable; None where it takes ``function_hooks.fold`` and
        ``FakeQuantizeChannels``, which compute the same.
    """
    if _compiled(weight, grid) is None:
        return None
    # here, since that file cannot be imported without numba
    from .fake_quant_folded import FoldQuantize, serves

    if not serves(weight, scale):
        return None
    # rsqrt as in ``function_hooks.fold``: 1 / sqrt differs from it in the last bit
    statistics = norm.running_mean, torch.rsqrt(norm.running_var + norm.eps)
    folded = FoldQuantize.apply(weight, bias, statistics, scale, grid, norm.weight, norm.bias)  # type: ignore[no-untyped-call]
    return folded  # type: ignore[no-any-return]


class FakeQuantize(torch.autograd.Function):
    """One scale for the whole tensor, with gradients for the input, the scale and the zero_point."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, grid: IntegerGrid) -> Tensor:
        """Return ``x`` on its grid; shape, dtype and memory format stay."""
        # the input alone: masks and rounded values are computed again, since activations decide how large a batch may
        # be
        ctx.save_for_backward(x, scale, zero)
        ctx.grid, ctx.by = grid, _compiled(x, grid) or passes
        return ctx.by.quantize(x, (scale, zero), grid)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Straight-through inside the range, nothing outside."""
        x, *pair = ctx.saved_tensors
        # [1:3]: of scale and zero_point; a frozen range saves both sums
        return (*ctx.by.quantize_gradients(x, grads[0], tuple(pair), ctx.grid, ctx.needs_input_grad[1:3]), None)


class FakeQuantizeSiLU(torch.autograd.Function):
    """``fq3(y * fq2(sigmoid(y)))`` with ``y = fq1(x)``; any of the three quantizers may be absent (None).

    With the first one present ``y`` takes at most 2**bits values, so that everything behind it, its derivative
    included, can be looked up in a table.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, grids: tuple[IntegerGrid | None, ...], *ranges: Tensor | None) -> Tensor:
        """Apply the quantized SiLU.

        Args:
            ctx: Autograd's context.
            x: Pre-activations, any shape.
            grids: Integers of the pre-activation, of the sigmoid's and of the product's quantizer; None where absent.
            *ranges: Scale and zero_point of each, scalars; None where absent.

        Returns:
            A tensor like ``x``.
        """
        ctx.save_for_backward(x, *ranges)
        pairs = _pairs(ranges)
        ctx.grids, ctx.fused = grids, _compiled(x, grids[0])
        if ctx.fused is None:
            return passes.gate(x, grids, pairs)
        # kept for the way back: some hundred numbers that both directions look up
        ctx.table = ctx.fused.table(grids, pairs)
        return ctx.fused.gate(x, grids, pairs, ctx.table)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The chain through all three quantizers, straight-through inside their ranges."""
        x, *ranges = ctx.saved_tensors
        needs = ctx.needs_input_grad
        # positions among forward's arguments: x, grids, then scale and zero_point of each of the three
        wanted = [(needs[i], needs[i + 1]) for i in (2, 4, 6)]
        arguments = x, grads[0], ctx.grids, _pairs(ranges), wanted
        found = (
            passes.gate_gradients(*arguments) if ctx.fused is None else ctx.fused.gate_gradients(*arguments, ctx.table)
        )
        return found[0], None, *found[1:]


def _pairs(ranges: Any) -> list[Pair | None]:
    return [None if ranges[i] is None else (ranges[i], ranges[i + 1]) for i in (0, 2, 4)]


class FakeQuantizeChannels(torch.autograd.Function):
    """Symmetric weights with one scale per slice, with gradients for weights and scales."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, grid: IntegerGrid) -> Tensor:
        """Return weights on their grid; ``scale`` must broadcast against them."""
        out = torch.empty_like(x)
        # times the inverse and not divided: torch's own kernels multiply, and results must agree to the bit
        torch.mul(x, 1.0 / scale, out=out)
        out.round_().clamp_(grid.qmin, grid.qmax).mul_(scale)
        ctx.save_for_backward(x, scale)
        ctx.grid = grid
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Straight-through inside the range, nothing outside."""
        x, scale = ctx.saved_tensors
        # computed again as in ``FakeQuantize``: kept masks would take as much memory as the weights
        position = x / scale
        inside = position.round()
        q = inside.clamp(ctx.grid.qmin, ctx.grid.qmax)
        torch.eq(inside, q, out=inside)
        d_scale = None
        if ctx.needs_input_grad[1]:
            # q - position inside the range, q alone where it is clipped: LSQ's equation 3
            d_scale = q.addcmul_(position, inside, value=-1).mul_(grads[0]).sum_to_size(scale.shape)
        return inside.mul_(grads[0]), d_scale, None


class ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a constant: LSQ's ``g`` (arXiv 1902.08153, section 2.2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        """Return ``x``."""
        ctx.factor = factor
        # a view and not x itself, which autograd would not accept as the result of a function
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradient."""
        return grads[0] * ctx.factor, None


class RoundStraight(torch.autograd.Function):
    """Rounding whose gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the nearest integers."""
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Pass the gradient."""
        return (grads[0],)
