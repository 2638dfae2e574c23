"""A trained YOLO as one canonical graph: what plans are derived from and what every export is made of.

The fused model is traced once with ``torch.export`` and rewritten so that each operation that a runtime quantizes is
one node: SiLU becomes sigmoid and multiply, chunk a split with fixed sizes, in-place operations and no-ops are
gone. Every node gets a stable name, ``module.path:operation:index``, the same on every machine and torch version.
"""

from __future__ import annotations

import operator
import warnings
from collections import Counter

import torch
from torch import fx, nn

from ..errors import ModelError
from ..types import ModelInfo
from .canonical_graph import Graph
from .decode_tail import mark_tail, name_branches
from .export_program import export_program, operation_name
from .ops import INPUT, QUANTIZATION_AGNOSTIC, WEIGHTED, OpKind, OpNode

__all__ = ["INPUT", "QUANTIZATION_AGNOSTIC", "WEIGHTED", "Graph", "OpKind", "OpNode", "trace"]

aten = torch.ops.aten

_KINDS: dict[object, OpKind] = {
    aten.conv2d.default: OpKind.CONV,
    aten.conv2d.padding: OpKind.CONV,
    aten.linear.default: OpKind.LINEAR,
    aten.conv_transpose2d.input: OpKind.CONV_TRANSPOSE,
    aten.matmul.default: OpKind.MATMUL,
    aten.bmm.default: OpKind.MATMUL,
    aten.add.Tensor: OpKind.ADD,
    # A difference and a quotient by a constant need what a sum and a product need: operands and a result on a grid.
    aten.sub.Tensor: OpKind.ADD,
    aten.mul.Tensor: OpKind.MUL,
    aten.div.Tensor: OpKind.MUL,
    aten.cat.default: OpKind.CONCAT,
    # Their results cannot leave 0..1, so a runtime prescribes the range instead of taking a calibrated one (LiteRT:
    # scale 1/256, zero_point -128).
    aten.sigmoid.default: OpKind.UNIT,
    aten.softmax.int: OpKind.UNIT,
    aten._softmax.default: OpKind.UNIT,
    aten.relu.default: OpKind.RELU,
    aten.relu6.default: OpKind.RELU,
    aten.max_pool2d.default: OpKind.POOL_MAX,
    operator.getitem: OpKind.PASS,
}
# These only move or choose values. A range of their own would cost a requantization and could only lose: LiteRT gives
# them their input's quantizer, and so do plans. Nearest upsampling repeats values; bilinear computes new ones and is
# therefore not in here.
_PASS_NAMES = frozenset(
    {
        *("reshape", "permute", "transpose", "t", "movedim", "flatten", "unflatten", "unsqueeze", "squeeze", "expand"),
        *("slice", "select", "narrow", "index_select", "unbind", "split_with_sizes"),
        *("upsample_nearest2d", "pixel_shuffle", "pixel_unshuffle", "adaptive_max_pool2d"),
    }
)
# They stand for memory layout, autograd or training mode, none of which an exported graph has.
_NO_OPS = frozenset({"contiguous", "clone", "alias", "detach", "dropout", "lift_fresh_copy", "_to_copy", "to"})


