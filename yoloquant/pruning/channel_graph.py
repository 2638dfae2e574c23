"""Which channels of a network belong together, found by following every channel through the traced graph.

Each output channel of each weighted layer gets a number. The numbers flow through the operations of the graph as the
channels do: pooling and activations keep them, a concat lines them up, a view or split moves them, an addition makes
two of them one. What ends with one number must be removed together. Whatever an operation does that is not known here
pins the channels that it reads, so that an unknown block costs pruning freedom and never correctness.

Torch-Pruning's dependency graph (arXiv 2301.12900) answers the same question from the autograd graph. It cannot follow
the attention of YOLO11 and later, and does not know that the halves of a ``chunk`` must stay equal.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from ..errors import ModelError
from .channel_labels import (
    Labels,
    Union,
    arrays,
    leaves,
    map_tensors,
    module_path,
    node_kind,
    node_shape,
    split_dimension,
    spread,
    varies_along,
)
from .network import ChannelGraph, Conv, Equal, MatMul, Member, Split

logger = logging.getLogger(__name__)

_ELEMENTWISE = frozenset(
    {"add", "sub", "mul", "div", "add_", "mul_", "sub_", "div_", "maximum", "minimum", "where", "pow"}
)
_UNARY = frozenset(
    {
        *("silu", "silu_", "sigmoid", "relu", "relu_", "relu6", "hardtanh", "hardswish", "hardsigmoid", "gelu", "tanh"),
        *("leaky_relu", "leaky_relu_", "mish", "elu", "softplus", "exp", "log", "neg", "clamp", "softmax", "_softmax"),
        *("dropout", "contiguous", "clone", "alias", "detach", "to", "_to_copy", "lift_fresh_copy", "softplus"),
    }
)
_SPATIAL = frozenset(
    {
        *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d"),
        *("upsample_bilinear2d", "pad", "constant_pad_nd"),
    }
)
_MOVES = frozenset(
    {
        *("reshape", "view", "_unsafe_view", "flatten", "permute", "transpose", "t", "movedim", "unsqueeze", "squeeze"),
        *("expand", "slice", "select", "narrow", "unbind", "unflatten", "split", "split_with_sizes", "chunk"),
    }
)
_SPLITS = frozenset({"split", "split_with_sizes", "chunk"})


def follow(module: nn.Module, imgsz: tuple[int, int], channels: int = 3) -> ChannelGraph:
    """Follow every channel of a live, unfused YOLO.

    Args:
        module: The model; left untouched.
        imgsz: Input height and width in pixels; multiplications are counted at this size.
        channels: Input channels.

    Returns:
        What belongs together.

    Raises:
        ModelError: The model cannot be traced.
    """
    program = _export(module, imgsz, channels)
    return _Walk(module, program).run()


def raw_twin(module: nn.Module) -> nn.Module:
    """A copy on the CPU that answers with the raw outputs of every branch of its head, BatchNorm in evaluation mode."""
    twin: Any = deepcopy(module).cpu().float().eval()
    if hasattr(twin, "criterion"):
        twin.criterion = None
    for m in twin.model[-1].modules():
        m.training = not isinstance(m, (nn.BatchNorm2d, nn.Dropout))
    for m in twin.modules():
        if hasattr(m, "inplace"):
            m.inplace = False
    return twin  # type: ignore[no-any-return]


def _export(module: nn.Module, imgsz: tuple[int, int], channels: int) -> Any:
    twin = raw_twin(module)
    example = torch.zeros(1, channels, *imgsz)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(twin, (example,), strict=False)
        except Exception as exc:
            raise ModelError(
                f"the model cannot be traced at imgsz={imgsz[0]}x{imgsz[1]}: {exc}; custom layers must be traceable by "
                "torch.export"
            ) from exc


class _Walk:
    def __init__(self, module: nn.Module, program: Any) -> None:
        self.module, self.program = module, program
        self.union = Union()
        self.pinned: set[int] = set()
        self.members: list[Member] = []
        self.equal: list[Equal] = []
        self.convs: list[Conv] = []
        self.matmuls: list[MatMul] = []
        self.values: dict[fx.Node, Any] = {}
        self.stream: dict[str, tuple[int, ...]] = {}  # what the first layer of each block reads
        self.seen: dict[tuple[str, int], Labels] = {}
        layers: Any = getattr(module, "model", ())
        self.head = f"model.{len(layers) - 1}."  # what it reshapes are results, which stay anyway
        signature = program.graph_signature
        self.parameters: dict[str, str] = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }

    def run(self) -> ChannelGraph:
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "output":
                for value in leaves(node.args):  # a feature map that layers read besides is no result of its own
                    if not isinstance(value, fx.Node) or all(user.op == "output" for user in value.users):
                        self._pin(self._value(value))
        find = self.union.resolve
        return ChannelGraph(
            list(dict.fromkeys(Member(m.parameter, m.axis, find(m.labels)) for m in self.members)),
            [Equal(e.module, tuple(find(p) for p in e.parts), e.kind) for e in self.equal],
            [Conv(c.parameter, c.positions, c.kernel, find(c.reads), find(c.writes), c.depthwise) for c in self.convs],
            [MatMul(m.factor, find(m.reads)) for m in self.matmuls],
            frozenset(find(self.pinned)) - {0},
        )

    # -- values

    def _placeholder(self, node: fx.Node) -> Any:
        value = node.meta.get("val")
        return np.zeros(tuple(value.shape), np.int64) if isinstance(value, torch.Tensor) else None

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return self.values.get(argument)
        if isinstance(argument, (list, tuple)):
            return [self._value(a) for a in argument]
        return argument

    def _name(self, argument: Any) -> str:
        """Full name of the parameter behind an argument, or nothing."""
        return self.parameters.get(argument.name, "") if isinstance(argument, fx.Node) else ""

    def _pin(self, value: Any) -> None:
        for array in arrays(value):
            self.pinned.update(int(v) for v in np.unique(array) if v)

    def _zeros(self, node: fx.Node) -> Any:
        return map_tensors(node.meta.get("val"), lambda t: np.zeros(tuple(t.shape), np.int64))

    # -- operations

    def _call(self, node: fx.Node) -> Any:
        short = node_kind(node)
        handler: Callable[[fx.Node], Any] | None = getattr(self, f"_op_{short}", None)
        if handler is not None:
            return handler(node)
        if short in _ELEMENTWISE:
            return self._elementwise(node)
        if short in _UNARY:
            return self._same(node)
        if short in _SPATIAL:
            return self._spatial(node)
        if short in _MOVES:
            return self._move(node, short)
        return self._unknown(node, short)

    def _unknown(self, node: fx.Node, short: str) -> Any:
        if any(bool(a.any()) for a in arrays(self._value(node.args))):
            logger.debug("%s at %s is not known: its channels stay", short, module_path(node))
            self._pin(self._value(node.args))
        return self._zeros(node)

    def _same(self, node: fx.Node) -> Any:
        value = self._value(node.args[0])
        shape = node_shape(node)
        return value if shape is None or value.shape == shape else np.broadcast_to(value, shape)

    def _elementwise(self, node: fx.Node) -> Any:
        shape = node_shape(node)
        if shape is None:
            return None
        result = np.zeros(shape, np.int64)
        operands: list[Labels] = []
        for argument in node.args:
            value = self._value(argument)
            if not isinstance(value, np.ndarray):
                continue
            if self._name(argument) and value.size > 1 and not value.any():
                value = self._own(argument, value.shape)
            result = self._tie(result, np.broadcast_to(value, shape))
            operands.append(value)
        for value in operands:
            self._pin_unmatched(result, value)
        return result

    def _pin_unmatched(self, result: Labels, operand: Labels) -> None:
        """An operand that is as wide as the channels it meets, but whose own are not known, keeps them as they are."""
        if operand.all():
            return
        lead = result.ndim - operand.ndim
        if any(size > 1 and varies_along(result, lead + i) for i, size in enumerate(operand.shape)):
            self._pin(result[np.broadcast_to(operand == 0, result.shape)])

    def _own(self, argument: Any, shape: tuple[int, ...]) -> Labels:
        """Labels of a parameter that takes part in arithmetic: its longest axis carries channels."""
        axis = int(np.argmax(shape))
        labels = self.union.fresh(shape[axis])
        self.members.append(Member(self._name(argument), axis, tuple(labels)))
        self.values[argument] = value = np.broadcast_to(
            labels.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape
        ).copy()
        return value

    def _tie(self, a: Labels, b: Labels) -> Labels:
        both = (a != 0) & (b != 0)
        if both.any():
            pairs = np.unique(np.stack([a[both], b[both]]), axis=1)
            for x, y in pairs.T:
                self.union.join(int(x), int(y))
        return np.where(a != 0, a, b)

    def _vector(self, value: Labels, axis: int) -> Labels:
        """Labels along an axis, which must not depend on where one looks; else they are pinned."""
        moved = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
        first = moved[:, 0]
        if (moved != first[:, None]).any():
            self._pin(value)
        return np.asarray(first)

    def _spatial(self, node: fx.Node) -> Any:
        value, shape = self._value(node.args[0]), node_shape(node)
        assert shape is not None
        if value.ndim != len(shape) or value.shape[1] != shape[1]:
            return self._unknown(node, node_kind(node))
        return spread(self._vector(value, 1), shape, 1)

    def _op_mean(self, node: fx.Node) -> Any:
        value, shape = self._value(node.args[0]), node_shape(node)
        if shape is None or value.ndim != 4 or len(shape) < 2 or shape[1] != value.shape[1]:
            return self._unknown(node, "mean")
        return spread(self._vector(value, 1), shape, 1)

    def _move(self, node: fx.Node, short: str) -> Any:
        source: Any = node.args[0]
        value = self._value(source)
        if not isinstance(value, np.ndarray):
            return self._zeros(node)
        if self._name(source) and not value.any() and value.size > 1:
            value = self._own(source, value.shape)
        # the labels go through the very operation
        arguments = [torch.from_numpy(np.array(value)), *node.args[1:]]
        result: Any = node.target(*arguments, **node.kwargs)  # type: ignore[operator]
        moved = [r.numpy() for r in result] if isinstance(result, (list, tuple)) else result.numpy()
        self._check_move(node, short, value, moved)
        return moved

    def _check_move(self, node: fx.Node, short: str, before: Labels, after: Any) -> None:
        """Note splits into equal parts; pin what code takes apart by numbers that pruning would change."""
        if short in {"view", "reshape", "unflatten", "_unsafe_view"} and self._names_sizes(node, after):
            self._pin(before)
            self._pin(np.array(self._read_by(module_path(node)), np.int64))
        if not before.any():
            return
        if short in _SPLITS:
            self._check_split(node, short, before, after)
        elif short in {"slice", "select", "narrow"} and after.size < before.size:
            if set(np.unique(after)) != set(np.unique(before)):
                self._pin(before)
        elif short in {"view", "reshape", "unflatten", "_unsafe_view", "flatten"}:
            self._check_view(node, before, after)

    def _check_split(self, node: fx.Node, short: str, before: Labels, after: list[Labels]) -> None:
        heads, dim = self._heads(node), split_dimension(node) % before.ndim
        if dim == 1 and before.ndim == 4 and len({p.shape[1] for p in after}) == 1:
            parts = tuple(tuple(int(v) for v in self._vector(p, 1)) for p in after)
            self.equal.append(Equal(module_path(node), parts))
            width = getattr(self._block(node), "c", None)
            if not before.all() or (short != "chunk" and width != after[0].shape[1]):
                self._pin(before)  # a part that is not known, or a size that is written down where nobody finds it
        elif heads is not None and dim == 2 and before.ndim == 4 and len(after) == 3:
            self._attention(module_path(node), heads, [p[0, :, :, 0] for p in after])
        elif varies_along(before, dim):
            self._pin(before)

    def _attention(self, path: str, owner: Any, qkv: list[Labels]) -> None:
        """Every head keeps as many channels as the others.

        Args:
            path: Of the attention block.
            owner: The block.
            qkv: Labels (heads, channels) of query, key and value.
        """
        query, value = ([tuple(int(v) for v in head) for head in part] for part in (qkv[0], qkv[2]))
        if hasattr(owner, "key_dim"):
            self.equal.append(Equal(path, tuple(query), Split.KEY))
            # its values are viewed in the shape of its input: they must stay as many
            stream = np.array(self.stream.get(path, ()), np.int64)
            if len(stream) != sum(len(v) for v in value):
                self._pin(np.array(value))
                return
            value += [tuple(int(v) for v in part) for part in np.split(stream, len(value))]
            self.equal.append(Equal(path, tuple(value), Split.HEAD))
        else:
            self.equal.append(Equal(path, tuple(query + value), Split.HEAD))

    def _check_view(self, node: fx.Node, before: Labels, after: Labels) -> None:
        axes = [i for i in range(after.ndim) if varies_along(after, i)]
        if len(axes) <= 1 and len([i for i in range(before.ndim) if varies_along(before, i)]) <= 1:
            return
        heads = self._heads(node)
        if heads is None:
            self._pin(before)

    def _names_sizes(self, node: fx.Node, after: Labels) -> bool:
        """Whether code that is not known reshapes to a number of channels, be it its own or that of its input."""
        if self._heads(node) is not None or self._name(node.args[0]) or f"{module_path(node)}.".startswith(self.head):
            return False
        sizes: Any = node.args[-1] if node_kind(node) != "unflatten" else ()
        varies = [i for i in range(after.ndim) if varies_along(after, i)]
        return not varies or len(sizes) != after.ndim or any(sizes[i] != -1 for i in varies)

    def _read_by(self, path: str) -> tuple[int, ...]:
        """Channels that a block, or the one around it, reads first."""
        while path and path not in self.stream:
            path = path.rpartition(".")[0]
        return self.stream.get(path, ())

    def _block(self, node: fx.Node) -> Any:
        path = module_path(node)
        return self.module.get_submodule(path) if path else self.module

    def _heads(self, node: fx.Node) -> Any:
        """The attention block whose code this is, if it is one whose numbers can be changed."""
        owner = self._block(node)
        return owner if hasattr(owner, "num_heads") and hasattr(owner, "head_dim") else None

    def _op_getitem(self, node: fx.Node) -> Any:
        value = self._value(node.args[0])
        index: Any = node.args[1]
        return value[index] if isinstance(value, (list, tuple)) else self._unknown(node, "getitem")

    def _op_cat(self, node: fx.Node) -> Any:
        parts: Any = self._value(node.args[0])
        dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        result = np.concatenate(parts, axis=int(dim))
        if result.ndim < 2:
            return self._unknown(node, "cat")
        if int(dim) % result.ndim == 1 or not result.any():
            return result
        # along another axis the same channels lie side by side: they are one
        labels = [self._vector(p, 1) for p in parts]
        joined = np.zeros_like(labels[0])
        for vector in labels:
            joined = self._tie(joined, vector)
        for vector in labels:
            self._pin(joined[vector == 0])
        return spread(joined, result.shape, 1)

    def _op_batch_norm(self, node: fx.Node) -> Any:
        value = self._value(node.args[0])
        labels = tuple(int(v) for v in self._vector(value, 1))
        for argument in node.args[1:5]:
            if self._name(argument):
                self._member(self._name(argument), 0, np.array(labels, np.int64))
        return value

    def _op_layer_norm(self, node: fx.Node) -> Any:
        return self._unknown(node, "layer_norm")

    def _op_linear(self, node: fx.Node) -> Any:
        return self._weighted(node, axis=-1, transposed=False, groups=1)

    def _op_conv2d(self, node: fx.Node) -> Any:
        groups: Any = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
        return self._weighted(node, axis=1, transposed=False, groups=int(groups))

    def _op_conv_transpose2d(self, node: fx.Node) -> Any:
        groups: Any = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
        return self._weighted(node, axis=1, transposed=True, groups=int(groups))

    def _weighted(self, node: fx.Node, *, axis: int, transposed: bool, groups: int) -> Any:
        weight: Any = node.args[1]
        bias: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
        value, shape, name = self._value(node.args[0]), node_shape(node), self._name(weight)
        assert shape is not None
        size = tuple(weight.meta["val"].shape)
        reads = self._vector(value, axis)
        if not name:
            return self._unknown(node, node_kind(node))
        out_axis, in_axis = (1, 0) if transposed else (0, 1)
        depthwise = groups > 1 and groups == len(reads) == size[out_axis] and not transposed
        outputs = len(reads) if depthwise else shape[axis]
        owner = module_path(node)
        while owner:
            self.stream.setdefault(owner, tuple(int(v) for v in reads))
            owner = owner.rpartition(".")[0]
        if groups > 1 and not depthwise:
            self._pin(value)
            writes = np.zeros(outputs, np.int64)
        elif depthwise:
            writes = reads
            self._member(name, 0, reads)
        else:
            writes = self.union.fresh(outputs)
            self._member(name, out_axis, writes)
            self._member(name, in_axis, reads)
        if self._name(bias):
            self._member(self._name(bias), 0, writes)
        kernel = int(np.prod(size[2:])) if len(size) > 2 else 1
        positions = int(np.prod(shape)) // outputs
        if transposed:
            positions = int(np.prod(value.shape)) // len(reads)
        if groups > 1 and not depthwise:
            kernel *= size[1] * outputs  # a constant: nothing of it can go
            self.convs.append(Conv(name, positions, kernel, (0,), (0,)))
        else:
            self.convs.append(Conv(name, positions, kernel, tuple(reads), tuple(writes), depthwise))
        return spread(writes, shape, axis)

    def _member(self, name: str, axis: int, labels: Labels) -> None:
        known = self.seen.setdefault((name, axis), labels)
        if known is not labels:  # a layer that runs twice: what it reads and makes is the same both times
            self._tie(known, labels)
            self._pin(np.where(known == 0, labels, np.where(labels == 0, known, 0)))
        self.members.append(Member(name, axis, tuple(int(v) for v in labels)))

    def _op_matmul(self, node: fx.Node) -> Any:
        a, b = self._value(node.args[0]), self._value(node.args[1])
        shape = node_shape(node)
        if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or shape is None or min(a.ndim, b.ndim) < 2:
            return self._unknown(node, "matmul")
        left, right = varies_along(a, a.ndim - 1), varies_along(b, b.ndim - 2)
        if a.shape[-1] == 1 and a.any() and b.any():  # one channel is left to contract over
            left = right = True
        if left and right:  # both sides contract over channels: the i-th ones meet
            pairs_a, pairs_b = a[..., 0, :].reshape(-1), np.swapaxes(b, -1, -2)[..., 0, :].reshape(-1)
            if pairs_a.shape != pairs_b.shape:
                return self._unknown(node, "matmul")
            self._tie(pairs_a, pairs_b)
        elif left or right:
            return self._unknown(node, "matmul")
        result = np.zeros(shape, np.int64)
        if not left and a.any():
            result = self._tie(result, np.broadcast_to(a[..., :, :1], shape))
        if not right and b.any():
            result = self._tie(result, np.broadcast_to(b[..., :1, :], shape))
        if left and right:
            self.matmuls.append(MatMul(int(shape[-1] * shape[-2]), tuple(int(v) for v in pairs_a)))
        else:
            channels = a[..., :, 0].reshape(-1) if a.any() else b[..., 0, :].reshape(-1)
            rest = int(np.prod(shape)) // max(len(channels), 1) * int(a.shape[-1])
            self.matmuls.append(MatMul(rest, tuple(int(v) for v in channels)))
        return result

    _op_bmm = _op_matmul
