"""Schemes: the rules by which a runtime's quantization points are found in a graph.

A runtime's own rules stand beside its target; here are the building blocks and the two placements they are made of:
*complete* (every float tensor, for runtimes that must not compute in float) and *operands* (only the operands of
chosen operations, for runtimes that fuse the rest).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import PlanError
from ..graph.ops import INPUT, QUANTIZATION_AGNOSTIC, WEIGHTED, OpKind, OpNode
from . import keypoint_ranges
from .plan import Plan, Point, PointKind, Role, Site, ties
from .qparams import UNIT_QPARAMS, QuantSpec

if TYPE_CHECKING:
    from ..graph.trace import Graph

WEIGHT = QuantSpec(symmetric=True, narrow_range=True, axis=0)
AFFINE = QuantSpec()
SYMMETRIC = QuantSpec(symmetric=True)
KEYPOINTS = "raw keypoints: one range for coordinates, another for visibility"


@dataclass(frozen=True)
class Placement:
    """Where a scheme puts points, before representation is chosen.

    Attributes:
        sites: Quantized tensors with their consumers and the reason.
        ties: Pairs of tensors that must share a range.
        weighted: Weighted operations whose weight is quantized.
    """

    sites: tuple[tuple[Site, str], ...]
    ties: tuple[tuple[str, str], ...]
    weighted: tuple[str, ...]


@dataclass(frozen=True)
class Scheme:
    """Rules of one runtime, or of several at once.

    Attributes:
        name: Unique name.
        place: Finds the quantized tensors of a graph.
        activation: Representation of activations.
        inner: Representation of activations that no integer operation takes as an operand: what only its own SiLU or
            the decode reads. As ``activation`` if None.
        weight: Representation of convolution and linear weights.
        per_tensor_kinds: Weighted operations that get one scale for the whole weight.
        unit_fixed: Whether sigmoid and softmax results have LiteRT's prescribed range.
        sums_in_16_bits: Whether a runtime that it serves adds pairs of products in 16 bits on some processors, so that
            weights must be kept from overflowing there; see ``quantization.saturation``.
        description: One sentence for people.
    """

    name: str
    place: Callable[[Graph], Placement]
    activation: QuantSpec = AFFINE
    inner: QuantSpec | None = None
    weight: QuantSpec = WEIGHT
    per_tensor_kinds: frozenset[OpKind] = frozenset()
    unit_fixed: bool = True
    sums_in_16_bits: bool = False
    description: str = ""


def derive(graph: Graph, scheme: Scheme) -> Plan:
    """Derive a plan without ranges from a graph.

    Args:
        graph: The canonical graph.
        scheme: The rules.

    Returns:
        Points in execution order, each weight before the activation of its operation; fixed ranges are filled in.
    """
    placement = scheme.place(graph)
    # by the tensor that computed the values: what is only moved has its range
    sites: dict[str, list[tuple[Site, str]]] = {}
    for site, reason in placement.sites:
        sites.setdefault(graph.root(site.tensor), []).append((site, reason))
    pairs = [(graph.root(a), graph.root(b)) for a, b in placement.ties]
    # a prescribed range cannot be shared: its neighbours would have to take it too
    fixed = {n for n in sites if scheme.unit_fixed and graph.ops[n].kind is OpKind.UNIT}
    # a tensor that is not quantized has no range to share
    groups = ties((a, b) for a, b in pairs if a in sites and b in sites and not {a, b} & fixed)
    points: list[Point] = []
    seen: set[str] = set()
    mixed = keypoint_ranges.mixed_heads(graph)
    for op in graph.ops.values():
        if op.name in placement.weighted and weight_point_name(op) not in seen:  # a layer may run twice
            points.append(_weight_point(graph, op, scheme))
            seen.add(weight_point_name(op))
        if op.name in sites:
            point = Point(
                name=op.name,
                kind=PointKind.ACTIVATION,
                role=role(graph, op),
                spec=_activation(graph, op, scheme, op.name in fixed, op.name in mixed),
                sites=tuple(site for site, _ in sites[op.name]),
                tie=groups.get(op.name, ""),
                fixed=op.name in fixed,
                reason=KEYPOINTS if op.name in mixed else sites[op.name][0][1],
            )
            if point.fixed:
                point = replace(point, params=UNIT_QPARAMS, algorithm="fixed")
            points.append(point)
    if not points:
        raise PlanError(f"scheme '{scheme.name}' finds nothing to quantize in this model")
    return Plan(scheme.name, graph.info.imgsz, tuple(points), _notes(graph, placement))


def _activation(graph: Graph, op: OpNode, scheme: Scheme, fixed: bool, mixed: bool) -> QuantSpec:
    if fixed:
        # 0 to 1 has no negative half, and a symmetric grid would waste one.
        return replace(scheme.activation, symmetric=False)
    spec = scheme.inner if scheme.inner is not None and is_inner(graph, op) else scheme.activation
    return replace(spec, axis=keypoint_ranges.AXIS) if mixed else spec


def is_inner(graph: Graph, op: OpNode) -> bool:
    """Whether no integer operation takes a tensor as an operand: only its own SiLU or the decode tail reads it."""
    # What a head computes goes to the decode, which is float.
    if op in graph.heads:
        return True
    readers = [graph.ops[u] for u in graph.users[op.name]]
    gates = {r.name for r in readers if r.kind is OpKind.UNIT}
    return bool(gates) and all(r.name in gates or (r.kind is OpKind.MUL and gates & set(r.inputs)) for r in readers)


def adapt(graph: Graph, plan: Plan, scheme: Scheme) -> Plan:
    """The plan that a runtime's own rules give, with the ranges of another plan wherever that has them.

    This is how one set of learned ranges serves every runtime: placement is the runtime's, ranges are the plan's.

    Args:
        graph: The canonical graph.
        plan: A calibrated plan, for instance a portable or a learned one.
        scheme: The runtime's rules.

    Returns:
        A plan of ``scheme`` whose points keep the representation and range of ``plan``; points that ``plan`` lacks have
        no range yet (``quantization.calibrate``). Weights of the first convolution that could overflow get a new one.
    """
    if plan.scheme == scheme.name:
        return plan
    from .float_layers import leave_float
    from .observers import compute_weight_qparams  # brings torch, which listing a runtime's rules does without
    from .range_options import Algorithm

    derived = leave_float(graph, derive(graph, scheme), plan.float_layers)
    points = []
    for point in derived.points:
        known = plan.by_name.get(point.name)
        # the same weight, but with integers up to 64: its scale must grow
        if point.spec.half_range and known is not None and known.params is not None and not known.spec.half_range:
            weight = graph.module.get_parameter(f"{point.name.removesuffix(':weight')}.weight").detach().numpy()
            point = replace(point, params=compute_weight_qparams(weight, point.spec, Algorithm.MSE), algorithm="mse")
        elif known is not None and known.params is not None:
            point = replace(point, spec=known.spec, params=known.params, fixed=known.fixed, algorithm=known.algorithm)
        points.append(point)
    return replace(derived, points=tuple(points), half_layers=plan.half_layers, wide_layers=plan.wide_layers)


def _weight_point(graph: Graph, op: OpNode, scheme: Scheme) -> Point:
    # neighbouring pixels reach 255 together in any image, so there nothing but half range is safe in every order
    first = scheme.sums_in_16_bits and graph.root(op.inputs[0]) == INPUT
    axis = None if op.kind in scheme.per_tensor_kinds else (1 if op.kind is OpKind.CONV_TRANSPOSE else 0)
    return Point(
        name=weight_point_name(op),
        kind=PointKind.WEIGHT,
        role=Role.WEIGHT,
        spec=replace(scheme.weight, axis=axis if scheme.weight.axis is not None else None, half_range=first),
        reason="int8 weights of half range: bright pixels side by side" if first else "int8 weights",
    )


def weight_point_name(op: OpNode) -> str:
    """Name of the point of a weighted operation's weight: ``module.path:weight``."""
    return f"{op.weight.rsplit('.', 1)[0]}:weight"


