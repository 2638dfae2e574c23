"""Ranges of what a head's last layer reads, chosen by the error of what is read from its result.

A few channels in front of the class logits may reach a hundred where all others stay below ten. The range with the
least squared error of the values then keeps those few and rounds the rest to nothing, and confidences shrink. The
weights behind are known, and so is the sigmoid: the error is measured there, on columns (im2col) of the calibration
images at anchors that see something, and at some that do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..graph.head_outputs import HeadOutput
from ..graph.trace import QUANTIZATION_AGNOSTIC, Graph, OpKind
from .observers import Histogram, search
from .qparams import UNIT_QPARAMS, QParams, QuantSpec
from .readout import FOREGROUND, compared, readers
from .tensor_grid import on_grid

ALGORITHM = "mse_readout"
LEAST = 0.004
"""Smallest share of what was seen that a range is tried at: outliers reach 25 times the rest in YOLO26n."""
_ANCHORS = 64  # per image and level, of either kind; with 128 images far more than a search needs


@dataclass
class Columns:
    """What one head's last layer reads at chosen anchors, of all images.

    Attributes:
        head: The head.
        inputs: Operands, (anchors, inputs per output) per image.
        before: The same in front of the SiLU whose result they are; empty if they are not one's.
        sizes: What errors are divided by, (anchors, values) per image; empty for scores.
    """

    head: HeadOutput
    inputs: list[Tensor] = field(default_factory=list)
    before: list[Tensor] = field(default_factory=list)
    sizes: list[Tensor] = field(default_factory=list)


class HeadColumns:
    """Collects columns image by image, for every point whose readers are all heads.

    Args:
        graph: The canonical graph.
        heads: Its raw outputs.
    """

    def __init__(self, graph: Graph, heads: Sequence[HeadOutput]) -> None:
        self.graph = graph
        last = {h.op.name for h in heads}
        self.columns: dict[str, list[Columns]] = defaultdict(list)
        self.silus: dict[str, str] = {}  # product of a SiLU -> what it is of
        for head in heads:
            source = graph.root(head.op.inputs[0])
            # Only a tensor that nothing but heads reads may be judged by them: other readers would pay for what is
            # clipped.
            alone = source == head.op.inputs[0] and set(graph.users[source]) <= last
            if (alone or _is_pooled(graph, head)) and _is_plain(graph, head):
                self.columns[source].append(Columns(head))
                before = silu_operand(graph, source)
                if before:
                    self.silus[source] = before

    @property
    def wanted(self) -> frozenset[str]:
        """Operations whose results ``add`` needs."""
        return frozenset(self.columns) | frozenset(self.silus.values())

    def add(self, values: Mapping[str, Tensor], outputs: Mapping[HeadOutput, Tensor]) -> None:
        """Take the columns of one image.

        Args:
            values: Results of the wanted operations.
            outputs: Raw results of every head.
        """
        read = readers(outputs)
        for source, columns in self.columns.items():
            for column in columns:
                reader, raw = read[column.head], outputs[column.head].detach()
                # by the float model's certainty, so that every range is judged at the same anchors
                chosen = _anchors(reader.certainty, raw)
                column.inputs.append(self._columns(column.head, values[source], chosen))
                if source in self.silus:
                    column.before.append(self._columns(column.head, values[self.silus[source]], chosen))
                if reader.size is not None:
                    size = reader.size.expand_as(compared(column.head, raw))
                    column.sizes.append(_at(size, chosen))

    def _columns(self, head: HeadOutput, x: Tensor, chosen: Tensor) -> Tensor:
        x = x.detach()
        if head.op.kind is OpKind.LINEAR or self._weight(head).shape[2:] == (1, 1):
            return _at(x, chosen)
        stride, padding, dilation, _ = _geometry(self.graph, head)
        kernel = tuple(self._weight(head).shape[2:])
        sizes = (kernel, *(tuple(int(v) for v in values) for values in (dilation, padding, stride)))
        # im2col: a convolution of these columns is one matrix product, which a search can repeat
        patches = functional.unfold(x, *sizes)
        return patches[0][:, chosen].T.contiguous()

    def _weight(self, head: HeadOutput) -> Tensor:
        return self.graph.module.get_parameter(head.op.weight).detach()

    def params(self, point: str, hist: Histogram, spec: QuantSpec) -> QParams | None:
        """The range of a point that loses least behind the heads that read it; None if no head decides it.

        Args:
            point: Name of the point.
            hist: What it saw, for the bounds of the search.
            spec: Its representation.
        """
        # complete schemes quantize the pre-activation too, and its clipping shows in the same logits
        behind = next((source for source, before in self.silus.items() if before == point), "")
        columns = self.columns.get(point) or self.columns.get(behind)
        if not columns or not columns[0].inputs:
            return None
        # the weights stay float here: their rounding is the same for every range that is tried
        losses = [_Loss(c, self.graph, spec, before=bool(behind)) for c in columns]
        return search(hist, spec, lambda q: sum(loss(q) for loss in losses), least=LEAST)


class _Loss:
    """Squared error of what is read from one head, for one range of its operand."""

    def __init__(self, columns: Columns, graph: Graph, spec: QuantSpec, *, before: bool) -> None:
        self.head, self.spec, self.before = columns.head, spec, before
        self.x = torch.cat(columns.before if before else columns.inputs)
        self.size = torch.cat(columns.sizes) if columns.sizes else None
        self.weight = graph.module.get_parameter(columns.head.op.weight).detach().flatten(1)
        bias = f"{columns.head.op.weight.removesuffix('.weight')}.bias"
        self.bias = dict(graph.module.named_parameters()).get(bias)
        self.reference = self._read(torch.cat(columns.inputs))

    def __call__(self, params: QParams) -> float:
        with torch.inference_mode():
            x = _fake_quantize(self.x, params, self.spec)
            if self.before:  # the sigmoid's own rounding included, or clipped negatives never become exactly 0
                x = x * _fake_quantize(x.sigmoid(), UNIT_QPARAMS, QuantSpec())
            # per anchor, so that levels of many anchors do not drown the others
            return float((self._read(x) - self.reference).square().sum(dtype=torch.float64)) / len(self.x)

    def _read(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.detach()
        read = compared(self.head, functional.linear(x, self.weight, bias))
        return read if self.size is None else read / self.size


def _fake_quantize(x: Tensor, params: QParams, spec: QuantSpec) -> Tensor:
    return on_grid(x, torch.tensor(params.scale, dtype=torch.float32), int(params.zero_point), spec)


def silu_operand(graph: Graph, product: str) -> str:
    """What a product is the SiLU of; empty if it is none."""
    op = graph.ops[product]
    if op.kind is not OpKind.MUL:
        return ""
    gates = [graph.ops[i] for i in op.inputs if graph.ops[i].kind is OpKind.UNIT]
    return next((i for g in gates for i in g.inputs if i in op.inputs), "")


def _is_pooled(graph: Graph, head: HeadOutput) -> bool:
    """Whether a linear layer alone reads a vector that was pooled to one place, and flattened."""
    if head.op.kind is not OpKind.LINEAR:
        return False
    name = head.op.inputs[0]
    while graph.ops[name].kind in QUANTIZATION_AGNOSTIC and len(graph.users[name]) == 1:
        name = graph.ops[name].inputs[0]
    shape = graph.ops[name].shape or ()
    return len(graph.users[name]) == 1 and len(shape) == 4 and shape[2:] == (1, 1)


def _is_plain(graph: Graph, head: HeadOutput) -> bool:
    """Whether a head's last layer is one matrix product per anchor."""
    if head.op.kind is OpKind.LINEAR:
        return head.op.shape is not None and len(head.op.shape) == 2
    return head.op.kind is OpKind.CONV and _geometry(graph, head)[3] == 1


