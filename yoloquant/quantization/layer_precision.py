"""Give single layers of an 8-bit plan another precision: float, float16, or activations of 16 bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import PlanError
from ..graph.trace import QUANTIZATION_AGNOSTIC, Graph
from ..options.kinds import LAYER_PRECISIONS
from .float_layers import layer_of, layers_of, leave_float, matched
from .plan import Plan, Site
from .wide import widened

FLOAT, FP16, W8A16 = LAYER_PRECISIONS


def give_precision(
    graph: Graph, plan: Plan, float_layers: Sequence[str], precision: Iterable[tuple[str, str]] = ()
) -> Plan:
    """A copy of a plan in which some layers have a precision of their own.

    Layers in float or float16 lose their points, see ``leave_float``. Those with activations of 16 bits are noted
    alone; ``widen_layers`` widens their ranges once these are known.

    Args:
        graph: The canonical graph.
        plan: A plan derived from it.
        float_layers: Patterns of layers in float.
        precision: Pairs of a pattern and a precision.

    Raises:
        PlanError: A pattern matches nothing, a layer gets two precisions, or nothing would be quantized.
    """
    chosen = dict.fromkeys(matched(graph, float_layers), FLOAT)
    for pattern, wanted in precision:
        for layer in matched(graph, (pattern,), option="precision"):
            if chosen.setdefault(layer, wanted) != wanted:
                raise PlanError(f"layer {layer} is given two precisions, {chosen[layer]} and {wanted}; give it one")
    plan = leave_float(graph, plan, [layer for layer, wanted in chosen.items() if wanted != W8A16])
    halves = {*plan.half_layers, *(layer for layer, wanted in chosen.items() if wanted == FP16)}
    wide = {*plan.wide_layers, *(layer for layer, wanted in chosen.items() if wanted == W8A16)} - set(plan.float_layers)
    if not halves and not wide:
        return plan
    order = layers_of(graph)
    return replace(
        plan,
        half_layers=tuple(layer for layer in order if layer in halves),
        wide_layers=tuple(layer for layer in order if layer in wide),
    )


def widen_layers(graph: Graph, plan: Plan) -> Plan:
    """A copy of a calibrated plan in which ``w8a16`` layers have activations of 16 bits.

    These are what such layers pass to each other, what they alone read, and raw heads that they compute. What other
    layers read too keeps its 8 bits, and so does everything that shares a range with it.

    Args:
        graph: The canonical graph.
        plan: A plan whose ranges are known; what is wide in it already stays.
    """
    if not plan.wide_layers:
        return plan
    layers = set(plan.wide_layers)
    # moves belong to whatever they move
    inside = {op.name for op in graph.body() if layer_of(op.name) in layers and op.kind not in QUANTIZATION_AGNOSTIC}
    fitting = {p.name for p in plan.activations if all(_between(graph, site, inside) for site in p.sites)}
    held = {p.tie for p in plan.activations if p.tie and p.name not in fitting}
    points = tuple(
        widened(p) if p.name in fitting and p.tie not in held and p.spec.bits == 8 else p for p in plan.points
    )
    return replace(plan, points=points)


def _between(graph: Graph, site: Site, inside: set[str]) -> bool:
    """Whether only operations of some layers read a tensor; of what nothing but the decode reads, make it."""
    readers = set(_computing(graph, site.consumers or graph.users[site.tensor]))
    return readers <= inside if readers else graph.root(site.tensor) in inside


def _computing(graph: Graph, readers: Iterable[str]) -> Iterable[str]:
    """Those of some readers, and of what is behind their moves, that compute in front of the decode."""
    for name in readers:
        op = graph.ops[name]
        if op.tail:
            continue
        if op.kind in QUANTIZATION_AGNOSTIC:
            yield from _computing(graph, graph.users[name])
        else:
            yield name