def _notes(graph: Graph, placement: Placement) -> tuple[str, ...]:
    floats = [o.name for o in graph.body() if o.kind in WEIGHTED and o.name not in placement.weighted]
    return (f"weighted operations left in float: {', '.join(floats)}",) if floats else ()


def role(graph: Graph, op: OpNode) -> Role:
    """What a tensor is, from its place in the graph."""
    if op in graph.heads and not _feeds_silu(graph, op):
        return Role.SCORE if op.branch == "score" else Role.HEAD
    if op.kind in WEIGHTED or (op.kind in {OpKind.ADD, OpKind.OTHER} and _feeds_silu(graph, op)):
        return Role.PRE_ACTIVATION if _feeds_silu(graph, op) else Role.LINEAR
    simple = {
        OpKind.INPUT: Role.INPUT,
        OpKind.UNIT: Role.UNIT,
        OpKind.RELU: Role.ACTIVATION,
        OpKind.ADD: Role.ADD,
        OpKind.CONCAT: Role.CONCAT,
        OpKind.MATMUL: Role.MATMUL,
    }
    if op.kind is OpKind.MUL and any(graph.ops[i].kind is OpKind.UNIT for i in op.inputs):
        return Role.ACTIVATION
    return simple.get(op.kind, Role.OTHER)


