"""What an operation means to a quantizer: the vocabulary that graphs and schemes share.

Nothing here imports torch, so that a runtime's rules can be listed without loading it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

INPUT = "images"


class OpKind(str, Enum):
    """What an operation means to a quantizer."""

    INPUT = "input"
    CONV = "conv"
    LINEAR = "linear"
    CONV_TRANSPOSE = "conv_transpose"
    MATMUL = "matmul"
    ADD = "add"
    MUL = "mul"
    CONCAT = "concat"
    UNIT = "unit"  # results lie in 0..1: sigmoid, softmax
    RELU = "relu"
    PASS = "pass"  # moves or selects values without computing new ones
    POOL_MAX = "pool_max"  # also only selects values
    OTHER = "other"


WEIGHTED = frozenset({OpKind.CONV, OpKind.LINEAR, OpKind.CONV_TRANSPOSE})
# Both keep the grid of what they read: the largest of some codes is one of them, so a pool needs no range of its own.
QUANTIZATION_AGNOSTIC = frozenset({OpKind.PASS, OpKind.POOL_MAX})


@dataclass(frozen=True)
class OpNode:
    """One operation of the canonical graph.

    Attributes:
        name: Stable name, ``module.path:operation:index``.
        kind: What it means to a quantizer.
        module: Path of the module whose forward runs it.
        shape: Shape of its result, or None if it returns several tensors.
        inputs: Names of the operations whose results it reads, in order, constants left out.
        weight: Path of its weight parameter, for convolutions and linear layers.
        tail: Whether it belongs to the float decode tail behind the last head convolutions.
        branch: For a head's last convolution ``box``, ``score`` or ``other``; empty elsewhere.
    """

    name: str
    kind: OpKind
    module: str
    shape: tuple[int, ...] | None
    inputs: tuple[str, ...]
    weight: str = ""
    tail: bool = False
    branch: str = ""
