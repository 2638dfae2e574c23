"""Fake quantization with gradients for the ranges, written so that a training step stays affordable.

The gradient of the scale is the step-size gradient of LSQ (Esser et al. 2020, arXiv 1902.08153, equation 3), that of the
offset is LSQ+'s (Bhalgat et al. 2020, arXiv 2004.09576, equation 4). Forward results are bit for bit those of
``torch.fake_quantize_per_tensor_affine``, whose CPU kernel is some thirty times slower than these chunked passes: a chunk
stays in the cache while every pass runs over it. Only the float input is kept for the backward pass; what lies between
the steps of a quantized SiLU is computed again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_CPU_CHUNK, _DEVICE_CHUNK = 1 << 18, 1 << 26
_MAX_LEVELS = 1 << 12
_local = threading.local()


@dataclass(frozen=True)
class Grid:
    """Integers of a range: ``q = clamp(round(x / scale) + zero_point, qmin, qmax)``."""

    qmin: int
    qmax: int


def _chunk(x: Tensor) -> int:
    return _CPU_CHUNK if x.device.type == "cpu" else _DEVICE_CHUNK


def _buffers(count: int, like: Tensor) -> list[Tensor]:
    """Scratch tensors, kept between calls: allocating them anew costs more than a pass over them."""
    size = min(_chunk(like), like.numel())
    cache: dict[torch.device, list[Tensor]] = _local.__dict__.setdefault("buffers", {})
    found = cache.setdefault(like.device, [])
    if len(found) < count or found[0].numel() < size:
        with torch.inference_mode(False):
            cache[like.device] = found = [torch.empty(size, device=like.device) for _ in range(max(count, len(found)))]
    return found


def _flat(x: Tensor) -> Tensor:
    """The elements in storage order; needs a dense tensor."""
    return x.as_strided((x.numel(),), (1,), x.storage_offset())


def _dense(x: Tensor) -> Tensor:
    if x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    return x.contiguous()


def _as(x: Tensor, like: Tensor) -> Tensor:
    """The same values in the memory layout of another tensor."""
    return x if x.stride() == like.stride() else torch.empty_like(like, dtype=x.dtype).copy_(x)


def _on_grid(source: Tensor, out: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> None:
    torch.mul(source, 1.0 / scale, out=out)
    out.round_().add_(zero).clamp_(grid.qmin, grid.qmax).sub_(zero).mul_(scale)


class _Residual:
    """Position of values on a grid, and the gradients that follow from it."""

    def __init__(self, source: Tensor, scale: Tensor, zero: Tensor, grid: Grid, work: tuple[Tensor, Tensor, Tensor]):
        self.position, self.q, self.inside = work
        self.scale, self.zero = scale, zero
        torch.mul(source, 1.0 / scale, out=self.position)
        torch.round(self.position, out=self.inside).add_(zero)
        torch.clamp(self.inside, grid.qmin, grid.qmax, out=self.q)
        torch.eq(self.inside, self.q, out=self.inside)
        self.q.sub_(zero)  # steps from zero

    def values(self, out: Tensor) -> Tensor:
        return torch.mul(self.q, self.scale, out=out)

    def sensitivities(self) -> tuple[Tensor, Tensor]:
        """Derivative of each quantized value by scale and by zero_point."""
        return self.q - self.position * self.inside, (self.inside - 1) * self.scale

    def gradients(self, grad: Tensor, wants: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        """Masks ``grad`` in place and returns the gradients of scale and zero_point."""
        d_scale = d_zero = None
        if wants[1]:  # d/dz of (clamp(...) - z) * s is -s where clipped and 0 inside
            d_zero = (grad.sum() - torch.dot(grad, self.inside)) * -self.scale
        if wants[0]:
            self.position.mul_(self.inside)
            self.q.sub_(self.position)
            d_scale = torch.dot(grad, self.q)
        grad.mul_(self.inside)
        return d_scale, d_zero


class FakeQuantize(torch.autograd.Function):
    """One scale for the whole tensor, with gradients for the input, the scale and the zero_point."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> Tensor:
        """Return ``x`` on its grid; shape, dtype and memory format stay."""
        x = _dense(x)
        out = torch.empty_like(x)
        size = _chunk(x)
        (work,) = _buffers(1, x)[:1]
        source, target = _flat(x), _flat(out)
        for start in range(0, source.numel(), size):
            part, place = source[start : start + size], target[start : start + size]
            if x.dtype == torch.float32:
                _on_grid(part, place, scale, zero, grid)
            else:
                buffer = work[: part.numel()]
                _on_grid(buffer.copy_(part), buffer, scale, zero, grid)
                place.copy_(buffer)
        ctx.save_for_backward(x, scale, zero)
        ctx.grid = grid
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Straight-through inside the range, nothing outside."""
        x, scale, zero = ctx.saved_tensors
        grad = _as(grads[0], x)
        result = torch.empty_like(x)
        wants = ctx.needs_input_grad[1], ctx.needs_input_grad[2]
        sums = _Sums()
        buffers = _buffers(5, x)
        size = _chunk(x)
        source, given, target = _flat(x), _flat(grad), _flat(result)
        for start in range(0, source.numel(), size):
            part = source[start : start + size]
            b = [w[: part.numel()] for w in buffers]
            values = part if x.dtype == torch.float32 else b[4].copy_(part)
            g = b[3].copy_(given[start : start + size])
            sums.add(_Residual(values, scale, zero, ctx.grid, (b[0], b[1], b[2])).gradients(g, wants))
            target[start : start + size].copy_(g)
        return result, sums.like(sums.scale, scale), sums.like(sums.zero, zero), None


class _Sums:
    """Gradients of scale and zero_point, added up over chunks."""

    def __init__(self) -> None:
        self.scale: Tensor | None = None
        self.zero: Tensor | None = None

    def add(self, found: tuple[Tensor | None, Tensor | None]) -> None:
        if found[0] is not None:
            self.scale = found[0] if self.scale is None else self.scale + found[0]
        if found[1] is not None:
            self.zero = found[1] if self.zero is None else self.zero + found[1]

    @staticmethod
    def like(value: Tensor | None, parameter: Tensor) -> Tensor | None:
        return None if value is None else value.reshape(parameter.shape).to(parameter.dtype)


class FakeQuantizeSiLU(torch.autograd.Function):
    """``fq3(y * fq2(sigmoid(y)))`` with ``y = fq1(x)``; any of the three quantizers may be absent (None).

    With the first one present ``y`` takes at most 2**bits values, so that everything behind it, its derivative included,
    is looked up in a table.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, grids: tuple[Grid | None, ...], *ranges: Tensor | None) -> Tensor:
        """Apply the quantized SiLU.

        Args:
            ctx: Autograd's context.
            x: Pre-activations, any shape.
            grids: Integers of the pre-activation, of the sigmoid's and of the product's quantizer; None where absent.
            *ranges: Scale and zero_point of each, scalars; None where absent.

        Returns:
            A tensor like ``x``.
        """
        x = _dense(x)
        out = torch.empty_like(x)
        chain = _Chain(grids, ranges)
        table = chain.table(x.device).value if chain.tabulated else None
        size = _chunk(x)
        buffers = _buffers(3, x)
        source, target = _flat(x), _flat(out)
        for start in range(0, source.numel(), size):
            part, place = source[start : start + size], target[start : start + size]
            work = [w[: part.numel()] for w in buffers]
            work[0].copy_(part)
            found = chain.forward(work) if table is None else chain.look_up(work, table)
            place.copy_(found)
        ctx.save_for_backward(x, *ranges)
        ctx.grids = grids
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The chain through all three quantizers, straight-through inside their ranges."""
        x, *ranges = ctx.saved_tensors
        grad = _as(grads[0], x)
        result = torch.empty_like(x)
        needs = _pairs(ctx.needs_input_grad[2:])
        sums = (_Sums(), _Sums(), _Sums())
        chain = _Chain(ctx.grids, ranges)
        table = chain.table(x.device) if chain.tabulated else None
        buffers = _buffers(13, x)
        size = _chunk(x)
        source, given, target = _flat(x), _flat(grad), _flat(result)
        for start in range(0, source.numel(), size):
            part = source[start : start + size]
            work = [w[: part.numel()] for w in buffers]
            g = work[0].copy_(given[start : start + size])
            values = work[1].copy_(part)
            if table is None:
                chain.backward(values, g, needs, (sums, work[2:]))
            else:
                chain.backward_by_table(values, g, needs, (sums, work[2:], table))
            target[start : start + size].copy_(g)
        pairs = zip(sums, _pairs(ranges), strict=True)
        return result, None, *(s.like(v, p) for s, (a, z) in pairs for v, p in ((s.scale, a), (s.zero, z)))


def _pairs(values: Any) -> list[tuple[Any, Any]]:
    return [(values[0], values[1]), (values[2], values[3]), (values[4], values[5])]


@dataclass(frozen=True)
class _Table:
    """What lies behind each value of the pre-activation: result, derivative, and its sensitivity to later ranges."""

    value: Tensor
    slope: Tensor
    by_range: tuple[Tensor | None, ...]  # of the sigmoid's scale and zero_point, and of the product's


class _Chain:
    """The steps of one quantized SiLU on chunks."""

    def __init__(self, grids: Any, ranges: Any) -> None:
        self.grids, self.ranges = grids, _pairs(ranges)
        pre = grids[0]
        self.tabulated = pre is not None and pre.qmax - pre.qmin < _MAX_LEVELS

    def forward(self, work: list[Tensor]) -> Tensor:
        y, s = work[:2]
        if self.grids[0] is not None:
            _on_grid(y, y, *self.ranges[0], self.grids[0])
        torch.sigmoid(y, out=s)
        if self.grids[1] is not None:
            _on_grid(s, s, *self.ranges[1], self.grids[1])
        y.mul_(s)
        if self.grids[2] is not None:
            _on_grid(y, y, *self.ranges[2], self.grids[2])
        return y

    def look_up(self, work: list[Tensor], table: Tensor) -> Tensor:
        y, out = work[:2]
        (scale, zero), grid = self.ranges[0], self.grids[0]
        y.mul_(1.0 / scale).round_().add_(zero - grid.qmin).clamp_(0, grid.qmax - grid.qmin)
        return _select(table, _index(y), out)

    def table(self, device: torch.device) -> _Table:
        (scale, zero), grid = self.ranges[0], self.grids[0]
        levels = torch.arange(grid.qmin, grid.qmax + 1, dtype=torch.float32, device=device).sub_(zero).mul_(scale)
        value = _Chain((None, *self.grids[1:]), [None, None, *(v for r in self.ranges[1:] for v in r)]).forward(
            [levels.clone(), torch.empty_like(levels)]
        )
        slope, by_range = self._sensitivities(levels)
        return _Table(value, slope, by_range)

    def _sensitivities(self, y: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        s = torch.sigmoid(y)
        gate, passes = s, torch.ones_like(s)
        found: list[Tensor | None] = [None] * 4
        if self.grids[1] is not None:
            unit = _Residual(s, *self.ranges[1], self.grids[1], _triple(s))
            gate, passes = unit.values(torch.empty_like(s)), unit.inside
            found[0], found[1] = (a * y for a in unit.sensitivities())
        slope = gate + y * passes * s * (1 - s)
        if self.grids[2] is not None:
            product = _Residual(y * gate, *self.ranges[2], self.grids[2], _triple(s))
            found[2], found[3] = product.sensitivities()
            slope = slope * product.inside
            found[:2] = [None if f is None else f * product.inside for f in found[:2]]
        return slope, tuple(found)

    def backward_by_table(self, x: Tensor, g: Tensor, needs: Any, work: Any) -> None:
        """One chunk: ``x`` is overwritten, ``g`` becomes the gradient of the input."""
        sums, b, table = work
        (scale, zero), grid = self.ranges[0], self.grids[0]
        pre = _Residual(x, scale, zero, grid, (x, b[0], b[1]))
        index = _index(torch.add(pre.q, zero - grid.qmin, out=b[2]))
        for which in (1, 2):
            parts = [table.by_range[2 * which - 2 + k] if needs[which][k] else None for k in (0, 1)]
            sums[which].add(tuple(None if t is None else _weighted(g, t, index, b[2]) for t in parts))
        g.mul_(_select(table.slope, index, b[2]))
        sums[0].add(pre.gradients(g, needs[0]))

    def backward(self, y: Tensor, g: Tensor, needs: Any, work: Any) -> None:
        """One chunk: ``y`` holds the input and is overwritten, ``g`` becomes the gradient of the input."""
        sums, b = work
        pre = unit = None
        if self.grids[0] is not None:
            pre = _Residual(y, *self.ranges[0], self.grids[0], (b[0], b[1], b[2]))
            pre.values(y)
        s = gate = torch.sigmoid(y, out=b[3])
        if self.grids[1] is not None:
            unit = _Residual(s, *self.ranges[1], self.grids[1], (b[4], b[5], b[6]))
            gate = unit.values(b[7])
        if self.grids[2] is not None:
            product = torch.mul(y, gate, out=b[8])
            residual = _Residual(product, *self.ranges[2], self.grids[2], (b[8], b[9], b[10]))
            sums[2].add(residual.gradients(g, needs[2]))
        y.mul_(g)  # gradient of the gate
        g.mul_(gate)  # direct gradient of y
        if unit is not None:
            sums[1].add(unit.gradients(y, needs[1]))
        slope = torch.mul(s, s, out=b[8]).neg_().add_(s)  # s (1 - s)
        g.addcmul_(y, slope)
        if pre is not None:
            sums[0].add(pre.gradients(g, needs[0]))


def _index(levels: Tensor) -> Tensor:
    """Whole numbers as int32, in scratch memory."""
    cache: dict[torch.device, Tensor] = _local.__dict__.setdefault("index", {})
    found = cache.get(levels.device)
    if found is None or found.numel() < levels.numel():
        with torch.inference_mode(False):
            cache[levels.device] = found = torch.empty(levels.numel(), dtype=torch.int32, device=levels.device)
    return found[: levels.numel()].copy_(levels)


def _select(table: Tensor, index: Tensor, out: Tensor) -> Tensor:
    try:
        return torch.index_select(table, 0, index, out=out)
    except IndexError:  # NaN has no index; it must reach the loss, which reports it
        return out.fill_(float("nan"))


def _weighted(g: Tensor, table: Tensor, index: Tensor, out: Tensor) -> Tensor:
    return torch.dot(g, _select(table, index, out))


def _triple(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(like), torch.empty_like(like), torch.empty_like(like)


class FakeQuantizeChannels(torch.autograd.Function):
    """Symmetric weights with one scale per slice, with gradients for weights and scales."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, grid: Grid) -> Tensor:
        """Return weights on their grid; ``scale`` must broadcast against them."""
        out = torch.empty_like(x)
        _on_grid(x, out, scale, torch.zeros_like(scale), grid)
        ctx.save_for_backward(x, scale)
        ctx.grid = grid
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Straight-through inside the range, nothing outside."""
        x, scale = ctx.saved_tensors
        position = x * (1.0 / scale)  # as in the forward pass, so that both round alike
        rounded = position.round()
        q = rounded.clamp(ctx.grid.qmin, ctx.grid.qmax)
        inside = (rounded == q).to(x.dtype)
        d_scale = None
        if ctx.needs_input_grad[1]:
            d_scale = (grads[0] * (q - position * inside)).sum_to_size(scale.shape)
        return grads[0] * inside, d_scale, None


class ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a constant: LSQ's ``g`` (arXiv 1902.08153, section 2.2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        """Return ``x``."""
        ctx.factor = factor
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
