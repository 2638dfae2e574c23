"""How far processors without VNNI change a plan's results, and which layers must be kept from it.

ONNX Runtime and OpenVINO multiply uint8 activations with int8 weights. x86 processors without VNNI (most of Intel's
before 2021, AMD's before Zen 4) do it with ``vpmaddubsw``: two neighbouring products are added in a signed 16-bit
register, which clamps beyond 32767, and only then widened (Intel's instruction set reference; oneDNN's guide, "Nuances
of int8 computations"). Nothing warns. The same file gives other results there: 8.6 points of mAP less for a plain INT8
YOLO11n in OpenVINO, all of it from the first convolution, where bright pixels are 255 side by side.

Here the clamping is computed exactly, in integers, for results spread over calibration images. Layers that lose more by
it than by coarser weights get weights that are safe in pairs; the first convolution always has half range
(``scheme.derive``).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from ..graph.trace import Graph, OpKind, OpNode
from .conv_operands import conv_operands
from .plan import Plan, Point
from .qparams import QParams, fake_quantize
from .safe_pairs import Integers, least_scale, operands, pairs
from .scheme import weight_point_name

logger = logging.getLogger(__name__)

IMAGES = 8
"""Images that are measured on. Between 8 and 64 of them the same layers of YOLO11n are found."""
TOLERATED = 0.01
"""Clamping that costs less than this share of what safe weights cost is left alone: other images may clamp more."""
POSITIONS = 4096
"""Of a layer's results on one image, spread evenly, at how many positions all channels are computed."""
HIGHEST, LOWEST = 2**15 - 1, -(2**15)
_LEAST_SUM = -(-(HIGHEST + 1) // 127)  # two codes that add up to less cannot clamp with any int8 weight


@dataclass
class Saturation:
    """What 16-bit pair sums do to one layer, and what keeping it from them costs.

    Attributes:
        results: Results that were looked at.
        clamped: Of these, how many a clamped pair changes.
        error: Sum of the squared changes, in real units.
        rounding: Sum of the squared errors that safe weights add to those of the plan's own weights.
    """

    results: int = 0
    clamped: int = 0
    error: float = 0.0
    rounding: float = 0.0

    @property
    def share(self) -> float:
        """Share of the results that change."""
        return self.clamped / max(self.results, 1)

    @property
    def matters(self) -> bool:
        """Whether safe weights are the smaller evil."""
        return self.error > TOLERATED * self.rounding


def with_safe_weights(graph: Graph, plans: Sequence[Plan], images: Iterable[np.ndarray]) -> tuple[Plan, ...]:
    """Give layers that lose by clamping weights that cannot clamp.

    Args:
        graph: The canonical graph.
        plans: Calibrated plans of schemes whose kernels add pairs in 16 bits.
        images: A few calibration images, float32 (1, channels, height, width).

    Returns:
        The plans with wider ranges of these weights, and a note that names them.
    """
    return tuple(_widened(graph, p, m) for p, m in zip(plans, measure(graph, plans, images), strict=True))


def _widened(graph: Graph, plan: Plan, measured: Mapping[str, Saturation]) -> Plan:
    chosen = [name for name, saturation in measured.items() if saturation.matters]
    points = tuple(_safe(graph, p) if p.name in chosen else p for p in plan.points)
    for name in chosen:
        logger.debug("%s: %.2g of its results clamp without VNNI", name, measured[name].share)
    return replace(plan, points=points, notes=(*plan.notes, *_notes(plan, measured, chosen)))


def _safe(graph: Graph, point: Point) -> Point:
    weight = graph.module.get_parameter(f"{point.name.removesuffix(':weight')}.weight").detach()
    return replace(point, spec=replace(point.spec, safe_pairs=True), params=safe_params(weight, point))


def safe_params(weight: Tensor, point: Point) -> QParams:
    """The range of a weight point, raised where pairs of the weight would overflow with it."""
    assert point.params is not None
    least = least_scale(weight, point.spec.axis).numpy().reshape(point.params.scale.shape)
    return QParams(np.maximum(point.params.scale, least), point.params.zero_point)


def _notes(plan: Plan, measured: Mapping[str, Saturation], chosen: Sequence[str]) -> tuple[str, ...]:
    half = [p.name for p in plan.weights if p.spec.half_range]
    if not half and not chosen:
        return ()
    names = ", ".join(n.removesuffix(":weight") for n in sorted(chosen, key=lambda n: -measured[n].share)[:3])
    more = " ..." if len(chosen) > 3 else ""
    return (
        f"x86 without VNNI adds pairs of products in 16 bits: the first convolution has weights of half range, and "
        f"{len(chosen)} of {len(measured)} others have scales with which no pair can overflow"
        + (f" ({names}{more})" if chosen else ""),
    )


def measure(graph: Graph, plans: Sequence[Plan], images: Iterable[np.ndarray]) -> list[dict[str, Saturation]]:
    """Find how far 16-bit pair sums change each layer of calibrated plans, in one pass of the float model.

    Args:
        graph: The canonical graph.
        plans: Calibrated plans derived from it.
        images: float32 (1, channels, height, width), 0 to 1, letterboxed.

    Returns:
        For each plan, by name, each weight point whose layer reads a quantized tensor and whose weights may clamp.
    """
    walk = _Measure(graph, plans)
    with torch.inference_mode():
        for image in images:
            walk.run(torch.from_numpy(np.ascontiguousarray(image, np.float32)), enable_io_processing=False)
    return walk.measured


class _Measure(fx.Interpreter):
    """Runs the float graph and looks at the operands of every layer that may clamp."""

    def __init__(self, graph: Graph, plans: Sequence[Plan]) -> None:
        super().__init__(graph.module)
        self.measured: list[dict[str, Saturation]] = [{} for _ in plans]
        # plans mostly give a layer the same ranges, and then it is looked at once for all of them
        self.layers: dict[str, dict[Hashable, tuple[_Layer, Saturation]]] = defaultdict(dict)
        self.body = {graph.fx_name(op.name) for op in graph.body()}
        for plan, measured in zip(plans, self.measured, strict=True):
            for op in graph.ops.values():
                seen = _operands(graph, plan, op)
                if seen is None:
                    continue
                alike = self.layers[graph.fx_name(op.name)]
                key = tuple(point.grid for point in seen)
                if key not in alike:
                    weight = graph.module.get_parameter(op.weight).detach()
                    alike[key] = _Layer(op, weight, *seen), Saturation()
                layer, saturation = alike[key]
                if layer.orders:
                    measured[layer.point.name] = saturation

    def run_node(self, n: fx.Node) -> object:
        if n.op == "call_function" and n.name not in self.body:
            return None  # nothing behind the heads is measured
        layers = [(layer, saturation) for layer, saturation in self.layers.get(n.name, {}).values() if layer.orders]
        if layers:
            args: Any = self.map_nodes_to_values(n.args, n)
            columns = layers[0][0].columns(args[0], args[3:])  # of the operation, whatever the ranges
            rounding: dict[Hashable, float] = {}
            for layer, saturation in layers:
                layer.add_to(saturation, columns, rounding)
        return super().run_node(n)


def _operands(graph: Graph, plan: Plan, op: OpNode) -> tuple[Point, Point] | None:
    """The points of an operation's weight and input; None if integers of these cannot clamp."""
    point = plan.by_name.get(weight_point_name(op)) if op.weight and not op.tail else None
    source = operand_point(graph, plan, op) if point is not None else None
    if point is None or source is None or point.spec.half_range or point.spec.safe_pairs:
        return None
    return (point, source) if point.spec.bits <= 8 and source.spec.bits <= 8 else None


def operand_point(graph: Graph, plan: Plan, op: OpNode) -> Point | None:
    """The point on whose grid a layer reads its input; None if it reads a float tensor."""
    name = graph.root(op.inputs[0])
    while name not in plan.by_name and graph.ops[name].kind is OpKind.CONCAT:
        name = graph.root(graph.ops[name].inputs[0])  # its sources share one range
    return plan.by_name.get(name)


class _Layer:
    """One weighted operation as an integer kernel sees it.

    Attributes:
        point: The point of its weight.
        orders: Pairs of operands that share a register, see ``safe_pairs.pairs``.
    """

    def __init__(self, op: OpNode, weight: Tensor, point: Point, source: Point) -> None:
        assert point.params is not None and source.params is not None
        self.kind, self.weight, self.point, self.operand = op.kind, weight, point, source.params
        # torch keeps transposed weights as (in, out, height, width)
        self.axis = 1 if op.kind is OpKind.CONV_TRANSPOSE else 0
        on_grid = fake_quantize(weight.numpy(), point.params, point.spec)
        rows, self.taps = operands(torch.from_numpy(on_grid), self.axis)
        steps = np.broadcast_to(point.params.scale.astype(np.float64), (weight.shape[self.axis],))
        # a transposed convolution has a row for every tap of every output channel
        self.steps = np.repeat(steps, len(rows) // len(steps))
        self.rows = np.rint(rows.numpy() / self.steps[:, None]).astype(np.int32)
        self.orders = pairs(self.rows.shape[1] // self.taps, self.taps)
        # few pairs can clamp at all, and only what these read is looked at on every image
        unsafe = [order[_may_clamp(self.rows, order)] for order in self.orders]
        self.read = np.unique(np.concatenate(unsafe)) if unsafe else np.empty(0, np.int64)
        self.unsafe = [np.searchsorted(self.read, order) for order in unsafe]

    @cached_property
    def errors(self) -> tuple[Tensor, Tensor]:
        """What safe weights are off by, and the plan's own, in the layout of ``rows``."""
        assert self.point.params is not None
        safe, own = (
            operands(torch.from_numpy(fake_quantize(self.weight.numpy(), p, self.point.spec)) - self.weight, self.axis)
            for p in (safe_params(self.weight, self.point), self.point.params)
        )
        return safe[0], own[0]

    def add_to(self, saturation: Saturation, columns: Sequence[Tensor], rounding: dict[Hashable, float]) -> None:
        """Count the results that clamped pairs change on one image; of several orders the worst counts.

        Args:
            saturation: Takes the counts.
            columns: What ``columns`` returned.
            rounding: What safe weights cost on these columns: plans that differ in the input's range share it.
        """
        groups = len(columns)
        real = float(self.operand.scale) * self.steps
        for group, values in enumerate(columns):
            part = slice(group * len(self.rows) // groups, (group + 1) * len(self.rows) // groups)
            codes, rows = self._codes(values[self.read]), self.rows[part, self.read]
            counted = [clamped_difference(codes, rows, order, real[part]) for order in self.unsafe]
            changed, error = max(counted, key=lambda pair: pair[1])
            saturation.results += (part.stop - part.start) * codes.shape[1]
            saturation.clamped += changed
            saturation.error += error
            if error:
                key = (group, self.point.grid)
                if key not in rounding:
                    safe, own = (_squared(e[part] @ values) for e in self.errors)
                    rounding[key] = max(safe - own, 0.0)
                saturation.rounding += rounding[key]

    def _codes(self, values: Tensor) -> npt.NDArray[np.int32]:
        zero = int(self.operand.zero_point) + 128
        codes = (values / float(self.operand.scale)).round_().add_(zero).clamp_(0, 255)
        return codes.to(torch.int32).numpy()

    def columns(self, image: Tensor, options: Sequence[Any]) -> list[Tensor]:
        """The operands of evenly spread results, per group (operands, positions), in the order of ``pairs``."""
        if self.kind is OpKind.LINEAR:
            rows = image.reshape(-1, image.shape[-1])
            return [rows[_spread(len(rows))].T]
        if self.kind is OpKind.CONV_TRANSPOSE:
            channels, groups = image.shape[1], int(options[3]) if len(options) > 3 else 1
            flat = image.reshape(groups, channels // groups, -1)
            return list(flat[:, :, _spread(flat.shape[-1])])
        kernel, channels = (int(self.weight.shape[2]), int(self.weight.shape[3])), self.weight.shape[1]
        values = conv_operands(image, kernel, options, _spread)
        groups = len(values) // channels
        by_tap = values.reshape(groups, channels, *values.shape[1:]).transpose(1, 2)
        return list(by_tap.reshape(groups, channels * self.taps, -1))


def _spread(count: int) -> Tensor:
    stride = -(-count // POSITIONS)
    # an odd stride does not fall into step with rows of even length
    return torch.arange(0, count, stride | 1 if stride > 1 else 1)


def _squared(values: Tensor) -> float:
    return float(values.double().square().sum())


def _may_clamp(weight: npt.NDArray[np.int32], order: Integers) -> npt.NDArray[np.bool_]:
    """Which pairs leave 16 bits in some result with the largest codes."""
    first, second = weight[:, order[:, 0]], weight[:, order[:, 1]]
    # products of opposite signs only come closer to zero
    most = [np.maximum(s * first, 0) + np.maximum(s * second, 0) for s in (1, -1)]
    return np.asarray((255 * np.maximum(*most) > HIGHEST).any(0))


def clamped_difference(
    codes: npt.NDArray[np.int32], weight: npt.NDArray[np.int32], order: Integers, steps: npt.NDArray[np.float64]
) -> tuple[int, float]:
    """What ``vpmaddubsw`` changes in the sums of a convolution.

    Args:
        codes: uint8 operands as (operands, positions), operands in the order of ``pairs``.
        weight: int8 weights as (results, operands) in the same order.
        order: One of ``pairs``.
        steps: What an integer of each result stands for, (results,).

    Returns:
        How many sums change, and the sum of the squared changes in real units.
    """
    change = clamped_change(codes, weight, order)
    if change is None:
        return 0, 0.0
    return int(np.count_nonzero(change)), float(((change * steps[:, None]) ** 2).sum())


def clamped_change(
    codes: npt.NDArray[np.int32], weight: npt.NDArray[np.int32], order: Integers
) -> npt.NDArray[np.int32] | None:
    """Clamped minus true sums, int32 (results, positions), None if no pair clamps; see ``clamped_difference``."""
    first, second = weight[:, order[:, 0]], weight[:, order[:, 1]]
    # One bound for all positions first: most pairs cannot clamp with the codes that an image really has, and need no
    # products.
    highest = codes.max(1, initial=0)
    one, other = highest[order[:, 0]], highest[order[:, 1]]
    # both products of one sign: products of opposite signs only come closer to zero
    most = [np.maximum(s * first, 0) * one + np.maximum(s * second, 0) * other for s in (1, -1)]
    may = np.maximum(*most) > HIGHEST
    change = None
    for pair in np.flatnonzero(may.any(0)):
        left, right = codes[order[pair, 0]], codes[order[pair, 1]]
        where = np.flatnonzero(left + right >= _LEAST_SUM)
        rows = np.flatnonzero(may[:, pair])
        sums = np.outer(first[rows, pair], left[where]) + np.outer(second[rows, pair], right[where])
        beyond = np.clip(sums, LOWEST, HIGHEST) - sums
        if beyond.any():
            change = np.zeros((len(weight), codes.shape[1]), np.int32) if change is None else change
            change[np.ix_(rows, where)] += beyond
    return change
