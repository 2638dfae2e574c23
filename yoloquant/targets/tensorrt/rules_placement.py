"""Rules about where the Q/DQ pairs are: what makes TensorRT run an operator in Int8, and fuse it."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from .findings import Issue, Severity, rule
from .graph import DEQUANTIZE, QUANTIZE, WEIGHTED, OnnxGraph, TensorGrid, attribute, label

_MEASURED = "measured with TensorRT-RTX 1.7.1"
_NVIDIA = "NVIDIA, TensorRT developer guide, Q/DQ placement recommendations"
ACTIVATIONS = frozenset(
    {
        "Sigmoid",
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Clip",
        "HardSigmoid",
        "HardSwish",
        "Tanh",
        "Elu",
        "Softplus",
        "Mish",
        "Gelu",
    }
)
# Operators that an engine runs in Int8, or moves Int8 through.
_USERS = WEIGHTED | {"Add", "Concat", "MaxPool", "Resize", "AveragePool", "GlobalAveragePool"}


@rule("TRT020", "float biases", why=f"A bias behind an int32 DQ is a parse error: {_MEASURED}.")
def check_bias(graph: OnnxGraph) -> Iterator[Issue]:
    """No Q/DQ on biases."""
    for node in graph.of_type("Conv", "ConvTranspose", "Gemm"):
        source = graph.producer(node.input[2]) if len(node.input) > 2 else None
        if source is not None and source.op_type == DEQUANTIZE:
            yield Issue(label(node), f"its bias comes from {label(source)}", "leave the bias an fp32 initializer")


@rule(
    "TRT021",
    "weights quantized per output channel or per tensor",
    why=f"Any other axis is accepted, but the operator silently runs in float: {_MEASURED}.",
)
def check_weight_axis(graph: OnnxGraph) -> Iterator[Issue]:
    """The weight's axis is that of its output channels."""
    for node in graph.of_type(*WEIGHTED):
        source = graph.producer(graph.operands(node)[1])
        if source is None or source.op_type != DEQUANTIZE or not graph.is_weight(source.input[0]):
            continue
        grid = graph.grid_of(source)
        rank = _weight_rank(graph, source)
        # A single scale is right whatever the axis; a computed weight is none of this rule's.
        if grid.scale.ndim == 0 or rank is None:
            continue
        output_axis = _output_axis(graph, node, rank)
        if grid.axis % rank != output_axis:
            yield Issue(
                label(node),
                f"its weight is quantized on axis {grid.axis}; allowed is axis {output_axis}, or one scale per tensor",
                f"quantize the weight on axis {output_axis}",
            )


def _output_axis(graph: OnnxGraph, node: onnx.NodeProto, rank: int) -> int:
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    if node.op_type == "MatMul":
        weight_is_first = graph.operands(node)[1] == node.input[0]
        # A weight in front is (..., M, K), one behind (..., K, N): outputs are M and N.
        return rank - (2 if weight_is_first else 1)
    return 0


def _weight_rank(graph: OnnxGraph, dequantize: onnx.NodeProto) -> int | None:
    constant = graph.constant(graph.root(dequantize.output[0]))
    return None if constant is None else len(constant.dims)


@rule(
    "TRT022",
    "float transposed convolutions",
    why=f"Every quantized ConvTranspose tried ran in float, so that its Q/DQ only cost time and accuracy: {_MEASURED}.",
    severity=Severity.WARNING,
)
def check_conv_transpose(graph: OnnxGraph) -> Iterator[Issue]:
    """No Q/DQ around ConvTranspose."""
    for node in graph.of_type("ConvTranspose"):
        grid = graph.grid(node.input[1])
        per_channel_elsewhere = grid is not None and grid.scale.ndim == 1 and grid.axis != 0  # TRT021's business
        if graph.is_quantized(node) and not per_channel_elsewhere:
            yield Issue(label(node), "it is quantized, but will probably run in float", "leave it in float")


@rule(
    "TRT023",
    "activations quantized per tensor",
    why=f"A per-channel activation is accepted, but the operator silently runs in float: {_MEASURED}.",
)
def check_activation_granularity(graph: OnnxGraph) -> Iterator[Issue]:
    """Q on activations has a single scale."""
    for node in graph.of_type(QUANTIZE):
        grid = graph.grid_of(node)
        if grid.scale.size > 1 and not graph.is_weight(node.input[0]):
            yield Issue(label(node), f"an activation has {grid.scale.size} scales; allowed is 1", "use one 0-d scale")


