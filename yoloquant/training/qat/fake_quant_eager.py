"""Fake quantization by torch's own operations, chunk by chunk: on every device, for every floating type.

A chunk stays in the cache while every pass runs over it, which is some thirty times faster than
``torch.fake_quantize_per_tensor_affine`` on a CPU. What lies between the steps of a quantized SiLU is computed
again for the backward pass. ``fake_quant_fused`` has the same functions.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .fake_quant_chunked import (
    IntegerGrid,
    Pair,
    Residual,
    Steps,
    Sums,
    Wanted,
    arranged,
    as_float,
    dense,
    pieces,
    place_for,
    scratch,
)

MAX_LEVELS = 1 << 12
# A look-up runs on one thread: with more of them, computing everything is faster, the short way forward sooner.
_FORWARD_TABLE_THREADS, _BACKWARD_TABLE_THREADS = 1, 3
_local = threading.local()


def quantize(x: Tensor, pair: Pair, grid: IntegerGrid) -> Tensor:
    """``x`` on its grid; shape, dtype and memory format stay."""
    x = dense(x)
    out = torch.empty_like(x)
    steps = Steps(*pair, grid)
    (work,) = scratch(1, x)[:1]
    for part, place in pieces(x, out):
        found = steps.apply(as_float(part, work), place_for(place, work))
        if found is not place:
            place.copy_(found)
    return out


def quantize_gradients(x: Tensor, grad: Tensor, pair: Pair, grid: IntegerGrid, wanted: Wanted) -> list[Tensor | None]:
    """Gradients of the tensor, the scale and the zero_point; None where none is wanted."""
    x = dense(x)
    result = torch.empty_like(x)
    sums, steps = Sums(), Steps(*pair, grid)
    buffers = scratch(6, x)
    for part, given, place in pieces(x, arranged(grad, x), result):
        b = [w[: part.numel()] for w in buffers]
        # half-precision activations are computed in float32: a step is decided by the last bits
        residual = Residual(as_float(part, b[3]), steps, (b[0], b[1], b[2]))
        out = place_for(place, b[5])
        sums.add(residual.gradients(as_float(given, b[4]), out, wanted))
        # half precision: results were made in float32 scratch memory
        if out is not place:
            place.copy_(out)
    return [result, sums.like(sums.scale, pair[0]), sums.like(sums.zero, pair[1])]


def gate(x: Tensor, grids: Sequence[IntegerGrid | None], pairs: Sequence[Pair | None]) -> Tensor:
    """A quantized SiLU, see ``fake_quant.FakeQuantizeSiLU``."""
    x = dense(x)
    out = torch.empty_like(x)
    chain = _Chain(grids, pairs)
    table = chain.table(x.device).value if chain.tabulated(x.device, _FORWARD_TABLE_THREADS) else None
    buffers = scratch(3, x)
    for part, place in pieces(x, out):
        b = [w[: part.numel()] for w in buffers]
        values, target = as_float(part, b[0]), place_for(place, b[2])
        if table is None:
            chain.forward(values, target, b[1])
        else:
            chain.look_up(values, target, b[1], table)
        if target is not place:
            place.copy_(target)
    return out


def gate_gradients(
    x: Tensor, grad: Tensor, grids: Sequence[IntegerGrid | None], pairs: Sequence[Pair | None], wanted: Sequence[Wanted]
) -> list[Tensor | None]:
    """Gradients of the tensor, then of scale and zero_point of each range; None where none is wanted."""
    x = dense(x)
    result = torch.empty_like(x)
    sums = (Sums(), Sums(), Sums())
    chain = _Chain(grids, pairs)
    table = chain.table(x.device) if chain.tabulated(x.device, _BACKWARD_TABLE_THREADS) else None
    # as many as the two ways below use: b[0] to b[2] here, the rest there
    buffers = scratch(14 if table is None else 7, x)
    for part, given, place in pieces(x, arranged(grad, x), result):
        b = [w[: part.numel()] for w in buffers]
        values, g, out = as_float(part, b[0]), as_float(given, b[1]), place_for(place, b[2])
        if table is None:
            chain.backward(values, g, out, wanted, (sums, b[3:]))
        else:
            chain.backward_by_table(values, g, out, wanted, (sums, b[3:], table))
        if out is not place:
            place.copy_(out)
    known = [(s, (None, None) if p is None else p) for s, p in zip(sums, pairs, strict=True)]
    return [result, *(s.like(v, p) for s, (a, z) in known for v, p in ((s.scale, a), (s.zero, z)))]


@dataclass(frozen=True)
class _Table:
    """What lies behind each value of the pre-activation: result, derivative, and its sensitivity to later ranges."""

    value: Tensor
    slope: Tensor
    by_range: tuple[Tensor | None, ...]  # of the sigmoid's scale and zero_point, and of the product's


class _Chain:
    """The steps of one quantized SiLU on chunks."""

    def __init__(self, grids: Any, ranges: Any) -> None:
        self.grids, self.ranges = grids, ranges
        self.steps = [None if g is None else Steps(r[0], r[1], g) for g, r in zip(grids, ranges, strict=True)]

    def tabulated(self, device: torch.device, threads: int) -> bool:
        """Whether looking everything up is possible and pays."""
        pre = self.grids[0]
        pays = device.type != "cpu" or torch.get_num_threads() <= threads
        return pays and pre is not None and pre.qmax - pre.qmin < MAX_LEVELS

    def forward(self, x: Tensor, out: Tensor, s: Tensor) -> Tensor:
        """One chunk into ``out``; ``s`` is scratch memory."""
        pre, unit, product = self.steps
        y = x if pre is None else pre.apply(x, out)
        torch.sigmoid(y, out=s)
        if unit is not None:
            unit.apply(s, s)
        torch.mul(y, s, out=out)
        return out if product is None else product.apply(out, out)

    def look_up(self, x: Tensor, out: Tensor, y: Tensor, table: Tensor) -> Tensor:
        """The same by table."""
        pre = self.steps[0]
        assert pre is not None
        torch.mul(x, pre.inverse, out=y)
        y.round_().clamp_(pre.low, pre.high).sub_(pre.low)
        return torch.index_select(table, 0, _index(y, len(table) - 1), out=out)

    def table(self, device: torch.device) -> _Table:
        (scale, zero), grid = self.ranges[0], self.grids[0]
        # one more than there are grid points, for NaN
        levels = torch.arange(grid.qmin, grid.qmax + 2, dtype=torch.float32, device=device).sub_(zero).mul_(scale)
        levels[-1] = float("nan")  # where the input is none
        # the same chain without its first quantizer: what a table holds is what it would have computed
        behind = _Chain((None, *self.grids[1:]), (None, *self.ranges[1:]))
        value = behind.forward(levels, torch.empty_like(levels), torch.empty_like(levels))
        slope, by_range = self._sensitivities(levels)
        return _Table(value, slope, by_range)

    def _sensitivities(self, y: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        s = torch.sigmoid(y)
        gate, passes = s, torch.ones_like(s)
        sensitivities: list[Tensor | None] = [None] * 4
        if self.steps[1] is not None:
            unit = Residual(s, self.steps[1], _triple(s))
            gate, passes = unit.values(torch.empty_like(s)), unit.inside
            sensitivities[0], sensitivities[1] = (a * y for a in unit.sensitivities())
        # product rule: y is both the factor and what the sigmoid is taken of
        slope = gate + y * passes * s * (1 - s)
        if self.steps[2] is not None:
            product = Residual(y * gate, self.steps[2], _triple(s))
            sensitivities[2], sensitivities[3] = product.sensitivities()
            slope = slope * product.inside
            sensitivities[:2] = [None if f is None else f * product.inside for f in sensitivities[:2]]
        return slope, tuple(sensitivities)

    def backward_by_table(self, x: Tensor, g: Tensor, out: Tensor, needs: Any, work: Any) -> None:
        """One chunk: ``out`` becomes the gradient of the input."""
        sums, b, table = work
        steps = self.steps[0]
        assert steps is not None
        pre = Residual(x, steps, (b[0], b[1], b[2]))
        index = _index(torch.sub(pre.q, steps.low, out=b[3]), len(table.value) - 1)
        for which in (1, 2):
            parts = [table.by_range[2 * which - 2 + k] if needs[which][k] else None for k in (0, 1)]
            sums[which].add(tuple(None if t is None else _weighted(g, t, index, b[3]) for t in parts))
        behind = torch.index_select(table.slope, 0, index, out=b[3]).mul_(g)
        sums[0].add(pre.gradients(behind, out, needs[0]))

    def backward(self, x: Tensor, g: Tensor, out: Tensor, needs: Any, work: Any) -> None:
        """One chunk: ``out`` becomes the gradient of the input."""
        sums, b = work
        steps, pre, unit, y = self.steps, None, None, x
        if steps[0] is not None:
            pre = Residual(x, steps[0], (b[0], b[1], b[2]))
            y = pre.values(b[3])
        s = gate = torch.sigmoid(y, out=b[4])
        if steps[1] is not None:
            unit = Residual(s, steps[1], (b[5], b[6], b[7]))
            gate = unit.values(b[8])
        if steps[2] is not None:
            # ``out`` as scratch memory: nothing is in it yet
            residual = Residual(torch.mul(y, gate, out=b[9]), steps[2], (b[9], b[10], out))
            sums[2].add(residual.gradients(g, b[10], needs[2]))
            g = b[10]
        of_gate = torch.mul(y, g, out=b[9])
        torch.mul(g, gate, out=out)  # the direct part of the gradient of y
        if unit is not None:
            sums[1].add(unit.gradients(of_gate, of_gate, needs[1]))
        slope = torch.mul(s, s, out=b[8]).neg_().add_(s)  # s (1 - s)
        out.addcmul_(of_gate, slope)
        if pre is not None:
            sums[0].add(pre.gradients(out, out, needs[0]))


def _index(levels: Tensor, nan: int) -> Tensor:
    """Whole numbers as int32, in scratch memory; ``nan`` in place of NaN."""
    cache: dict[torch.device, Tensor] = _local.__dict__.setdefault("index", {})
    index = cache.get(levels.device)
    if index is None or index.numel() < levels.numel():
        # scratch memory made inside inference mode could not be used by a training step later
        with torch.inference_mode(False):
            cache[levels.device] = index = torch.empty(levels.numel(), dtype=torch.int32, device=levels.device)
    return index[: levels.numel()].copy_(levels.nan_to_num_(nan=nan))


def _weighted(g: Tensor, table: Tensor, index: Tensor, out: Tensor) -> Tensor:
    return torch.dot(g, torch.index_select(table, 0, index, out=out))


def _triple(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(like), torch.empty_like(like), torch.empty_like(like)
