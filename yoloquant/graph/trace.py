"""A trained YOLO as one canonical graph: what plans are derived from and what every export is made of.

The fused model is traced once with ``torch.export`` and rewritten so that each operation that a runtime quantizes is
one node: SiLU becomes sigmoid and multiply, chunk a split with fixed sizes, in-place operations and no-ops are
gone. Every node gets a stable name, ``module.path:operation:index``, the same on every machine and torch version.
"""

from __future__ import annotations

import logging
import operator
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import fx, nn

from ..errors import ModelError
from ..runtime.tasks import spec_of
from ..types import ModelInfo
from .export_program import export_program, operation_name
from .ops import INPUT, QUANTIZATION_AGNOSTIC, WEIGHTED, OpKind, OpNode

__all__ = ["INPUT", "QUANTIZATION_AGNOSTIC", "WEIGHTED", "Graph", "OpKind", "OpNode", "trace"]

logger = logging.getLogger(__name__)
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


class Graph:
    """The canonical graph of one model at one input size.

    Attributes:
        module: The graph module; maps (1, channels, height, width) to the drop-in output.
        info: What the model is.
        ops: Every operation by stable name, in execution order.
    """

    def __init__(self, module: fx.GraphModule, info: ModelInfo, names: dict[str, str], ops: dict[str, OpNode]) -> None:
        # fx renames nodes when graphs are copied or rewritten in another order; plans are stored with names that must
        # outlive that.
        self.module, self.info, self.ops = module, info, ops
        self._fx_names = names  # stable name -> fx node name

    def node(self, name: str, module: fx.GraphModule | None = None) -> fx.Node:
        """The fx node of an operation, in this graph's module or in a copy of it."""
        target = self._fx_names[name]
        nodes = self._nodes if module is None else {n.name: n for n in module.graph.nodes}
        return nodes[target]

    def fx_name(self, name: str) -> str:
        """Name of the fx node of an operation; copies of the module keep it."""
        return self._fx_names[name]

    @cached_property
    def _nodes(self) -> dict[str, fx.Node]:
        return {n.name: n for n in self.module.graph.nodes}

    @cached_property
    def users(self) -> dict[str, tuple[str, ...]]:
        """Names of the operations that read each operation's result."""
        readers: dict[str, list[str]] = defaultdict(list)
        for op in self.ops.values():
            # an operation that reads one tensor twice (x + x) is one reader of it
            for source in dict.fromkeys(op.inputs):
                readers[source].append(op.name)
        return {name: tuple(readers[name]) for name in self.ops}

    @cached_property
    def heads(self) -> tuple[OpNode, ...]:
        """The last weighted operations before the decode tail; only a SiLU may stand between."""
        return tuple(
            op for op in self.ops.values() if not op.tail and op.kind in WEIGHTED and self._ends(self.end(op.name))
        )

    def end(self, name: str) -> str:
        """The operation whose result a weighted operation is read by: its SiLU's product, or itself."""
        readers = [self.ops[u] for u in self.users[name]]
        gates = {r.name for r in readers if r.kind is OpKind.UNIT and not r.tail}
        # a SiLU is a sigmoid and a product, and both read the convolution
        products = [r.name for r in readers if r.kind is OpKind.MUL and gates & set(r.inputs)]
        return products[0] if len(readers) == 2 and len(products) == 1 else name

    def _ends(self, name: str) -> bool:
        return all(self.ops[u].tail for u in self.users[name])

    def root(self, name: str) -> str:
        """The operation that computed the values which an operation merely passes on."""
        op = self.ops[name]
        # Chains are common (split, slice, reshape), and the range belongs to the first operation that computed the
        # values.
        while op.kind in QUANTIZATION_AGNOSTIC:
            op = self.ops[op.inputs[0]]
        return op.name

    def body(self) -> Iterator[OpNode]:
        """Operations before the decode tail, the input included."""
        return (op for op in self.ops.values() if not op.tail)

    def ancestors(self, name: str) -> frozenset[str]:
        """Every operation whose result flows into this one."""
        return self._ancestors[name]

    @cached_property
    def _ancestors(self) -> dict[str, frozenset[str]]:
        ancestors: dict[str, frozenset[str]] = {}
        for op in self.ops.values():
            ancestors[op.name] = (
                frozenset().union(*(ancestors[i] | {i} for i in op.inputs)) if op.inputs else frozenset()
            )
        return ancestors


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
    graph_module = fx.GraphModule(unlifted, unlifted.graph)
    _canonicalise(graph_module)
    names, ops = _describe(graph_module)
    if not any(op.kind in WEIGHTED for op in ops.values()):
        raise ModelError("the model has no convolution or linear layer, so there is nothing to quantize")
    # branches are told by the last layers before the tail, so the tail has to be known first
    unnamed = Graph(graph_module, info, names, _mark_tail(ops, names, graph_module))
    return Graph(graph_module, info, names, _name_branches(unnamed))