@rule(
    "TRT024",
    "both operands quantized, or none",
    why=f"With only the weight or only the activation quantized the operator silently runs in float: {_MEASURED}.",
)
def check_half_quantized(graph: OnnxGraph) -> Iterator[Issue]:
    """Weighted operators have Q/DQ on both operands or on none.

    A MatMul of two activations (attention) may stay in float with one of them quantized for the sake of another reader,
    so it counts only where it is planned.
    """
    for node in graph.of_type(*WEIGHTED):
        activation, weight = graph.operands(node)
        if not graph.is_weight(weight) and node.name not in (graph.planned or ()):
            continue
        on_grid = [graph.grid(tensor) is not None for tensor in (activation, weight)]
        if any(on_grid) and not all(on_grid):
            names = ("activation", "weight") if graph.is_weight(weight) else ("first input", "second input")
            have, lack = names if on_grid[0] else names[::-1]
            tensor = weight if on_grid[0] else activation
            source = graph.producer(tensor)
            origin = f" (it comes from {source.op_type} {label(source)})" if source is not None else ""
            yield Issue(
                label(node),
                f"its {have} is quantized, its {lack} '{tensor}' is not{origin}",
                f"put {QUANTIZE}/{DEQUANTIZE} directly before its {lack}, or leave the whole operator in float",
            )


@rule(
    "TRT025",
    "no Q/DQ between a weighted operator and its activation",
    why=f"It breaks the fusion of both and adds a rounding ({_NVIDIA}; the engine then rounds twice: {_MEASURED}).",
)
def check_activation_fusion(graph: OnnxGraph) -> Iterator[Issue]:
    """Conv -> activation, with Q/DQ only behind the activation."""
    for node in graph.of_type(QUANTIZE):
        source = graph.producer(node.input[0])
        if source is None or source.op_type not in WEIGHTED:
            continue
        for reader in _dequantized_readers(graph, node):
            if _is_activation(reader):
                yield Issue(
                    label(node),
                    f"it stands between {label(source)} and its activation {label(reader)}",
                    "quantize behind the activation instead",
                )
                # One finding for a pair, however many readers it has.
                break


@rule(
    "TRT026",
    "a residual Add has a quantized identity input",
    why=f"Int8 then flows past the block ({_NVIDIA}); the fused Add reads a float identity in float: {_MEASURED}.",
    severity=Severity.WARNING,
)
def check_residual_identity(graph: OnnxGraph) -> Iterator[Issue]:
    """The skip connection of a quantized block is quantized."""
    for node, identity, _ in _residuals(graph):
        if graph.grid(identity) is None:
            yield Issue(
                label(node),
                f"its identity input '{identity}' is in float",
                f"put {QUANTIZE}/{DEQUANTIZE} there, with the scale of the block's own input",
            )


@rule(
    "TRT027",
    "a residual Add has a float branch input",
    why=f"The last convolution of the branch cannot be fused with the Add across a Q/DQ ({_NVIDIA}).",
    severity=Severity.WARNING,
)
def check_residual_branch(graph: OnnxGraph) -> Iterator[Issue]:
    """The branch of a quantized block reaches the Add unquantized."""
    for node, _, branch in _residuals(graph):
        if graph.grid(branch) is not None:
            yield Issue(label(node), f"its branch input '{branch}' is quantized", "remove that Q/DQ pair")


def _residuals(graph: OnnxGraph) -> Iterator[tuple[onnx.NodeProto, str, str]]:
    """Adds that close a block with quantized operators: node, identity input, branch input."""
    for node in graph.of_type("Add"):
        # a constant is added: no block ends here
        if any(graph.is_weight(tensor) for tensor in node.input):
            continue
        for identity, branch in (tuple(node.input), tuple(node.input)[::-1]):
            # the identity is what the branch was computed from, whichever of the two inputs it is
            nodes, met = graph.ancestors(branch, stop=graph.root(identity))
            if met and any(n.op_type in WEIGHTED and graph.is_quantized(n) for n in nodes):
                yield node, identity, branch
                break


@rule(
    "TRT028",
    "all Concat inputs and its output share one scale",
    why=f"Otherwise inputs are rescaled, and an operator right behind the Concat silently runs in float: {_MEASURED}.",
)
def check_concat_scale(graph: OnnxGraph) -> Iterator[Issue]:
    """One scale around a Concat."""
    for node in graph.of_type("Concat"):
        yield from _one_scale(graph, node, "share one range among what is concatenated and the result")


