"""From a plan to the places where a running model must be quantized.

A plan names tensors of the traced graph. A live model runs the same operations, but views, splits and pools carry no
names there, and a SiLU is one call. This module works out, as plain data, which results and which operands of which
calls are quantized, so that the live forward computes what the simulated graph computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ...errors import PlanError
from ...graph.ops import QUANTIZATION_AGNOSTIC, OpKind
from ...graph.trace import Graph
from ...quantization.plan import Plan
from ...quantization.scheme import weight_point_name


@dataclass(frozen=True)
class FusedSiLU:
    """Points of a SiLU that runs as one call; None where there is none.

    Attributes:
        pre: Of its input.
        unit: Of the sigmoid's result.
        product: Of its result.
    """

    pre: str | None
    unit: str | None
    product: str | None


@dataclass(frozen=True)
class Wiring:
    """Where points apply in a live forward; keys are stable operation names.

    Attributes:
        results: Operations whose result is quantized, with the point.
        operands: Operands that are quantized for one reader only, with the point.
        gates: SiLU calls by the name of their sigmoid.
        weights: Weighted operations, with the point of their weight.
    """

    results: dict[str, str] = field(default_factory=dict)
    operands: dict[tuple[str, int], str] = field(default_factory=dict)
    gates: dict[str, FusedSiLU] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    def operations(self) -> frozenset[str]:
        """Every operation that a live forward must reach."""
        gated = frozenset(self.gates)
        return frozenset(self.results) | {name for name, _ in self.operands} | gated | frozenset(self.weights)


def wire(graph: Graph, plan: Plan, silus: Iterable[str]) -> Wiring:
    """Work out where the points of a plan apply.

    Args:
        graph: The canonical graph.
        plan: A plan that was derived from it.
        silus: Names of the sigmoids that the live model computes as part of one SiLU call.

    Returns:
        The places.

    Raises:
        PlanError: A SiLU's input is quantized for its sigmoid alone, or for its product alone.
    """
    # edges and not tensors: a plan may quantize what one reader sees and leave another in float
    covered = _covered(graph, plan)
    results, operands = _places(graph, covered)
    # before the gates, which take their points out of the results that are left
    _drop_exact_concats(graph, plan, results)
    # a SiLU in the tail runs after the raw outputs, where nothing is trained
    gates = {s: _gate(graph, s, results, operands) for s in silus if s in graph.ops and not graph.ops[s].tail}
    known = plan.by_name
    weights = {
        op.name: weight_point_name(op) for op in graph.ops.values() if op.weight and weight_point_name(op) in known
    }
    return Wiring(results, operands, {s: g for s, g in gates.items() if g != FusedSiLU(None, None, None)}, weights)


def _covered(graph: Graph, plan: Plan) -> set[tuple[str, str]]:
    """Edges of the graph that carry a quantized value."""
    edges: set[tuple[str, str]] = set()
    for point in plan.activations:
        for site in point.sites:
            edges.update((site.tensor, reader) for reader in site.consumers or graph.users[site.tensor])
    return edges


def _places(graph: Graph, covered: set[tuple[str, str]]) -> tuple[dict[str, str], dict[tuple[str, int], str]]:
    """Quantize a result once where every reader wants that, else each operand that does.

    Quantization commutes with operations that only move or select values, so it may stand before or behind them.
    """
    wanted: dict[str, list[tuple[str, int, bool]]] = {}
    for op in graph.ops.values():
        if op.kind in QUANTIZATION_AGNOSTIC and not op.tail:
            continue
        for index, source in enumerate(op.inputs):
            root, found, reader = source, (source, op.name) in covered, source
            # up through views and splits, which have no name in a live forward, to the operation that made the values
            while graph.ops[reader].kind in QUANTIZATION_AGNOSTIC and not graph.ops[reader].tail:
                before = graph.ops[reader].inputs[0]
                found = found or (before, reader) in covered
                root = reader = before
            wanted.setdefault(root, []).append((op.name, index, found))
    results: dict[str, str] = {}
    operands: dict[tuple[str, int], str] = {}
    for root, readers in wanted.items():
        # once for all: an operand's own fake quantization costs a pass over the tensor for every reader
        if all(found for _, _, found in readers):
            results[root] = root
        else:
            operands.update({(name, index): root for name, index, found in readers if found})
    return results, operands


def _drop_exact_concats(graph: Graph, plan: Plan, results: dict[str, str]) -> None:
    """A concat of values that are on its own grid already needs no quantization."""
    group = {p.name: p.tie or p.name for p in plan.activations}
    for op in graph.body():
        if op.kind is not OpKind.CONCAT or op.name not in results:
            continue
        roots = [graph.root(i) for i in op.inputs]
        if all(r in results and group.get(r) == group[op.name] for r in roots):
            del results[op.name]


def _gate(graph: Graph, sigmoid: str, results: dict[str, str], operands: dict[tuple[str, int], str]) -> FusedSiLU:
    """Take the points of one SiLU call out of the other places."""
    (source,) = graph.ops[sigmoid].inputs
    product = next(u for u in graph.users[sigmoid] if graph.ops[u].kind is OpKind.MUL)
    alone = set(graph.users[source]) == {sigmoid, product}
    # something else may read the pre-activation too; then the result is quantized where it is made
    pre = results.pop(source, None) if alone else None
    index = graph.ops[product].inputs.index(source)
    single = operands.pop((sigmoid, 0), None), operands.pop((product, index), None)
    if single[0] != single[1]:
        raise PlanError(f"the input of the SiLU at {sigmoid} is quantized for one of its two uses only")
    return FusedSiLU(pre or single[0], results.pop(sigmoid, None), results.pop(product, None))