def trace(module: nn.Module, info: ModelInfo) -> Graph:
    """Trace a fused model in export mode into its canonical graph.

    Args:
        module: What ``bridge.exportable`` returns.
        info: Its description; the input size is baked in.

    Returns:
        The graph.

    Raises:
        ModelError: torch.export cannot trace the model, or it has no convolution.
    """
    # Settled, or the anchors that Ultralytics computes on the first call would be operations of the graph, and would
    # get points.
    program = export_program(module, info.channels, info.imgsz, f"{info.task.value} model", settled=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unlifted = program.module()
    # The module that torch.export returns checks shapes in code of its own; as a plain GraphModule it can be copied and
    # rewritten.
    # What traced it is forgotten: torch 2.14 pickles its class, and cannot read that again.
    unlifted.graph._tracer_cls = None
    graph_module = fx.GraphModule(unlifted, unlifted.graph)
    _canonicalise(graph_module)
    names, ops = _describe(graph_module)
    if not any(op.kind in WEIGHTED for op in ops.values()):
        raise ModelError("the model has no convolution or linear layer, so there is nothing to quantize")
    # branches are told by the last layers before the tail, so the tail has to be known first
    unnamed = Graph(graph_module, info, names, mark_tail(ops, names, graph_module))
    return Graph(graph_module, info, names, name_branches(unnamed))


def _canonicalise(gm: fx.GraphModule) -> None:
    graph = gm.graph
    _number(graph)
    # a list, since nodes are erased and inserted on the way
    for node in list(graph.nodes):
        # torch's checks of input shapes, of which newer releases put some into the graph
        if node.op == "call_module" and "guard" in str(node.target):
            graph.erase_node(node)
        elif node.op == "placeholder":
            # the placeholder is called after the argument of the model's forward, which differs between host releases
            _rename(node, INPUT)
        elif node.op == "call_function":
            _rewrite(graph, node)
    # Chunks whose result nobody reads and folded constants would otherwise be described as operations without readers.
    graph.eliminate_dead_code()
    graph.lint()
    # The copies that every simulation makes would carry what is not called any more.
    gm.delete_all_unused_submodules()
    gm.recompile()


def _number(graph: fx.Graph) -> None:
    """Call operations what a trace of the whole program calls them, whichever way it was decomposed."""
    counts: Counter[str] = Counter()
    for node in (n for n in graph.nodes if n.op == "call_function"):
        base = operation_name(node)
        node.name = f"{base}_{counts[base]}" if counts[base] else base
        counts[base] += 1


def _rename(node: fx.Node, name: str) -> None:
    node.name = node.target = name


def _rewrite(graph: fx.Graph, node: fx.Node) -> None:
    short = operation_name(node)
    if short in _NO_OPS or short.startswith("_assert"):
        if node.users:
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        graph.erase_node(node)
    # Runtimes quantize the sigmoid and the product apart, LiteRT with a prescribed range for the sigmoid; as two nodes
    # both can have a point, and one plan fits all of them.
    elif short == "silu":
        with graph.inserting_before(node):
            gate = graph.call_function(aten.sigmoid.default, (node.args[0],))
            product = graph.call_function(aten.mul.Tensor, (node.args[0], gate))
        # shapes and the module's path are read from there, and new nodes have none
        gate.meta, product.meta = dict(node.meta), dict(node.meta)
        node.replace_all_uses_with(product)
        graph.erase_node(node)
    elif short in {
        "view",
        "_unsafe_view",
        "view_copy",
        "_reshape_alias",
    }:  # a removed contiguous() may have been what made a view legal
        node.target = aten.reshape.default
    # Three spellings of one operation; with a fixed kernel it has an ONNX form in every opset that is exported.
    elif short in {"adaptive_avg_pool2d", "_adaptive_avg_pool2d", "mean"} and _pools_globally(node):
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node.target = aten.avg_pool2d.default
        node.args, node.kwargs = (source, [int(s) for s in source.meta["val"].shape[2:]]), {}
    # With sizes written out the parts are known without running: what follows channels through the graph needs that.
    elif short in {"chunk", "split"}:
        dim = int(node.args[2]) if len(node.args) > 2 else int(node.kwargs.get("dim", 0))  # type: ignore[arg-type]
        sizes = [int(value.shape[dim]) for value in node.meta["val"]]
        node.target = aten.split_with_sizes.default
        node.args, node.kwargs = (node.args[0], sizes, dim), {}


def padded_averages(graph: Graph) -> list[str]:
    """Names of average pools whose padding counts as zeros."""
    return [name for name in graph.ops if _counts_padding(graph.node(name))]


def computed_divisors(graph: Graph) -> list[str]:
    """Names of the body's operations that divide by what is computed; a quotient by a constant is a product."""
    quotients = (op for op in graph.body() if graph.node(op.name).target is aten.div.Tensor)
    return [op.name for op in quotients if len(op.inputs) > 1]


def _counts_padding(node: fx.Node) -> bool:
    if operation_name(node) != "avg_pool2d":
        return False
    arguments = dict(zip(("input", "kernel", "stride", "padding", "ceil", "counts"), node.args, strict=False))
    padding = arguments.get("padding", node.kwargs.get("padding", 0))
    sides = padding if isinstance(padding, (list, tuple)) else [padding]
    return any(sides) and bool(arguments.get("counts", node.kwargs.get("count_include_pad", True)))


def _pools_globally(node: fx.Node) -> bool:
    """Whether a node averages each channel to one pixel; the exporter's own form of that needs a later opset."""
    source, result = node.args[0], node.meta.get("val")
    if not isinstance(source, fx.Node) or not isinstance(result, torch.Tensor) or result.dim() != 4:
        return False
    return source.meta["val"].dim() == 4 and tuple(result.shape[2:]) == (1, 1)


def _describe(gm: fx.GraphModule) -> tuple[dict[str, str], dict[str, OpNode]]:
    """Give every operation its stable name and its description, tail still unmarked."""
    counts: Counter[tuple[str, str]] = Counter()
    names: dict[str, str] = {}
    stable: dict[fx.Node, str] = {}
    ops: dict[str, OpNode] = {}
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            name, path, kind = INPUT, "", OpKind.INPUT
        elif node.op == "call_function":
            path, short = _module_path(node), operation_name(node)
            name = f"{path}:{short}:{counts[path, short]}"
            # numbered within module and operation: inserting a layer elsewhere renames nothing
            counts[path, short] += 1
            kind = _kind(node, short)
        else:
            continue
        weight = ""
        if kind in WEIGHTED:
            # the second argument is the weight for convolutions, transposed ones and linear layers alike
            source = node.args[1]
            weight = str(source.target) if isinstance(source, fx.Node) and source.op == "get_attr" else ""
            # a convolution with a computed kernel has no weight to quantize
            kind = kind if weight else OpKind.OTHER
        value = node.meta.get("val")
        shape = tuple(int(s) for s in value.shape) if isinstance(value, torch.Tensor) else None
        # parameters and constants are get_attr nodes, which have no stable name: they drop out here
        inputs = tuple(stable[i] for i in node.all_input_nodes if i in stable)
        # it moves a constant: nothing flows through it from the image
        if kind is OpKind.PASS and not inputs:
            kind = OpKind.OTHER
        ops[name] = OpNode(name, kind, path, shape, inputs, weight)
        stable[node], names[name] = name, node.name
    return names, ops


def _kind(node: fx.Node, short: str) -> OpKind:
    kind = _KINDS.get(node.target)
    if kind is not None:
        return kind
    return OpKind.PASS if short in _PASS_NAMES else OpKind.OTHER


def _module_path(node: fx.Node) -> str:
    """Absolute path of the innermost module, also where the tracer reports a shared module relatively."""
    path = ""
    for name, _ in (node.meta.get("nn_module_stack") or {}).values():
        if not name:
            continue
        inside = not path or name.startswith(f"{path}.")
        path = name if inside else f"{path}.{name.rsplit('.', 1)[-1]}"
    return path