@rule(
    "TRT029",
    "Concat and MaxPool quantized on both sides",
    why="Where only some of the tensors around them are quantized, the others are moved in float or quantized twice.",
    severity=Severity.WARNING,
)
def check_partial(graph: OnnxGraph) -> Iterator[Issue]:
    """No float input where another input or the output is quantized."""
    for node in graph.of_type("Concat", "MaxPool"):
        inputs = _activation_inputs(graph, node)
        missing = [tensor for tensor in inputs if graph.grid(tensor) is None]
        quantized = len(missing) < len(inputs) or any(graph.quantizers(node.output[0]))
        if quantized and missing:
            yield Issue(
                label(node),
                f"{len(missing)} of its {len(inputs)} inputs are in float: {', '.join(missing)}",
                f"put {QUANTIZE}/{DEQUANTIZE} there, with the same scale as around the rest",
            )


@rule("TRT030", "MaxPool's input and output share one scale", why="Otherwise the engine rescales what it only selects.")
def check_pool_scale(graph: OnnxGraph) -> Iterator[Issue]:
    """One scale around a MaxPool."""
    for node in graph.of_type("MaxPool"):
        yield from _one_scale(graph, node, "give the output the input's scale, or no Q/DQ of its own")


def _one_scale(graph: OnnxGraph, node: onnx.NodeProto, fix: str) -> Iterator[Issue]:
    grids = [graph.grid(tensor) for tensor in _activation_inputs(graph, node)]
    grids += [graph.grid_of(q) for q in graph.quantizers(node.output[0])]
    known: list[TensorGrid] = [g for g in grids if g is not None]
    different = [g for g in known[1:] if not g.same(known[0])]
    if different:
        first, other = known[0], different[0]
        message = f"{label(first.node)} has scale {first.scale.ravel()[0]:.6g}, {label(other.node)} "
        yield Issue(label(node), message + f"{other.scale.ravel()[0]:.6g}", fix)


def _activation_inputs(graph: OnnxGraph, node: onnx.NodeProto) -> list[str]:
    return [tensor for tensor in node.input if not graph.is_weight(tensor)]


@rule(
    "TRT031",
    "every Q/DQ pair serves an operator that can use it",
    why="A pair that only float operators or outputs read costs accuracy and time for nothing.",
    severity=Severity.WARNING,
)
def check_wasted(graph: OnnxGraph) -> Iterator[Issue]:
    """Some reader of every DQ computes with integers, or moves them."""
    for node in graph.of_type(QUANTIZE):
        source = graph.producer(node.input[0])
        readers = list(_dequantized_readers(graph, node))
        before_activation = source is not None and source.op_type in WEIGHTED and any(map(_is_activation, readers))
        dequantized = any(n.op_type == DEQUANTIZE for n in graph.consumers(node.output[0]))
        if dequantized and not before_activation and not any(r.op_type in _USERS for r in readers):
            read_by = ", ".join(f"{r.op_type} {label(r)}" for r in readers) or "an output"
            yield Issue(label(node), f"its pair is read by {read_by} alone", "remove the pair")


@rule(
    "TRT032",
    "one scale per tensor",
    why="A tensor that is quantized with two scales is rounded and written twice.",
    severity=Severity.WARNING,
)
def check_two_scales(graph: OnnxGraph) -> Iterator[Issue]:
    """All Qs that read one tensor agree."""
    first: dict[str, TensorGrid] = {}
    for node in graph.of_type(QUANTIZE):
        grid = graph.grid_of(node)
        # Held against the first, so that a finding names two nodes.
        known = first.setdefault(node.input[0], grid)
        if not known.same(grid):
            yield Issue(
                label(node),
                f"'{node.input[0]}' is also quantized by {label(known.node)}, with another scale",
                "share one scale among the readers of a tensor",
            )


@rule("TRT033", "planned operators are quantized", why="The plan says Int8; without Q/DQ they run in float.")
def check_planned(graph: OnnxGraph) -> Iterator[Issue]:
    """Every planned operator exists and has Q/DQ."""
    if graph.planned is None:
        return
    weighted = {node.name: node for node in graph.of_type(*WEIGHTED)}
    for name in graph.planned:
        if name not in weighted:
            yield Issue(name, "the graph has no weighted operator of this name", "keep the plan's names in the export")
        elif all(graph.grid(tensor) is None for tensor in graph.operands(weighted[name])):  # one alone: TRT024
            yield Issue(name, "it is planned for Int8, but has no Q/DQ", "emit the plan's points for it")


def _dequantized_readers(graph: OnnxGraph, quantize: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for node in graph.consumers(quantize.output[0]):
        if node.op_type == DEQUANTIZE:
            yield from graph.readers(node.output[0])


def _is_activation(node: onnx.NodeProto) -> bool:
    """Whether a node is an activation function; a SiLU counts by its Sigmoid."""
    return node.op_type in ACTIVATIONS
