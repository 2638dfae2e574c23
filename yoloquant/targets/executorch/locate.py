"""Which value of a ``.pte`` realises which point of the plan.

Convolutions are recognised by their integers, additions by their order, and what both read and write are the points.
Scales play no part in it, so that comparing them afterwards means something. A tensor that nothing but a concat reads
is found through the tensors that it is joined with: XNNPACK refuses to load a concat of different ranges.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ...errors import TargetError
from ...graph.trace import WEIGHTED, Graph, OpKind, OpNode
from ...quantization.plan import Plan, Point
from ...quantization.scheme import weight_point_name
from .pte import Program, XnnNode

Place = tuple[int, int]
"""Subgraph and value."""
ScalePair = tuple[np.ndarray, np.ndarray]
_INTEGER = {"conv", "conv_transpose", "linear"}


def locate(graph: Graph, plan: Plan, program: Program) -> dict[str, Place]:
    """Find every point of a plan in the file made from it.

    Args:
        graph: The canonical graph.
        plan: The plan that was exported.
        program: The file.

    Raises:
        TargetError: A convolution or an addition does not compute in integers, or a point is nowhere.
    """
    places: dict[str, Place] = {}
    for op, (index, node) in _matched(graph, plan, program):
        if node.weight is not None:
            places[weight_point_name(op)] = (index, node.weight)
        for tensor, value in zip(op.inputs, node.inputs, strict=False):
            places.setdefault(graph.root(tensor), (index, value))
        places.setdefault(_result(graph, op).name, (index, node.output))
    for group in plan.groups().values():
        known = [places[p.name] for p in group if p.name in places]
        for point in group if known else ():
            places.setdefault(point.name, known[0])
    lost = [p.name for p in plan.points if p.name not in places]
    if lost:
        raise TargetError(
            f"{len(lost)} of {len(plan.points)} points are not integers in the file, first {lost[0]}; ExecuTorch's "
            "partitioner left that operation in float: this release of executorch is not known to work"
        )
    return {p.name: places[p.name] for p in plan.points}


def _matched(graph: Graph, plan: Plan, program: Program) -> Iterator[tuple[OpNode, tuple[int, XnnNode]]]:
    weighted: dict[str, deque[tuple[int, XnnNode]]] = defaultdict(deque)
    sums: list[tuple[int, XnnNode]] = []
    for index, subgraph in enumerate(program.subgraphs):
        for node in subgraph.nodes:
            value = subgraph.values.get(node.output)
            # It computes in float, where no point can lie.
            if value is None or value.scale is None:
                continue
            if node.kind in _INTEGER and node.weight is not None:
                # a queue for each: two layers may have the same integers, and execution order tells them apart
                weighted[_digest(subgraph.values[node.weight].data or b"")].append((index, node))
            # The canonical graph counts subtractions among additions.
            elif node.kind in {"add", "sub"}:
                sums.append((index, node))
    names = plan.by_name
    for op in graph.body():
        if op.kind in WEIGHTED and weight_point_name(op) in names:
            same = weighted[_digest(integers(graph, op, names[weight_point_name(op)]))]
            if not same:
                raise TargetError(f"{op.name} does not compute in integers in the file; leave it in float by the plan")
            yield op, same.popleft()
    added = [op for op in graph.body() if op.kind is OpKind.ADD and _result(graph, op).name in names]
    # by order alone they could not be told apart if one were missing
    if len(added) != len(sums):
        raise TargetError(f"{len(sums)} of {len(added)} additions compute in integers in the file")
    yield from zip(added, sums, strict=True)


def _result(graph: Graph, op: OpNode) -> OpNode:
    """The operation whose result an integer kernel writes: a ReLU is part of the convolution in front of it."""
    readers = [graph.ops[u] for u in graph.users[op.name]]
    return readers[0] if len(readers) == 1 and readers[0].kind is OpKind.RELU else op


def integers(graph: Graph, op: OpNode, point: Point) -> bytes:
    """The integers of a weight."""
    assert point.params is not None
    weight = graph.module.get_parameter(op.weight).detach().numpy()
    shape = [-1 if axis == point.spec.axis and point.params.scale.ndim else 1 for axis in range(weight.ndim)]
    steps = np.round(weight / point.params.scale.reshape(shape)) + point.params.zero_point.reshape(shape)
    return np.clip(steps, point.spec.qmin, point.spec.qmax).astype(np.int8).tobytes()


def _digest(weights: bytes) -> str:
    """Of the integers without their order, which layouts change."""
    return hashlib.sha256(np.sort(np.frombuffer(weights, np.int8)).tobytes()).hexdigest()


def read_points(program: Program, points: Iterable[Point], places: Mapping[str, Place]) -> dict[str, ScalePair]:
    """Scale and zero_point of every point as the file holds them.

    Args:
        program: The file.
        points: The plan's points.
        places: Where each is.

    Raises:
        TargetError: A point has no int8 value there.
    """
    found: dict[str, ScalePair] = {}
    for point in points:
        index, value = places.get(point.name, (-1, -1))
        stored = program.subgraphs[index].values.get(value) if 0 <= index < len(program.subgraphs) else None
        if stored is None or stored.scale is None or stored.zero_point is None:
            raise TargetError(f"point {point.name} is no int8 value of the file; export it again")
        found[point.name] = stored.scale, stored.zero_point
    return found
