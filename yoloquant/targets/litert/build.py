"""From a calibrated plan to a finished, checked flatbuffer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import fx

from ...errors import TargetError
from ...graph.head_levels import head_levels
from ...graph.trace import Graph
from ...quantization.insert import insert
from ...quantization.keypoint_ranges import mixed_heads
from ...quantization.plan import Plan, Point, PointKind
from ...quantization.scheme import weight_point_name
from .convert import convert, cut_body
from .flatbuffer import Flatbuffer, TensorInfo, kind_for_people
from .global_pools import write_as_means
from .mapping import Located, locate
from .qdq import carry, make_pair
from .sixteen_bits import widen_file
from .split_results import ResultPart, split_results
from .surgery import finish
from .transposed import transposed_weights
from .wide import coarse, is_wide

logger = logging.getLogger(__name__)

ScalePair = tuple[np.ndarray, np.ndarray]
Place = int | list[tuple[int, list[int]]]
"""Index of the tensor that realises a point; or of those that do it together, each with its channels."""


@dataclass(frozen=True)
class Variant:
    """Which of LiteRT's two file shapes is built.

    Attributes:
        raw: NHWC integer input and per-level integer outputs; otherwise NCHW float input and decoded float output.
        input_type: ``float32``, ``int8`` or ``uint8``.
    """

    raw: bool = False
    input_type: str = "float32"

    def __post_init__(self) -> None:
        if self.raw == (self.input_type == "float32"):
            raise TargetError(
                f"input_type='{self.input_type}' does not go with {'raw' if self.raw else 'decoded'} outputs; "
                f"allowed: {'int8, uint8' if self.raw else 'float32'}"
            )


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model.

    Attributes:
        content: The flatbuffer.
        tensors: The tensor, or tensors, that realise each point, by point name.
        operators: Number of operators of each kind.
        requantize: Operators that only move values from one scale to another.
    """

    content: bytes
    tensors: dict[str, Place]
    operators: dict[str, int] = field(default_factory=dict)
    requantize: int = 0


def build(
    graph: Graph, plan: Plan, variant: Variant, *, bias: Mapping[str, np.ndarray] | None = None
) -> ConvertedModel:
    """Convert a calibrated plan to a flatbuffer and prove that the file holds it.

    Args:
        graph: The canonical graph.
        plan: A calibrated plan that covers every float tensor of the body; with 16-bit activations as ``wide.widen``
            makes it.
        variant: Shape of the file.
        bias: Bias corrections, see ``quantization.insert``.

    Returns:
        The file's bytes and where its points are.

    Raises:
        PlanError: The plan is not calibrated or belongs to another model.
        TargetError: The conversion failed, or a body operator computes in float.
    """
    heads = head_levels(graph)
    wide = is_wide(plan)
    converted_plan = coarse(plan) if wide else plan
    module = insert(graph, converted_plan, make_pair, bias=dict(bias or {}))
    # the converter needs a pair at every float tensor, also where the plan lets a range pass through
    carry(module, graph, converted_plan)
    write_as_means(module, graph)
    body = cut_body(module, [graph.fx_name(name) for name in heads])
    mixed = {graph.fx_name(name): list(parts.values()) for name, parts in mixed_heads(graph).items()}
    parts = split_results(body, mixed)
    # decoded in float, raw heads as integers: see ``Variant``
    converted = convert(body, graph.info, raw=variant.raw)
    content = finish(converted, input_type=variant.input_type, transposed=transposed_weights(body))
    if wide:
        found = locate(body, graph, Flatbuffer(content), parts).biases
        content = widen_file(
            content, {index: value for path, index in found.items() if (value := _bias(body, path)) is not None}
        )
    # Everything is proven on the finished bytes: edits of ours could break a file as well as the converter.
    file = Flatbuffer(content)
    check_integer_body(file, raw=variant.raw)
    located = locate(body, graph, file, parts)
    check_biases(body, file, located)
    tensors = _tensors(graph, plan, located, parts)
    counts = Counter(kind_for_people(op.kind, computed=file.multiplies_computed(op)) for op in file.ops)
    # The one at the input is wanted: it quantizes the image.
    requantize = sum(op.kind == "QUANTIZE" and op.inputs[0] not in file.inputs for op in file.ops)
    logger.info("converted %d points into %d operators, %d requantize", len(tensors), len(file.ops), requantize)
    return ConvertedModel(content, tensors, dict(counts), requantize)


