"""How much an error at each value matters to what the network detects: squared gradients of its raw outputs.

To first order, independent rounding errors e_i at the values of a tensor change an output y by sum_i dy/dx_i e_i, so
they cost sum_i (dy/dx_i)^2 e_i^2 on average. Summed over all outputs that is the squared gradient of sum_y s_y y with
random signs s (Hutchinson 1989, as in Dong et al. 2020, arXiv 1911.03852, section 3): one backward pass per image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..graph.head_outputs import HeadOutput
from ..graph.trace import Graph, OpKind
from .head_ranges import silu_operand
from .observers import Histogram, evenly
from .readout import readers

logger = logging.getLogger(__name__)

SAMPLE = 1 << 17  # gradients are peaked, so more values of a tensor are looked at than without them
LIMIT_BYTES = 6 << 30
"""Memory that one image's activations may take; larger networks are calibrated without gradients."""


class Importance:
    """Histograms in which each value counts by its squared gradient.

    Args:
        graph: The canonical graph.
        points: Names of the tensors to observe, and of their parts.
        parts: Channels of each part, by its name, by the tensor's.
    """

    def __init__(
        self, graph: Graph, points: Iterable[str], parts: Mapping[str, Mapping[str, Sequence[int]]] | None = None
    ) -> None:
        self.parts = parts or {}
        self.histograms = {name: Histogram(counts=np.zeros_like(Histogram().counts, np.float64)) for name in points}
        # The error of a pre-activation is measured behind its SiLU, so there the gradient is taken too.
        products = ((op.name, silu_operand(graph, op.name)) for op in graph.body() if op.kind is OpKind.MUL)
        self.products = {product: before for product, before in products if before in self.histograms}
        self.affordable = _bytes(graph) <= LIMIT_BYTES
        if not self.affordable:
            logger.warning("the activations of one image take too much memory for gradients; ranges do without them")

    def watch(
        self, name: str, value: Tensor, values: Mapping[str, Tensor], moments: Mapping[str, Sequence[float]]
    ) -> None:
        """Count a tensor, and the pre-activation that it is the SiLU of, as soon as its gradient is known.

        Args:
            name: The operation that has just run.
            value: Its result.
            values: Results of the pre-activations among the observed points.
            moments: Smallest and largest value of each observed tensor, and what else is known of it.
        """
        if not value.requires_grad:
            return
        if name in self.histograms and name not in self.products.values():
            value.register_hook(self._counted(name, value.detach(), moments[name]))  # type: ignore[no-untyped-call]
            for part, channels in self.parts.get(name, {}).items():
                some = list(channels)
                hook = self._counted(part, value.detach()[:, some], None, some)
                value.register_hook(hook)  # type: ignore[no-untyped-call]
        if name in self.products:
            before = self.products[name]
            hook = self._counted(before, values[before].detach(), moments[before])
            value.register_hook(hook)  # type: ignore[no-untyped-call]

    def backward(self, outputs: Mapping[HeadOutput, Tensor]) -> None:
        """Run the backward pass of one image.

        Args:
            outputs: Raw result of every head, with their graph.
        """
        generator = torch.Generator().manual_seed(0)  # the same for every image, so that their order does not matter
        total = torch.zeros(())
        for head, reader in readers(outputs).items():
            values = reader.values(outputs[head])
            signs = torch.randint(0, 2, values.shape, generator=generator) * 2 - 1
            total = total + (values * signs).sum()
        total.backward()  # type: ignore[no-untyped-call]

    def _counted(
        self, name: str, value: Tensor, moments: Sequence[float] | None, channels: list[int] | None = None
    ) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            values, stride = evenly(value, SAMPLE)
            slopes = gradient.detach() if channels is None else gradient.detach()[:, channels]
            # of the sample alone: squares of all gradients would cost more than counting them
            mass = evenly(slopes, SAMPLE)[0].square().double() * stride
            low, high = torch.aminmax(value) if moments is None else moments[:2]
            self.histograms[name].add(values, mass, (float(low), float(high)))

        return hook


def weighted(values: Histogram, importance: Histogram | None, uniform: float) -> Histogram:
    """A histogram for a search: values by importance, some of the weight spread over all values alike.

    Args:
        values: Every value, each counted once.
        importance: The same tensor's values by importance, of some of the images; None if unknown.
        uniform: Share of the weight that does not ask for importance, 0 to 1; a guard against values that few images
            show to matter.
    """
    total = float(importance.counts.sum()) if importance is not None else 0.0
    if importance is None or not 0 < total < np.inf:
        return values
    every = Histogram(values.counts * (uniform * total / values.counts.sum()), values.exponent, values.low, values.high)
    return Histogram(importance.counts * (1 - uniform), importance.exponent, values.low, values.high).merged(every)


def _bytes(graph: Graph) -> int:
    return sum(4 * int(np.prod(op.shape)) for op in graph.body() if op.shape is not None)
