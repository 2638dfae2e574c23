"""Distance of raw head outputs to the float model's: what ``metric=distill`` measures.

Its unit is the distance between the float model's outputs for two different images, so that 0 is the float model and
1 a model that answers as if it had seen another image.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import DataError
from ..graph.head_outputs import head_outputs as raw_heads
from ..graph.trace import Graph
from ..pruning.channel_graph import ChannelGraph
from ..quantization.insert import copy_module
from ..quantization.raw_heads import end_at_heads
from ..training.distillation.distill import FeatureExtractor, Output, distillation_loss, head_outputs, merged
from .masks import closed, first_changed

MOST_KEPT = 1 << 30  # bytes of the float model's layer outputs that are kept
Raw = dict[str, Tensor]


def apart(reference: Sequence[Raw], outputs: tuple[Output, ...]) -> float:
    """Mean distance of the float model's outputs for one image to its outputs for the next: the unit of a score.

    Raises:
        DataError: There is one image only, or all are alike.
    """
    images = [_one(r, i) for r in reference for i in range(len(next(iter(r.values()))))]
    # each against the next one, the last against the first
    found = distance(images[1:] + images[:1], images, outputs)
    if not found > 0:
        raise DataError("metric=distill needs at least two images on which the model's outputs differ; add images")
    return found


def distance(found: Sequence[Raw], reference: Sequence[Raw], outputs: tuple[Output, ...]) -> float:
    """Mean over images of all parts of the distillation loss.

    Args:
        found: Raw outputs (batch, channels, height, width) by path, of each batch.
        reference: The float model's.
        outputs: What they are.

    Returns:
        0 for equal outputs, in the unit of ``training.distillation.distill.distillation_loss``: divergence per object.
    """
    total, count = 0.0, 0
    for student, teacher in zip(found, reference, strict=True):
        for i in range(len(next(iter(teacher.values())))):
            # image by image: the loss is relative to what the teacher sees, and a batch would mix images with and
            # without objects
            losses = distillation_loss(_one(student, i), _one(teacher, i), outputs)
            total += float(torch.stack(list(losses.values())).double().sum())
            count += 1
    return total / count


def _one(values: Raw, index: int) -> Raw:
    return {path: value[index : index + 1] for path, value in values.items()}


@dataclass(frozen=True)
class _Float:
    """What the float model did with one batch: outputs of its layers (if they are kept) and of its head."""

    layers: tuple[Any, ...]
    raw: Raw


class LiveDistance:
    """Distance of changed live models to the float one, in units of what ``apart`` measures.

    Layers before the first changed one would compute what the float model's did, so they are not run again.

    Args:
        model: The float model; left untouched.
        graph: Its graph.
        batches: Images, float32 (batch, channels, height, width).
    """

    def __init__(self, model: nn.Module, graph: Graph, batches: Sequence[Tensor]) -> None:
        self.outputs = head_outputs(model, graph)
        self.model = _ready(copy.deepcopy(model))
        # as the folded model runs fastest (``training.distillation.distill.Teacher``)
        self.batches = [b.contiguous(memory_format=torch.channels_last) for b in batches]
        self._float: list[_Float] = []
        room = MOST_KEPT
        for batch in self.batches:
            outcome = _forward(self.model, batch, self.outputs)
            room -= sum(t.numel() * t.element_size() for t in outcome.layers if isinstance(t, Tensor))
            # without its layers once memory is used up: such batches are run from the start
            self._float.append(outcome if room > 0 else _Float((), outcome.raw))
        self._unit = apart([f.raw for f in self._float], self.outputs)

    def __call__(self, model: nn.Module) -> float:
        """Distance of a changed model, which is changed further."""
        return self._measure(_ready(model), 0)

    def closed(self, network: ChannelGraph, dropped: frozenset[int]) -> float:
        """Distance of the float model with some channels closed."""
        with closed(self.model, network, dropped):
            return self._measure(self.model, first_changed(self.model, network, dropped))

    def _measure(self, model: nn.Module, first: int) -> float:
        raw = [
            _forward(model, batch, self.outputs, known.layers[:first]).raw
            for batch, known in zip(self.batches, self._float, strict=True)
        ]
        return distance(raw, [f.raw for f in self._float], self.outputs) / self._unit


def _ready(model: nn.Module) -> nn.Module:
    """Folded, frozen, without in-place activations, and with a head that gives raw outputs; changed in place."""
    model = merged(model.eval().requires_grad_(False)).to(memory_format=torch.channels_last)
    m: Any
    for m in model.modules():
        if hasattr(m, "inplace"):
            m.inplace = False  # layer outputs are kept
    layers: Any = model.model
    # raw outputs instead of decoded ones
    layers[-1].training = True
    return model


@torch.no_grad()
def _forward(model: Any, batch: Tensor, outputs: tuple[Output, ...], known: tuple[Any, ...] = ()) -> _Float:
    """Run the layers after the known ones, as Ultralytics' models do."""
    tap = FeatureExtractor(model, outputs)
    try:
        done: list[Any] = list(known)
        x = done[-1] if done else batch
        for layer in model.model[len(done) :]:
            if layer.f != -1:
                # as BaseModel's own forward, which offers no way to begin in the middle
                x = done[layer.f] if isinstance(layer.f, int) else [x if j == -1 else done[j] for j in layer.f]
            x = layer(x)
            done.append(x)
        # one layout: distances pass over both models' tensors together
        raw = {path: value.contiguous() for path, value in tap.take().items()}
    finally:
        tap.remove()
    # without the head's result, which no layer reads
    return _Float(tuple(done[:-1]), raw)


class GraphDistance:
    """Distance of simulated graphs to the float graph, in units of what ``apart`` measures.

    Args:
        graph: The canonical graph.
        batches: Images, float32 (1, channels, height, width).
    """

    def __init__(self, graph: Graph, batches: Sequence[Tensor]) -> None:
        self.graph, self.batches = graph, batches
        # one group: a traced graph has only one branch of a head
        self.outputs = tuple(Output(h.op.name, "graph", h.op.branch, h.keypoint) for h in raw_heads(graph))
        self._float = self._run(copy_module(graph))
        self._unit = apart(self._float, self.outputs)

    def __call__(self, module: fx.GraphModule) -> float:
        """Distance of a changed copy of the graph's module, which is changed further."""
        return distance(self._run(module), self._float, self.outputs) / self._unit

    @torch.no_grad()
    def _run(self, module: fx.GraphModule) -> list[Raw]:
        ended, names = end_at_heads(self.graph, module), [op.name for op in self.graph.heads]
        return [dict(zip(names, ended(batch), strict=True)) for batch in self.batches]