def _tensors(graph: Graph, plan: Plan, located: Located, parts: Mapping[str, ResultPart]) -> dict[str, Place]:
    """Where the points of a plan are."""
    found: dict[str, Place] = {}
    weights = {weight_point_name(op): op for op in graph.ops.values() if op.weight}
    for point in plan.points:
        whole = weights[point.name] if point.kind is PointKind.WEIGHT else graph.ops[point.name]
        own = {n: part for n, part in parts.items() if part.operation == graph.fx_name(whole.name)}
        if point.kind is PointKind.WEIGHT:
            split: Place = [(located.weights[part.weight], list(part.channels)) for part in own.values()]
            found[point.name] = split or located.weights[whole.weight]
        else:
            split = [(located.activations[name], list(part.channels)) for name, part in own.items()]
            found[point.name] = split or located.activations[point.name]
    return found


def build_float(graph: Graph) -> bytes:
    """Convert the float model, decoded as the drop-in is.

    Args:
        graph: The canonical graph.

    Returns:
        The flatbuffer.

    Raises:
        PlanError: The head cannot be cut into levels.
        TargetError: The conversion failed.
    """
    body = cut_body(graph.module, [graph.fx_name(name) for name in head_levels(graph)])
    return convert(body, graph.info, quantized=False)


def check_integer_body(file: Flatbuffer, *, raw: bool) -> None:
    """Raise TargetError, naming the operators, unless the body computes in integers only."""
    floats = [f for f in file.float_ops() if raw or not f.tail]
    if floats:
        named = ", ".join(f"{f.op.kind} ({f.name})" for f in floats[:8])
        raise TargetError(
            f"{len(floats)} operators of the body compute in float: {named}; the plan must quantize every float "
            "tensor (scheme 'litert' or 'portable')"
        )


def check_biases(body: fx.GraphModule, file: Flatbuffer, located: Located) -> None:
    """Raise TargetError unless every bias survived its conversion to integer steps of input scale times weight scale.

    A channel whose weights are almost zero gets such a small step that its bias does not fit into 32 bits.
    """
    for path, index in located.biases.items():
        bias = _bias(body, path)
        if bias is None:
            continue
        wanted, stored = bias.astype(np.float64), file.tensors[index]
        step = stored.scale.astype(np.float64)
        # one step of rounding, and float32's own rounding of large biases
        wrong = np.abs(file.values(index) * step - wanted) > step + np.abs(wanted) * 1e-6
        if wrong.any():
            channel = int(np.argmax(wrong))
            kind, least = stored.dtype.lower(), np.broadcast_to(step, wanted.shape)[channel]
            raise TargetError(
                f"the bias of {path}, channel {channel}, is {wanted[channel]:.4g}, which does not fit into {kind} "
                f"steps of {least:.3g}: the input or the weights of that channel are "
                "almost constant zero. Give them a larger scale (calibrate with more images), or prune the channel"
            )


def _bias(body: fx.GraphModule, weight: str) -> np.ndarray | None:
    """The float bias that stands beside a weight of a body."""
    bias = dict(body.named_parameters()).get(f"{weight.rsplit('.', 1)[0]}.bias")
    return None if bias is None else np.asarray(bias.detach().numpy())


def read_points(file: Flatbuffer, points: Sequence[Point], tensors: Mapping[str, Place]) -> dict[str, ScalePair]:
    """Scale and zero_point of every point as the file holds them.

    Args:
        file: The file.
        points: The plan's points.
        tensors: The tensor, or tensors, of each point.

    Returns:
        float32 scales and int32 zero points by point name, in the plan's shapes.

    Raises:
        TargetError: A point has no tensor, or its tensor has not the point's width.
    """
    found: dict[str, ScalePair] = {}
    for point in points:
        place = tensors.get(point.name)
        several = place if isinstance(place, list) else [] if place is None else [(place, [])]
        if not several or any(not 0 <= index < len(file.tensors) for index, _ in several):
            raise TargetError(f"the file does not say where point {point.name} is; export it again")
        read = [_read(file.tensors[index], point) for index, _ in several]
        found[point.name] = _joined([channels for _, channels in several], read) if isinstance(place, list) else read[0]
    return found


def _joined(channels: Sequence[Sequence[int]], parts: Sequence[ScalePair]) -> ScalePair:
    """Scales and zero points by channel from those of parts."""
    count = sum(len(rows) for rows in channels)
    scale, zero_point = np.zeros(count, np.float32), np.zeros(count, np.int32)
    for rows, (scales, zeros) in zip(channels, parts, strict=True):
        scale[list(rows)], zero_point[list(rows)] = scales, zeros
    return scale, zero_point


def _read(tensor: TensorInfo, point: Point) -> ScalePair:
    wanted = "INT16" if point.spec.bits > 8 else "INT8"
    if tensor.dtype != wanted or not len(tensor.scale):
        raise TargetError(
            f"point {point.name} is tensor {tensor.index} of the file, which is {tensor.dtype}, not {wanted.lower()}"
        )
    # The file holds every scale as a vector, the plan a single one without an axis.
    if point.spec.axis is None and len(tensor.scale) == 1:
        return tensor.scale.reshape(()), tensor.zero_point.reshape(())
    return tensor.scale, tensor.zero_point