def _canonicalise(gm: fx.GraphModule) -> None:
    graph = gm.graph
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


def _is_dfl(node: fx.Node) -> bool:
    stack = node.meta.get("nn_module_stack") or {}
    return any(str(kind).rsplit(".", 1)[-1].rstrip("'>") == "DFL" for _, kind in stack.values())


def _mark_tail(ops: dict[str, OpNode], names: dict[str, str], gm: fx.GraphModule) -> dict[str, OpNode]:
    """Mark the decode tail: what has no convolution or linear layer behind it, the fixed DFL projection not counted."""
    nodes = {n.name: n for n in gm.graph.nodes}
    before_weights: set[str] = set()  # operations with a weighted operation downstream
    tail: set[str] = set()
    # Backwards, so that one pass knows of every operation whether a weighted one follows it.
    for op in reversed(list(ops.values())):
        # DFL is written as a convolution with weights 0, 1, 2 ...: it reads a distribution out, and belongs to the
        # decode.
        fixed = _is_dfl(nodes[names[op.name]])
        weighted = op.kind in WEIGHTED and not fixed
        if op.name in before_weights or weighted:
            before_weights.update(op.inputs)
        elif op.kind is not OpKind.INPUT:
            tail.add(op.name)
    # the body reaches to a SiLU that belongs to a convolution, or its pair would be split
    tail -= _last_activations(ops, tail)
    described = {
        op.name: replace(
            op, tail=op.name in tail, kind=OpKind.OTHER if op.kind in WEIGHTED and op.name in tail else op.kind
        )
        for op in ops.values()
    }
    return described


def _last_activations(ops: dict[str, OpNode], tail: set[str]) -> set[str]:
    """The SiLU behind a convolution that nothing weighted follows, as behind mask prototypes: no part of the decode."""
    activations: set[str] = set()
    for op in ops.values():
        gates = [i for i in op.inputs if ops[i].kind is OpKind.UNIT and i in tail]
        if op.kind is not OpKind.MUL or op.name not in tail or len(gates) != 1 or len(op.inputs) != 2:
            continue
        (source,) = (i for i in op.inputs if i not in gates)
        if ops[source].kind in WEIGHTED and source not in tail and ops[gates[0]].inputs == (source,):
            activations |= {op.name, gates[0]}
    return activations


def _name_branches(graph: Graph) -> dict[str, OpNode]:
    """Operations with the branch of every head."""
    last = {op.name for op in graph.heads}
    task = spec_of(graph.info.task)
    return {
        name: replace(op, branch=_branch(op.module, task.branches, task.single)) if name in last else op
        for name, op in graph.ops.items()
    }


def _branch(path: str, levels: Sequence[str], single: Sequence[str]) -> str:
    """Which quantity a head's last convolution predicts, by Ultralytics' names of the branches.

    Args:
        path: Of the module.
        levels: The task's branches with one output per level: boxes, scores, and what else ``cv4`` predicts.
        single: Its branches with one output.
    """
    # model.<number of the head>.<branch>...; end-to-end heads have a second set of branches with this prefix
    part = next(iter([p.removeprefix("one2one_") for p in path.split(".")][2:3]), "")
    known = dict(zip(("cv2", "cv3", "cv4"), levels, strict=False))
    if part.startswith("cv4"):  # YOLO26's keypoints come from cv4_kpts
        part = "cv4"
    return known.get(part) or (single[0] if single else "other")
