"""The model for a Jetson's DLA: without Q/DQ pairs, their scales in a calibration cache (see ``runtime.tensorrt.dla``).

Implicit quantization needs a scale for every tensor of a region, not only where an operation reads, or the region runs
in FP16. So the plan here is a complete one, symmetric throughout, and takes each range from whichever of the artifact's
plans has it. TensorRT quantizes the weights itself, per tensor or channel as the DLA wants it.

That costs accuracy which Q/DQ on the GPU does not: simulated on yolo11n (640 px, 128 COCO val2017 images, activations
rounded as the cache says, weights in float), mAP50-95 falls by 1.67 points [0.45, 3.04] and fidelity to 0.909
[0.888, 0.928], where the Q/DQ model has 0.949 [0.938, 0.962]. Nothing of it was run on a DLA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from ...errors import PlanError, TargetError
from ...quantization.plan import Plan, Point
from ...quantization.qparams import QParams, from_range
from ...quantization.scheme import SYMMETRIC, Placement, Scheme, complete, derive
from .graph import DEQUANTIZE, QUANTIZE, OnnxGraph
from .scheme import SCHEME as TENSORRT

if TYPE_CHECKING:
    from ...graph.trace import Graph as Traced
    from ...quantization.artifact import Artifact

_KEEPS_RANGE = frozenset(
    {"Slice", "Split", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "MaxPool", "Resize"}
)
_CLAMPS = frozenset({"Relu", "Clip"})


def _place(graph: Traced) -> Placement:
    placed = complete(graph, repeat=True)
    return Placement(placed.sites, placed.ties, ())


SCHEME = Scheme(
    name="dla",
    place=_place,
    activation=SYMMETRIC,
    unit_fixed=False,
    description="a symmetric range for every tensor, as implicit quantization on a DLA needs it",
)


def dla_plan(artifact: Artifact) -> Plan:
    """A range for every tensor of the body, taken from the artifact's plans.

    The TensorRT and the portable plan come first, as theirs are symmetric; an affine range becomes the smallest
    symmetric one that holds it. Tensors that share a range take it from one plan.

    Raises:
        PlanError: No plan has a range that is needed.
    """
    derived = derive(artifact.graph, SCHEME)
    order = sorted(artifact.plans.values(), key=lambda p: (p.scheme != "tensorrt", p.scheme != "portable", p.scheme))
    params: dict[str, QParams] = {}
    missing: list[str] = []
    for members in derived.groups().values():
        found = next((f for plan in order if (f := _ranges(plan, members)) is not None), None)
        if found is None:
            missing += [m.name for m in members]
        else:
            params.update(found)
    if missing:
        raise PlanError(
            f"no plan of this artifact has a range for {len(missing)} tensors that a DLA needs, first {missing[0]}; "
            "quantize with scheme=auto or scheme=portable"
        )
    return derived.with_params(params, "taken over")


def _ranges(plan: Plan, members: tuple[Point, ...]) -> dict[str, QParams] | None:
    """Symmetric parameters of some points that share a range; None unless the plan has all of them."""
    points = [plan.by_name.get(m.name) for m in members]
    # A cache holds scales of int8 alone.
    known = [p for p in points if p is not None and p.params is not None and p.spec.bits == 8]
    if len(known) != len(members):
        return None
    shared = [_symmetric(p) for p in known]
    # the widest: a shared range must hold the values of all
    scale = np.float32(max(float(q.scale) for q in shared))
    one = QParams(scale, np.int32(0))  # type: ignore[arg-type]
    return {m.name: one for m in members}


def _symmetric(point: Point) -> QParams:
    assert point.params is not None
    if not point.params.zero_point.any():
        return point.params
    return from_range(*point.params.range(point.spec), SYMMETRIC)


def emit_plain(artifact: Artifact, metadata: dict[str, str]) -> tuple[onnx.ModelProto, dict[str, float]]:
    """The plain model, and the scale of each of its tensors that has one.

    Raises:
        PlanError: No plan of the artifact has a range that is needed.
        TargetError: torch's exporter failed.
    """
    from ..onnx.emission import Emission
    from ..onnx.emit import emit

    bias = artifact.bias_for(TENSORRT)
    model = emit(artifact.graph, dla_plan(artifact), Emission(), metadata=metadata, bias=bias)
    return strip(model)


def strip(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, float]]:
    """Take the Q/DQ pairs of activations out of a model.

    Args:
        model: A model with per-tensor pairs; weights must have none.

    Returns:
        A checked model without pairs, and the scale of every tensor that had one or that only moves or clamps the
        values of one that had.

    Raises:
        TargetError: A pair is not one of those.
    """
    graph = OnnxGraph(model)
    source: dict[str, str] = {}  # dequantized tensor -> the tensor it was made from
    scales: dict[str, float] = {}
    kept: list[onnx.NodeProto] = []
    for original in graph.nodes:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for position, name in enumerate(node.input):
            node.input[position] = source.get(name, name)
        if node.op_type == QUANTIZE:
            scales.setdefault(node.input[0], _scale(graph, original))
            source[node.output[0]] = node.input[0]
        elif node.op_type == DEQUANTIZE:
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    _spread(kept, scales)
    return _rebuilt(model, kept), scales


def _scale(graph: OnnxGraph, node: onnx.NodeProto) -> float:
    grid = graph.grid_of(node)
    zero = graph.value(node.input[2]) if len(node.input) > 2 else np.zeros(1)
    if grid.scale.size != 1 or graph.is_weight(node.input[0]) or zero is None or zero.any():
        raise TargetError(f"{node.name} is no symmetric pair on an activation; a calibration cache cannot hold it")
    return float(grid.scale)


def _spread(nodes: list[onnx.NodeProto], scales: dict[str, float]) -> None:
    """Carry scales over operators that keep them, in both directions where that is exact."""
    for node in nodes:
        if node.op_type in _KEEPS_RANGE and node.input[0] in scales:
            for name in node.output:
                scales.setdefault(name, scales[node.input[0]])
    # backwards through clamps only: what a ReLU cut off needs no range of its own
    for node in reversed(nodes):
        if node.op_type in _CLAMPS and node.output[0] in scales:
            scales.setdefault(node.input[0], scales[node.output[0]])


def _rebuilt(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    # scales and zero_points of the pairs that went would otherwise stay in the file
    used = {i for node in nodes for i in node.input}
    kept = [i for i in model.graph.initializer if i.name in used]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    del result.graph.value_info[:]
    try:
        onnx.checker.check_model(result, full_check=True)
    except Exception as exc:  # the checker raises classes of its own
        raise TargetError(f"the model without Q/DQ is not valid: {exc}") from exc
    return result
