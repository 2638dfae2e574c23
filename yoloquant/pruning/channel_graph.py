"""What following the channels of a network finds: who makes and reads each, what must stay equal, and what it costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from ..errors import ModelError


@dataclass(frozen=True)
class ChannelDim:
    """One axis of one parameter whose entries are channels.

    Attributes:
        parameter: Full name of the parameter.
        axis: Which of its axes.
        labels: Label of each entry along the axis.
    """

    parameter: str
    axis: int
    labels: tuple[int, ...]


# The values are names of attributes: forwards of these blocks view and split by them, so they must be kept up.
class Split(Enum):
    """What code calls the size of the parts that it splits a tensor into."""

    WIDTH = "c"  # halves of a CSP block
    KEY = "key_dim"  # query and key channels of one attention head
    HEAD = "head_dim"  # value channels of one head


@dataclass(frozen=True)
class Equal:
    """Parts of a tensor that must keep the same number of channels, because code splits it evenly.

    Attributes:
        module: Path of the module whose code splits it.
        parts: Labels of each part.
        kind: Which number of the module follows the size of a part.
    """

    module: str
    parts: tuple[tuple[int, ...], ...]
    kind: Split = Split.WIDTH


@dataclass(frozen=True)
class Conv:
    """One executed convolution or linear layer, for counting multiplications.

    Attributes:
        parameter: Name of its weight.
        positions: Output pixels (or tokens).
        kernel: Weights per pair of channels.
        reads: Label of every input channel; a depthwise layer has none of its own.
        writes: Label of every output channel.
        depthwise: Whether every output channel reads one input channel.
    """

    parameter: str
    positions: int
    kernel: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    depthwise: bool = False


@dataclass(frozen=True)
class MatMul:
    """A product of two activations, for counting: ``factor`` multiplications for every one of the ``reads``."""

    factor: int
    reads: tuple[int, ...]


@dataclass
class ChannelGraph:
    """Everything that following the channels found.

    Attributes:
        dims: Every parameter axis that carries channels, labels resolved.
        equal: Parts that must keep equal numbers.
        convs: Executed layers.
        matmuls: Products of activations.
        unprunable: Labels that must stay.
    """

    dims: list[ChannelDim] = field(default_factory=list)
    equal: list[Equal] = field(default_factory=list)
    convs: list[Conv] = field(default_factory=list)
    matmuls: list[MatMul] = field(default_factory=list)
    unprunable: frozenset[int] = frozenset()


def by_parameter(dims: Iterable[ChannelDim]) -> dict[str, dict[int, tuple[int, ...]]]:
    """Labels of every axis of every parameter.

    Raises:
        ModelError: A parameter is used twice with different channels.
    """
    labels: dict[str, dict[int, tuple[int, ...]]] = defaultdict(dict)
    for dim in dims:
        known = labels[dim.parameter].setdefault(dim.axis, dim.labels)
        if known != dim.labels:
            raise ModelError(f"the layer {dim.parameter} is used for two different tensors, which cannot be pruned")
    return labels
