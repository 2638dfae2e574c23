"""Learned ranges: one trainable scale per group of points, per channel for weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import PlanError
from ...quantization.plan import Plan, Point, PointKind, Role
from ...quantization.qparams import QParams, QuantSpec
from ...quantization.safe_pairs import least_scale
from .fake_quant import FakeQuantize, FakeQuantizeChannels, IntegerGrid, RoundStraight, ScaleGradient

_HEADS = frozenset({Role.SCORE, Role.HEAD})


class LSQQuantizer(nn.Module):
    """Scale and zero_point of the points that share one range.

    The scale is ``start * exp(log_ratio)``: always positive, bit for bit the calibrated one until a step is taken, and
    a learning rate means a relative change whatever the tensor's size. Where the offset is learned too, the two ends of
    the range move apart, each by its own such factor, and scale and zero_point follow from them: a step of the
    zero_point itself would move both ends, by hundreds of times its own size.

    Attributes:
        names: The points that it serves.
        spec: Their representation.
        trainable: Whether the range is learned; a fixed one keeps its parameters as buffers, which no trainer thaws.
        log_ratio: float32, () or (channels,); of the upper end where offsets are learned.
        log_low: float32, of the lower end; only for learned offsets.
        least: float32 like ``start``: the scale never falls below; see ``keep_safe``.
    """

    start: Tensor
    zero: Tensor
    log_ratio: Tensor
    log_low: Tensor | None
    least: Tensor

    def __init__(
        self,
        names: tuple[str, ...],
        spec: QuantSpec,
        params: QParams,
        *,
        trainable: bool = True,
        offset: bool = False,
    ) -> None:
        super().__init__()
        self.names, self.spec, self.trainable = names, spec, trainable
        self.grid = IntegerGrid(spec.qmin, spec.qmax)
        # buffers, so that checkpoints and the averaged model carry them
        self.register_buffer("start", torch.from_numpy(params.scale.copy()))
        self.register_buffer("zero", torch.from_numpy(params.zero_point.copy()))  # int32: no averaging touches it
        # 0: no floor, until a weight has been seen
        self.register_buffer("least", torch.zeros_like(self.start))
        if trainable:
            self.log_ratio = nn.Parameter(torch.zeros_like(self.start))
        else:
            self.register_buffer("log_ratio", torch.zeros_like(self.start))
        # a symmetric range has no second end
        learns_zero = trainable and offset and not spec.symmetric
        self.log_low = nn.Parameter(torch.zeros_like(self.start)) if learns_zero else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Follow the model to its device, but stay float32 when it is cast: a half scale is another scale."""

        def keep(t: Tensor) -> Tensor:
            moved = fn(t)
            # Ultralytics casts to half when it validates and saves
            return t.to(moved.device) if moved.is_floating_point() and moved.dtype != t.dtype else moved

        return super()._apply(keep, recurse)  # type: ignore[no-untyped-call]

    def scale(self, elements: float = 1) -> Tensor:
        """The scale, differentiable.

        Args:
            elements: Values per image (or per channel) that it quantizes, for the size of its gradient.
        """
        # with both ends learned the step follows from how much wider the range has become
        if self.log_low is not None:
            return self.start * self._ends(elements)[0]
        learned = self._damped(self.start * self.log_ratio.exp(), elements)
        # its gradient stops where the floor holds, so that the scale does not drift below unseen
        return torch.maximum(learned, self.least) if self.spec.safe_pairs else learned

    @torch.no_grad()
    def keep_safe(self, weight: Tensor) -> None:
        """Raise the scale where pairs of a weight would overflow 16 bits with it, if they must not.

        Args:
            weight: What is quantized next, with its BatchNorm folded into it.
        """
        if self.spec.safe_pairs:
            self.least.copy_(least_scale(weight.detach().float(), self.spec.axis).reshape(self.least.shape))

    def zero_point(self, elements: float = 1) -> Tensor:
        """The zero_point as a float without fraction, differentiable if it is learned; see ``scale``."""
        if self.log_low is None:
            return self.zero.float()
        low = RoundStraight.apply(self._ends(elements)[1])  # type: ignore[no-untyped-call]
        # one of the integers, as runtimes store it; outside of them 0.0, and with it padding, would not be exact
        return (self.grid.qmin - low).clamp(self.grid.qmin, self.grid.qmax)  # type: ignore[no-any-return]

    def _ends(self, elements: float) -> tuple[Tensor, Tensor]:
        """How much wider the range has become, and where its lower end lies in new steps from zero."""
        assert self.log_low is not None
        low, high = self._damped(self.log_low, elements), self._damped(self.log_ratio, elements)
        steps = self.grid.qmin - self.zero.float()
        share = -steps / (self.grid.qmax - self.grid.qmin)
        # expm1 is exactly 0 at 0, so before the first step every value is bit for bit the calibrated one
        wider = 1 + share * low.expm1() + (1 - share) * high.expm1()  # exactly 1 before the first step
        return wider, steps * low.exp() / wider

    def _damped(self, value: Tensor, elements: float) -> Tensor:
        # LSQ's gradient scale (arXiv 1902.08153, section 2.2): else large tensors would move their range faster than
        # the weights learn
        factor = 1.0 / math.sqrt(elements * self.grid.qmax)
        return ScaleGradient.apply(value, factor)  # type: ignore[no-any-return, no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize; shape and dtype stay."""
        axis = self.spec.axis
        if axis is not None and self.start.numel() > 1 and not self.spec.symmetric:  # raw keypoints, never learned
            zero = self.zero.to(torch.int32)
            wide = torch.fake_quantize_per_channel_affine(
                x.float(), self.start, zero, axis, self.grid.qmin, self.grid.qmax
            )
            return wide.to(x.dtype)
        if axis is not None and self.start.numel() > 1:
            shape = [1] * x.dim()
            shape[axis] = -1
            scale = self.scale(x.numel() // self.start.numel()).reshape(shape)
            return FakeQuantizeChannels.apply(x, scale, self.grid)  # type: ignore[no-any-return, no-untyped-call]
        # per image: the size of a batch is not a property of the range
        elements = x.numel() // max(x.shape[0] if x.dim() else 1, 1)
        scale, zero = self.scale(elements).reshape(()), self.zero_point(elements).reshape(())
        return FakeQuantize.apply(x, scale, zero, self.grid)  # type: ignore[no-any-return, no-untyped-call]

    def local_error(
        self, x: Tensor, then: Callable[[Tensor], Tensor] = lambda y: y, wanted: Tensor | None = None
    ) -> Tensor:
        """Mean squared error that the range makes by itself, in squares of its step, summed over its channels.

        Only the range has a gradient from it.

        The step-size gradient of a loss behind the network is mostly noise, since a single rounding error hardly moves
        that loss. This one has no noise, and its minimum is what calibration looks for (``quantization.observers``).

        Args:
            x: Values that it quantizes, of any shape, without gradient.
            then: What is done with them next, where the error counts behind it.
            wanted: What should come out of that; ``x`` if not given.
        """
        as_it_is = 1.0 / self.grid.qmax  # a factor of 1 instead of LSQ's
        axis = self.spec.axis
        if axis is not None and self.start.numel() > 1:
            steps = self.scale(as_it_is).reshape([-1 if d == axis else 1 for d in range(x.dim())])
            found = FakeQuantizeChannels.apply(x, steps, self.grid)  # type: ignore[no-untyped-call]
            rest = [d for d in range(x.dim()) if d != axis]
            # in squares of the step, so that wide and narrow ranges learn at the same pace; detached, or growing the
            # step would be the easiest way to a small error
            return (((found - x) / steps.detach()) ** 2).mean(rest).sum()  # type: ignore[no-any-return]
        scale, zero = self.scale(as_it_is).reshape(()), self.zero_point(as_it_is).reshape(())
        found = then(FakeQuantize.apply(x, scale, zero, self.grid))  # type: ignore[no-untyped-call]
        return ((found - (x if wanted is None else wanted)) ** 2).mean() / scale.detach() ** 2

    def distance(self, x: Tensor, quantized: Tensor) -> Tensor:
        """Mean squared distance of weights (any shape) from their grid points, in steps; differentiable in ``x``."""
        shape = [1] * x.dim()
        if self.spec.axis is not None and self.start.numel() > 1:
            shape[self.spec.axis] = -1
        # the pull is on weights alone: a larger step would make every distance smaller
        step = self.scale().detach().reshape(shape)
        return (((x - quantized.detach()) / step) ** 2).mean()

    @torch.no_grad()
    def qparams(self) -> QParams:
        """The range as it stands."""
        scale = self.scale().cpu().numpy()
        return QParams(scale.reshape(self.start.shape), self.zero_point().cpu().numpy().astype(np.int32))


def learned_ranges(plan: Plan, *, offset: bool = False, heads: bool = False) -> dict[str, LSQQuantizer]:
    """One range for every group of activation points and every weight point.

    Args:
        plan: A calibrated plan.
        offset: Learn zero_points of affine points too.
        heads: Learn the ranges of raw head outputs; they are frozen otherwise, since a clipped score puts a floor under
            the distillation loss.

    Returns:
        Ranges by point name; points of a group share one object.

    Raises:
        PlanError: The plan has no ranges, or points of one group differ.
    """
    plan.require_calibrated()
    ranges: dict[str, LSQQuantizer] = {}
    for members in (*plan.groups().values(), *((p,) for p in plan.weights)):
        learns = not members[0].fixed and (heads or not any(p.role in _HEADS for p in members))
        # channels would drift apart, and runtimes know one scale for all that they compute together
        learns = learns and not (members[0].kind is PointKind.ACTIVATION and members[0].spec.axis is not None)
        quantizer = _range(members, learns, offset)
        ranges.update(dict.fromkeys((p.name for p in members), quantizer))
    return ranges


def _range(members: tuple[Point, ...], trainable: bool, offset: bool) -> LSQQuantizer:
    first = members[0]
    assert first.params is not None
    for p in members[1:]:
        if p.spec != first.spec or p.params != first.params:
            raise PlanError(f"{p.name} and {first.name} are tied, but their ranges differ")
    if first.kind is PointKind.WEIGHT and not first.spec.symmetric:
        raise PlanError(f"{first.name} is affine; weights must be symmetric to be trained")
    names = tuple(p.name for p in members)
    return LSQQuantizer(names, first.spec, first.params, trainable=trainable, offset=offset)


def learned_plan(plan: Plan, ranges: dict[str, LSQQuantizer]) -> Plan:
    """The plan with the ranges as they stand; those that were trained are marked as learned."""
    params: dict[str, QParams] = {}
    algorithm: dict[str, str] = {}
    for point in plan.points:
        quantizer = ranges[point.name]
        # a frozen one keeps the word of how it was calibrated
        if quantizer.trainable:
            params[point.name], algorithm[point.name] = quantizer.qparams(), "learned"
    return plan.with_params(params, algorithm)
