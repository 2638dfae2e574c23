"""Fake quantization of a chunk of a tensor by torch's own operations, and the walk over a tensor's chunks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# On a CPU some buffers of a chunk share the last-level cache; a GPU wants fewer, larger kernels.
_CPU_CHUNK, _DEVICE_CHUNK = 1 << 20, 1 << 24
_local = threading.local()

Pair = tuple[Tensor, Tensor]  # scale and zero_point, scalars
Wanted = tuple[bool, bool]  # whether their gradients are


@dataclass(frozen=True)
class IntegerGrid:
    """Integers of a range: ``q = clamp(round(x / scale) + zero_point, qmin, qmax)``."""

    qmin: int
    qmax: int


def _chunk(x: Tensor) -> int:
    return _CPU_CHUNK if x.device.type == "cpu" else _DEVICE_CHUNK


def scratch(count: int, like: Tensor) -> list[Tensor]:
    """Scratch tensors, kept between calls: allocating them anew costs more than a pass over them."""
    size = min(_chunk(like), like.numel())
    # per thread: the backward pass runs on threads of autograd's own
    cache: dict[torch.device, list[Tensor]] = _local.__dict__.setdefault("buffers", {})
    buffers = cache.setdefault(like.device, [])
    if len(buffers) < count or buffers[0].numel() < size:
        # a validation runs in inference mode, and scratch made there could not be used by a training step
        with torch.inference_mode(False):
            cache[like.device] = buffers = [
                torch.empty(size, device=like.device) for _ in range(max(count, len(buffers)))
            ]
    return buffers


def _flat(x: Tensor) -> Tensor:
    """The elements in storage order; needs a dense tensor."""
    return x.as_strided((x.numel(),), (1,), x.storage_offset())


def dense(x: Tensor) -> Tensor:
    """The same values without gaps."""
    if x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    # e.g. a slice of a concat, which is no flat piece of memory
    return x.contiguous()


def arranged(x: Tensor, like: Tensor) -> Tensor:
    """The same values, every sample in the memory layout of another, dense tensor."""
    if x.stride() == like.stride() or (x.dim() > 1 and x.stride()[1:] == like.stride()[1:]):
        return x  # a part of the gradient of a concat has gaps between samples only
    return torch.empty_like(like, dtype=x.dtype).copy_(x)


def pieces(like: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Matching flat pieces of tensors of one layout that stay in the cache while every pass runs over them."""
    # one walk over all samples where the layouts agree; else sample by sample, since gaps lie between samples only
    whole = all(o.stride() == like.stride() for o in others)
    samples = [(like, *others)] if whole else zip(*(t.unbind(0) for t in (like, *others)), strict=True)
    size = _chunk(like)
    for sample in samples:
        flat = [_flat(t) for t in sample]
        for start in range(0, flat[0].numel(), size):
            yield tuple(f[start : start + size] for f in flat)


def as_float(x: Tensor, buffer: Tensor) -> Tensor:
    """The values as float32, in scratch memory where they are not."""
    return x if x.dtype == torch.float32 else buffer[: x.numel()].copy_(x)


def place_for(x: Tensor, buffer: Tensor) -> Tensor:
    """Where float32 results go: to the tensor itself, or to scratch memory on their way."""
    return x if x.dtype == torch.float32 else buffer[: x.numel()]


class Steps:
    """One range, prepared for many chunks: grid points are ``low`` to ``high`` steps from zero."""

    def __init__(self, scale: Tensor, zero: Tensor, grid: IntegerGrid) -> None:
        self.scale, self.inverse = scale, 1.0 / scale
        shift: Any = float(zero) if zero.device.type == "cpu" else zero  # reading it would stall another device
        self.low, self.high = grid.qmin - shift, grid.qmax - shift

    def apply(self, source: Tensor, out: Tensor) -> Tensor:
        """Put values on the grid; ``clamp(round(x) + z) - z`` is ``round(x)`` clamped to the shifted limits."""
        torch.mul(source, self.inverse, out=out)
        return out.round_().clamp_(self.low, self.high).mul_(self.scale)


class Residual:
    """Position of values on a grid, and the gradients that follow from it."""

    def __init__(self, source: Tensor, steps: Steps, work: tuple[Tensor, Tensor, Tensor]) -> None:
        self.position, self.q, self.inside = work
        self.scale = steps.scale
        torch.mul(source, steps.inverse, out=self.position)
        torch.round(self.position, out=self.inside)
        torch.clamp(self.inside, steps.low, steps.high, out=self.q)  # steps from zero
        torch.eq(self.inside, self.q, out=self.inside)

    def values(self, out: Tensor) -> Tensor:
        """Values on the grid."""
        return torch.mul(self.q, self.scale, out=out)

    def sensitivities(self) -> tuple[Tensor, Tensor]:
        """Derivative of each quantized value by scale and by zero_point."""
        return self.q - self.position * self.inside, (self.inside - 1) * self.scale

    def gradients(self, grad: Tensor, out: Tensor, wants: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        """Write the masked ``grad`` into ``out``, which may be the same; return those of scale and zero_point."""
        d_scale = d_zero = None
        if wants[1]:  # d/dz of (clamp(...) - z) * s is -s where clipped and 0 inside
            d_zero = (grad.sum() - torch.dot(grad, self.inside)) * -self.scale
        if wants[0]:
            self.q.addcmul_(self.position, self.inside, value=-1)
            d_scale = torch.dot(grad, self.q)
        torch.mul(grad, self.inside, out=out)
        return d_scale, d_zero


class Sums:
    """Gradients of scale and zero_point, added up over chunks."""

    def __init__(self) -> None:
        self.scale: Tensor | None = None
        self.zero: Tensor | None = None

    def add(self, found: tuple[Tensor | None, Tensor | None]) -> None:
        """Add one chunk's; None where they are not wanted."""
        if found[0] is not None:
            self.scale = found[0] if self.scale is None else self.scale + found[0]
        if found[1] is not None:
            self.zero = found[1] if self.zero is None else self.zero + found[1]

    @staticmethod
    def like(value: Tensor | None, parameter: Tensor | None) -> Tensor | None:
        """A sum as the gradient of a parameter."""
        return None if value is None or parameter is None else value.reshape(parameter.shape).to(parameter.dtype)