def _feeds_silu(graph: Graph, op: OpNode) -> bool:
    """Whether a tensor is multiplied with its own sigmoid."""
    readers = [graph.ops[u] for u in graph.users[op.name]]
    gates = {r.name for r in readers if r.kind is OpKind.UNIT}
    return any(r.kind is OpKind.MUL and gates & set(r.inputs) for r in readers)


def concat_ties(graph: Graph) -> tuple[tuple[str, str], ...]:
    """Pairs that make every concat of the body requantization-free: each input with the result."""
    return tuple((source, op.name) for op in graph.body() if op.kind is OpKind.CONCAT for source in op.inputs)


def body_weighted(graph: Graph) -> tuple[str, ...]:
    """Every weighted operation before the decode tail."""
    return tuple(op.name for op in graph.body() if op.kind in WEIGHTED)


def complete(graph: Graph, *, repeat: bool = False) -> Placement:
    """Quantize every float tensor of the body, the raw head outputs included.

    Operations that only move values keep the range of what they move. With ``repeat`` their results are quantized again
    with that range, for runtimes that look for a pair directly at each operand.

    A convolution whose only reader is a ReLU gets no point of its own: every integer runtime clamps inside the
    convolution.
    """
    sites = []
    for op in graph.body():
        readers = [graph.ops[u] for u in graph.users[op.name]]
        if op.kind in QUANTIZATION_AGNOSTIC:
            # in a chain of moves only the last result is read by an operation that looks for a pair
            last = op.shape is not None and not all(r.kind in QUANTIZATION_AGNOSTIC and not r.tail for r in readers)
            if repeat and last:
                sites.append((Site(op.name), "moves values only: keeps their range"))
            continue
        # a pair between them would stop runtimes from fusing the two
        if op.kind in WEIGHTED and len(readers) == 1 and readers[0].kind is OpKind.RELU:
            continue
        sites.append((Site(op.name), _reason(graph, op)))
    return Placement(tuple(sites), concat_ties(graph), body_weighted(graph))


def _reason(graph: Graph, op: OpNode) -> str:
    if op in graph.heads:
        return "raw head output; the decode behind it stays float"
    reasons = {
        OpKind.INPUT: "network input",
        OpKind.UNIT: "result lies in 0..1: prescribed range",
        OpKind.CONCAT: "concat result, one range with its inputs",
    }
    return reasons.get(op.kind, f"{op.kind.value} result")


def operands(graph: Graph, wanted: Callable[[Graph, OpNode, str], str]) -> Placement:
    """Quantize only chosen operands.

    Args:
        graph: The canonical graph.
        wanted: Called with the graph, a reading operation and the name of what it reads; returns the reason to
            quantize that edge, or an empty string.

    Returns:
        One site per tensor, with exactly the readers whose edge is wanted.
    """
    sites: list[tuple[Site, str]] = []
    for op in graph.body():
        # the decode stays float: coordinates need more than 256 steps
        edges = {u: wanted(graph, graph.ops[u], op.name) for u in graph.users[op.name] if not graph.ops[u].tail}
        chosen = {u: why for u, why in edges.items() if why}
        if chosen:
            sites.append((Site(op.name, tuple(chosen)), next(iter(chosen.values()))))
    return Placement(tuple(sites), concat_ties(graph), body_weighted(graph))


PORTABLE = Scheme(
    name="portable",
    place=complete,
    activation=SYMMETRIC,
    inner=AFFINE,
    per_tensor_kinds=frozenset({OpKind.CONV_TRANSPOSE}),
    sums_in_16_bits=True,
    description="complete, and symmetric wherever an operation reads: one set of ranges serves every runtime exactly",
)
