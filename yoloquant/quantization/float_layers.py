"""Leave layers of a plan in float: those that a runtime can compute between its integer ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from ..errors import PlanError
from ..graph.trace import QUANTIZATION_AGNOSTIC, Graph
from ..runtime.core.nearest import closest
from .plan import Plan, Point, PointKind, Site

# Ultralytics' Conv is three modules, which runtimes run as one; half of it in float would add conversions and nothing
# else.
_INSIDE = (".conv", ".act", ".bn", ".default_act")
_SHOWN = 4


def layer_of(name: str) -> str:
    """The layer that a point or an operation belongs to: a block's convolution and activation are one."""
    path = name.split(":", 1)[0]
    for suffix in _INSIDE:
        path = path.removesuffix(suffix)
    return path


def layers_of(graph: Graph) -> tuple[str, ...]:
    """Names of all layers in front of the decode, in execution order."""
    return tuple(dict.fromkeys(layer for op in graph.body() if (layer := layer_of(op.name))))


def matched(graph: Graph, patterns: Iterable[str], *, option: str = "float_layers") -> tuple[str, ...]:
    """Layers that patterns name, in execution order.

    Args:
        graph: The canonical graph.
        patterns: Names as ``yoloquant analyze kind=quant`` prints them; ``*`` stands for anything.
        option: Where they were given, for messages.

    Raises:
        PlanError: A pattern matches nothing.
    """
    known, patterns = layers_of(graph), tuple(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in known):
            near = closest(pattern, known)
            hint = f"; did you mean '{near}'? They are" if near else "; they are"
            listed = ", ".join(known[:_SHOWN])
            raise PlanError(
                f"{option}='{pattern}' matches none of the model's {len(known)} layers{hint} {listed} ... {known[-1]}"
            )
    return tuple(layer for layer in known if any(fnmatchcase(layer, p) for p in patterns))


def leave_float(graph: Graph, plan: Plan, patterns: Sequence[str]) -> Plan:
    """A copy of a plan without the points of some layers.

    The layers' weights stay float, and so do their operands where nothing else reads those as integers; a result that
    an integer operation reads on keeps its point.

    Args:
        graph: The canonical graph.
        plan: A plan derived from it, calibrated or not.
        patterns: Which layers, see ``matched``; those that the plan leaves in float already stay there.

    Raises:
        PlanError: A pattern matches nothing, or nothing would be quantized.
    """
    if not patterns:
        return plan
    chosen = matched(graph, patterns)
    # asking again, for instance of a saved plan, adds layers and takes none back
    layers = set(chosen) | set(plan.float_layers)
    # moves belong to whatever they move
    floats = {op.name for op in graph.body() if layer_of(op.name) in layers and op.kind not in QUANTIZATION_AGNOSTIC}
    points = tuple(kept for point in plan.points if (kept := _without(graph, point, layers, floats)) is not None)
    if not any(p.kind is PointKind.WEIGHT for p in points):
        raise PlanError(
            f"float_layers={','.join(patterns)} leaves nothing of plan '{plan.scheme}' to quantize; name fewer layers, "
            "or export precision fp32"
        )
    ordered = tuple(layer for layer in layers_of(graph) if layer in layers)
    wide = tuple(layer for layer in plan.wide_layers if layer not in layers)
    return replace(plan, points=points, float_layers=ordered, wide_layers=wide)


def _without(graph: Graph, point: Point, layers: set[str], floats: set[str]) -> Point | None:
    if point.kind is PointKind.WEIGHT:
        return None if layer_of(point.name) in layers else point
    sites = tuple(kept for site in point.sites if (kept := _left(graph, site, floats)) is not None)
    return replace(point, sites=sites) if sites else None


def _left(graph: Graph, site: Site, floats: set[str]) -> Site | None:
    """A site with the readers that want integers; None if there are none."""
    readers = site.consumers or graph.users[site.tensor]
    left = tuple(r for r in readers if _wants_integers(graph, r, floats))
    # float on both sides: a pair there would only round what the decode reads
    inner = site.tensor in floats and all(graph.ops[r].tail for r in left)
    if not left or inner:
        return None
    return site if len(left) == len(readers) else Site(site.tensor, left)


def _wants_integers(graph: Graph, reader: str, floats: set[str]) -> bool:
    """Whether a reader computes in integers; one that only moves values does if one behind it does."""
    op = graph.ops[reader]
    if op.kind in QUANTIZATION_AGNOSTIC and not op.tail:
        return any(_wants_integers(graph, r, floats) for r in graph.users[reader])
    return reader not in floats
