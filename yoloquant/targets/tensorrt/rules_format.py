"""Rules about the file itself: what every TensorRT parser from 8.5 on accepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx

from ...runtime.tensorrt.plugin_outputs import DOMAIN, OPERATOR
from .findings import Issue, Severity, rule
from .graph import DEQUANTIZE, FOLDABLE, QUANTIZE, OnnxGraph, attribute, label

_PARSER = "measured with the TensorRT-RTX 1.7.1 parser"
_JETPACK5 = "JetPack 5.1 ships TensorRT 8.5 (NVIDIA's JetPack release notes)"
_OPSETS = range(13, 18)
_PLUGINS = {(DOMAIN, OPERATOR)}


@rule("TRT001", "opset 13 to 17", why=f"Per-channel Q/DQ begins with opset 13; {_JETPACK5}, which reads up to 17.")
def check_opset(graph: OnnxGraph) -> Iterator[Issue]:
    """Opset 13 to 17."""
    for entry in graph.model.opset_import:
        # both names stand for the standard operators
        if entry.domain in ("", "ai.onnx") and entry.version not in _OPSETS:
            yield Issue("", f"the model has opset {entry.version}; allowed are 13 to 17", "export with opset 17")


@rule("TRT002", "static input and output shapes", why=f"A dynamic batch needs an optimization profile: {_PARSER}.")
def check_static(graph: OnnxGraph) -> Iterator[Issue]:
    """Every input and output has a fixed shape."""
    for value in (*graph.model.graph.input, *graph.model.graph.output):
        tensor = value.type.tensor_type
        # A side that is left open has a name, or nothing at all.
        dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
        if not tensor.HasField("shape") or not all(isinstance(d, int) and d > 0 for d in dims):
            shape = dims if tensor.HasField("shape") else "unknown"
            yield Issue(value.name, f"its shape is {shape}", "export with fixed batch, height and width")


@rule("TRT003", "standard operators only", why="TensorRT's ONNX parser needs a plugin for any other domain.")
def check_domain(graph: OnnxGraph) -> Iterator[Issue]:
    """No com.microsoft or custom domains, except for plugins that every TensorRT brings."""
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) not in _PLUGINS:
            yield Issue(
                label(node),
                f"{node.op_type} is of the domain '{node.domain}'",
                "use the standard operator; save no model that a runtime has optimized for itself",
            )


@rule("TRT004", "explicit Q/DQ instead of integer operators", why=f"QLinearConv is a parse error: {_PARSER}.")
def check_qoperators(graph: OnnxGraph) -> Iterator[Issue]:
    """No QLinear*, *Integer or DynamicQuantizeLinear."""
    for node in graph.nodes:
        kind = node.op_type
        if kind.startswith("QLinear") or kind.endswith("Integer") or kind == "DynamicQuantizeLinear":
            yield Issue(label(node), f"{kind} is not supported", "emit Q/DQ around a float operator")


@rule("TRT005", "unique node names", why=f"A repeated name is a parse error: {_PARSER}.")
def check_unique_names(graph: OnnxGraph) -> Iterator[Issue]:
    """No two nodes share a name."""
    for name, count in Counter(node.name for node in graph.nodes if node.name).items():
        if count > 1:
            yield Issue(name, f"{count} nodes have this name", "give every node a name of its own")


@rule(
    "TRT006",
    "named nodes",
    why="The engine's layers are named after the nodes; without a name nothing tells which layer runs in Int8.",
    severity=Severity.WARNING,
)
def check_named(graph: OnnxGraph) -> Iterator[Issue]:
    """Every node has a name."""
    for node in graph.nodes:
        if not node.name:
            yield Issue(label(node), "the node has no name", "name it, for instance after its module")


@rule(
    "TRT007",
    "folded constants at Q/DQ",
    why="The form that TensorRT 8.5 to 11 share has folded Q/DQ; TensorRT-RTX 1.7.1 folds Identity, Cast and Constant "
    "nodes itself, older parsers need not.",
)
def check_folded(graph: OnnxGraph) -> Iterator[Issue]:
    """No Identity, Cast or Constant node feeds a Q or DQ."""
    for node in graph.quantization_nodes:
        for tensor in node.input:
            source = graph.producer(tensor)
            if source is not None and source.op_type in FOLDABLE:
                yield Issue(
                    label(node),
                    f"its input '{tensor}' comes from the {source.op_type} node {label(source)}",
                    "fold constants (onnxslim) before inserting Q/DQ",
                )


@rule("TRT008", "constant scale and zero_point", why=f"A computed scale makes the compiler crash: {_PARSER}.")
def check_constant(graph: OnnxGraph) -> Iterator[Issue]:
    """Scale and zero_point are initializers."""
    for node in graph.quantization_nodes:
        for role, tensor in zip(("scale", "zero_point"), node.input[1:3], strict=False):
            # An absent zero_point is another rule's business (TRT011).
            if tensor and graph.constant(tensor) is None:
                yield Issue(label(node), f"its {role} '{tensor}' is computed", f"make the {role} an initializer")


@rule("TRT009", "fp32 scales", why=f"A half scale changes the type of what follows, a parse error: {_PARSER}.")
def check_scale_type(graph: OnnxGraph) -> Iterator[Issue]:
    """Scales are float32."""
    for node, scale in _scales(graph):
        if scale.dtype != np.float32:
            yield Issue(label(node), f"its scale is {scale.dtype}; allowed is float32", "store the scale as float32")


@rule("TRT010", "finite positive scales", why=f"0, negative and NaN are parse errors, infinity is accepted: {_PARSER}.")
def check_scale_value(graph: OnnxGraph) -> Iterator[Issue]:
    """Scales are finite and above 0."""
    for node, scale in _scales(graph):
        # so written that NaN is bad too: it compares as neither
        bad = scale[~(np.isfinite(scale) & (scale > 0))]
        if bad.size:
            yield Issue(
                label(node),
                f"{bad.size} of its {scale.size} scales are not finite and positive (first: {bad[0]})",
                "calibrate again; give a channel of zeros a small positive scale",
            )


@rule("TRT011", "an explicit zero_point", why=f"{_JETPACK5}: its parser takes Q/DQ with three inputs only.")
def check_zero_point_present(graph: OnnxGraph) -> Iterator[Issue]:
    """Q and DQ have three inputs."""
    for node in graph.quantization_nodes:
        if len(node.input) < 3 or not node.input[2]:
            yield Issue(label(node), "it has no zero_point (ONNX then means uint8)", "add an int8 zero_point of zeros")


@rule(
    "TRT012",
    "int8 zero_point",
    why=f"int16 is a parse error; uint8 is taken for int8, which clips at 127 instead of 255: {_PARSER}.",
)
def check_zero_point_type(graph: OnnxGraph) -> Iterator[Issue]:
    """Zero points are int8."""
    for node, zero_point in _zero_points(graph):
        # int32 occurs on biases only, which TRT020 reports
        if zero_point.data_type not in (onnx.TensorProto.INT8, onnx.TensorProto.INT32):
            kind = onnx.TensorProto.DataType.Name(zero_point.data_type).lower()
            yield Issue(label(node), f"its zero_point is {kind}; allowed is int8", "quantize to symmetric int8")


@rule("TRT013", "zero_point 0", why=f"TensorRT quantizes symmetrically; anything else is a parse error: {_PARSER}.")
def check_zero_point_value(graph: OnnxGraph) -> Iterator[Issue]:
    """Zero points of int8 are all 0."""
    for node, zero_point in _zero_points(graph):
        if zero_point.data_type == onnx.TensorProto.INT8 and onnx.numpy_helper.to_array(zero_point).any():
            yield Issue(label(node), "its zero_point is not 0", "use symmetric ranges: scale = amax / 127")


@rule(
    "TRT014",
    "scale and zero_point fit the tensor",
    why=f"A scale of shape [1] counts as per-channel and keeps the operator in float: {_PARSER}.",
)
def check_scale_shape(graph: OnnxGraph) -> Iterator[Issue]:
    """Scales are 0-d, or 1-d with one entry per channel; the zero_point has the same shape."""
    for node, scale in _scales(graph):
        zero_point = graph.constant(node.input[2]) if len(node.input) > 2 else None
        if zero_point is not None and tuple(zero_point.dims) != scale.shape:
            message = f"scale has shape {list(scale.shape)}, zero_point {list(zero_point.dims)}"
            yield Issue(label(node), message, "give both the same shape")
        shape = _data_shape(graph, node)
        # 1 is ONNX's default, which for a weight is the wrong axis: a missing one shows here
        axis = attribute(node, "axis", 1)
        fits = shape is None or (-len(shape) <= axis < len(shape) and scale.shape == (shape[axis],))
        if scale.ndim > 1 or (scale.ndim == 1 and not fits) or (scale.shape == (1,) and shape is None):
            yield Issue(
                label(node),
                f"a scale of shape {list(scale.shape)} on axis {axis} does not fit a tensor of shape "
                f"{'unknown' if shape is None else list(shape)}",
                "use a 0-d scale per tensor, or one scale per output channel of a weight",
            )


@rule("TRT015", "Q and DQ in pairs", why="A lone Q or DQ leaves an integer tensor that TensorRT cannot fuse.")
def check_pairs(graph: OnnxGraph) -> Iterator[Issue]:
    """Every Q feeds DQs alone, every DQ follows a Q or an int8 weight."""
    for node in graph.of_type(QUANTIZE):
        readers = graph.consumers(node.output[0])
        others = [label(reader) for reader in readers if reader.op_type != DEQUANTIZE]
        if node.output[0] in graph.outputs:
            others.append("a graph output")
        if others or not readers:
            used = f"is read by {', '.join(others)}" if others else "is not used"
            yield Issue(label(node), f"its integer result {used}", f"put a {DEQUANTIZE} with the same scale behind it")
    for node in graph.of_type(DEQUANTIZE):
        source = graph.producer(node.input[0])
        if graph.constant(node.input[0]) is None and (source is None or source.op_type != QUANTIZE):
            yield Issue(label(node), "what it dequantizes comes from no Q", f"put a {QUANTIZE} before it")


@rule("TRT016", "DQ has its Q's scale", why="Otherwise the pair rescales the tensor and cannot be fused.")
def check_pair_scale(graph: OnnxGraph) -> Iterator[Issue]:
    """Both nodes of a pair have equal scales and axes."""
    for node in graph.of_type(DEQUANTIZE):
        source = graph.producer(node.input[0])
        if source is None or source.op_type != QUANTIZE:
            continue
        mine, theirs = graph.grid_of(node), graph.grid_of(source)
        # Of a single scale the axis means nothing.
        if not (mine.same(theirs) and (mine.axis == theirs.axis or mine.scale.ndim == 0)):
            yield Issue(label(node), f"its scale or axis differs from {label(source)}'s", "let both share one")


@rule("TRT017", "Q reads fp32", why="The form that TensorRT 8.5 to 11 share is fp32 weights and fp32 activations.")
def check_float_source(graph: OnnxGraph) -> Iterator[Issue]:
    """Weights before Q are float32."""
    for node in graph.of_type(QUANTIZE):
        constant = graph.constant(node.input[0])
        if constant is not None and constant.data_type != onnx.TensorProto.FLOAT:
            kind = onnx.TensorProto.DataType.Name(constant.data_type).lower()
            yield Issue(label(node), f"the weight that it quantizes is {kind}; allowed is float32", "export in FP32")


@rule(
    "TRT018",
    "fp32 weight -> Q -> DQ",
    why=f"Weights stored as int8 before a DQ run in Int8 too ({_PARSER}), but the form that TensorRT 8.5 to 11 share "
    "keeps the fp32 weight.",
    severity=Severity.WARNING,
)
def check_prequantized(graph: OnnxGraph) -> Iterator[Issue]:
    """No DQ directly on an int8 weight."""
    for node in graph.of_type(DEQUANTIZE):
        constant = graph.constant(node.input[0])
        if constant is not None and constant.data_type == onnx.TensorProto.INT8:
            yield Issue(label(node), "its weight is stored as int8", f"store fp32 and put a {QUANTIZE} before the DQ")


def _scales(graph: OnnxGraph) -> Iterator[tuple[onnx.NodeProto, np.ndarray]]:
    for node in graph.quantization_nodes:
        scale = graph.value(node.input[1])
        if scale is not None:
            yield node, scale


def _zero_points(graph: OnnxGraph) -> Iterator[tuple[onnx.NodeProto, onnx.TensorProto]]:
    for node in graph.quantization_nodes:
        zero_point = graph.constant(node.input[2]) if len(node.input) > 2 else None
        if zero_point is not None:
            yield node, zero_point


def _data_shape(graph: OnnxGraph, node: onnx.NodeProto) -> tuple[int, ...] | None:
    """Shape of the weight behind a Q or DQ; None for activations."""
    source = graph.producer(node.input[0])
    if node.op_type == DEQUANTIZE and source is not None and source.op_type == QUANTIZE:
        return _data_shape(graph, source)
    constant = graph.constant(node.input[0])
    # Activations have none: of them the scale's own shape is all that can be judged.
    return None if constant is None else tuple(constant.dims)
