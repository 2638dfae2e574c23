"""Class logits of the float model where it sees something: what quantized ones are held against.

Which scores count is decided by the float model alone, once for each image and for all plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..graph.head_outputs import HeadOutput, Readout, head_outputs
from ..graph.trace import Graph, OpNode
from .readout import FOREGROUND


@dataclass(frozen=True)
class SeenScores:
    """The logits of one map that the float model does not rule out.

    Attributes:
        values: The logits, (scores,).
        places: Where they are in the flattened map, (scores,).
    """

    values: Tensor
    places: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> SeenScores:
        """The scores of a map (1, classes, height, width)."""
        flat = logits.reshape(-1)
        places = (flat.sigmoid() > FOREGROUND).nonzero().reshape(-1)
        return cls(flat[places], places)

    def of_plan(self, logits: Tensor) -> Tensor:
        """What a plan makes of the same scores."""
        return logits.reshape(-1)[self.places]


def class_layers(graph: Graph) -> list[tuple[OpNode, str]]:
    """Each last class convolution with a bias, and its module path."""
    biased = {name.removesuffix(".bias") for name, _ in graph.module.named_parameters() if name.endswith(".bias")}
    classes = [head.op for head in head_outputs(graph) if head.readout is Readout.CLASS_SIGMOID]
    paths = [(op, op.weight.removesuffix(".weight")) for op in classes]
    return [(op, path) for op, path in paths if path in biased]


def seen(graph: Graph, outputs: Mapping[HeadOutput, Tensor]) -> tuple[SeenScores, ...]:
    """The scores of one image, in the order of ``class_layers``.

    Args:
        graph: The canonical graph.
        outputs: Raw results of every head of its float model.
    """
    by_name = {head.op.name: value.detach() for head, value in outputs.items()}
    return tuple(SeenScores.of(by_name[op.name]) for op, _ in class_layers(graph))