def _geometry(graph: Graph, head: HeadOutput) -> tuple[list[int], list[int], list[int], int]:
    """Stride, padding, dilation and groups of a head's convolution, by the defaults of ``aten.conv2d``."""
    node = graph.node(head.op.name)
    names = ("stride", "padding", "dilation", "groups")
    given = dict(zip(names, node.args[3:], strict=False)) | dict(node.kwargs)
    pairs = [_pair(given.get(name, default)) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))]
    groups = given.get("groups", 1)
    assert isinstance(groups, int)
    # groups 0 stands for padding by name ('same'), which unfold does not know: such heads are not plain
    return pairs[0], pairs[1], pairs[2], groups if not isinstance(given.get("padding"), str) else 0


def _pair(value: object) -> list[int]:
    if isinstance(value, (list, tuple)):
        numbers = [int(v) for v in value]
        # torch.export writes [1] for a stride that is the same on both axes
        return numbers if len(numbers) == 2 else numbers * 2
    return [int(value)] * 2 if isinstance(value, int) else [0, 0]


def _anchors(certainty: Tensor | None, raw: Tensor) -> Tensor:
    """Positions to measure at: spread evenly over those that see something, and over all.

    No random numbers and no state: the choice depends on the image alone, whatever came before it.
    """
    every = torch.arange(raw[0, 0].numel() if raw.dim() > 2 else 1)
    seeing = every if certainty is None else every[certainty.reshape(-1) > FOREGROUND]
    # the second half keeps negatives negative: a range that only serves objects may raise everything else
    chosen: Tensor = torch.unique(torch.cat([_spread(seeing), _spread(every)]))  # type: ignore[no-untyped-call]
    return chosen


def _spread(positions: Tensor) -> Tensor:
    if len(positions) <= _ANCHORS:
        return positions
    return positions[torch.from_numpy(np.linspace(0, len(positions) - 1, _ANCHORS).round().astype(np.int64))]


def _at(x: Tensor, chosen: Tensor) -> Tensor:
    """Channels at some positions, (positions, channels)."""
    return (x[0].flatten(1)[:, chosen].T if x.dim() > 2 else x).contiguous()
