"""What is read from a network's raw head outputs, in units in which errors of all heads can be added.

An error counts by what it does to a detection: class scores after their sigmoid, distances after DFL and relative to
the box, a keypoint's visibility after its sigmoid, other outputs relative to their own size; each box and coefficient
by how sure its anchor is of an object. A classifier's distribution is read as twice the roots of its probabilities,
whose squared change is, for small errors, twice the Kullback-Leibler divergence: differences of the probabilities
themselves would hardly count where the model is sure, nor how a small one is multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..graph.head_outputs import HeadOutput, Readout

FOREGROUND = 0.01
"""Anchors below this score are never detected at usual thresholds."""
_SIDES = 4
_BOXES = frozenset({"box", "other"})
"""Branches whose four numbers are taken for a box's sides."""
_MIN_BOX = 0.5  # strides; what smaller boxes are off by is not resolved anyway


@dataclass(frozen=True)
class Reader:
    """How one head's raw result is read on one image.

    Attributes:
        output: The head.
        certainty: Best class score of each anchor of the head's level, (1, 1, height, width); None where classes have
            no such map.
        size: What errors are divided by, broadcast to the values; None for scores, which count as they are.
    """

    output: HeadOutput
    certainty: Tensor | None
    size: Tensor | None

    def values(self, raw: Tensor) -> Tensor:
        """What is read: probabilities or their roots, or distances and coefficients in relative units.

        Args:
            raw: The head's result, (1, channels, height, width), or (1, channels) for a linear layer.
        """
        read = compared(self.output, raw)
        return read if self.size is None else read / self.size


def readers(outputs: Mapping[HeadOutput, Tensor]) -> dict[HeadOutput, Reader]:
    """A reader for every head, from the float results of one image.

    Args:
        outputs: Raw result of every head, in any order.
    """
    scores = {h: expected(h, raw).detach() for h, raw in outputs.items() if h.readout is Readout.CLASS_SIGMOID}
    maps: dict[tuple[int, ...], Tensor] = {}
    for value in scores.values():
        best = value.amax(1, keepdim=True)
        known = maps.get(tuple(value.shape[2:]))
        maps[tuple(value.shape[2:])] = best if known is None else torch.maximum(best, known)
    # how many objects the image shows, in effect: anchors count by the square of their certainty
    objects = max(float(sum(m.square().sum() for m in maps.values())), 1.0)
    return {h: _reader(h, raw.detach(), maps.get(tuple(raw.shape[2:])), objects) for h, raw in outputs.items()}


def _reader(output: HeadOutput, raw: Tensor, certainty: Tensor | None, objects: float) -> Reader:
    if output.readout in {Readout.CLASS_SIGMOID, Readout.CLASS_SOFTMAX}:
        return Reader(output, certainty, None)
    read = expected(output, raw)
    if certainty is None:  # a map that all objects share, such as mask prototypes
        every = read[0].numel()
        # as if the map's error were divided among the objects that share it
        size = read.square().mean().sqrt().clamp(min=1e-6) * (every / objects) ** 0.5
        return Reader(output, None, size)
    weight = certainty.clamp(min=1e-6)
    # what distances to a box's sides may be off by scales with the box
    if _are_sides(output, read.shape[1]):
        # left + right and top + bottom; an untrained head's may be negative
        across = (read[:, :2] + read[:, 2:]).abs().clamp(min=_MIN_BOX)
        return Reader(output, certainty, torch.cat([across, across], 1) / weight)
    mean_square = (read.square() * weight).sum() / (weight.sum() * read.shape[1])
    size = mean_square.sqrt().clamp(min=1e-6) * read.shape[1] ** 0.5
    return Reader(output, certainty, size / weight)


def _are_sides(output: HeadOutput, values: int) -> bool:
    """Whether each anchor's values are its distances to the four sides of a box.

    Four mask coefficients, and two keypoints of x and y, are four numbers too; heads of other makers have no names.
    """
    return values == _SIDES and (output.readout is Readout.DISTRIBUTION or output.op.branch in _BOXES)


def compared(output: HeadOutput, raw: Tensor) -> Tensor:
    """A raw head result in the form in which squared errors are added; channels stay axis 1."""
    if output.readout is Readout.CLASS_SOFTMAX:
        # not the root of a softmax, whose slope is infinite where a probability is rounded to 0
        return 2 * (0.5 * raw.log_softmax(1)).exp()
    return expected(output, raw)


def expected(output: HeadOutput, raw: Tensor) -> Tensor:
    """A raw head result after the function behind it; channels stay axis 1."""
    if output.readout is Readout.CLASS_SIGMOID:
        return raw.sigmoid()
    if output.readout is Readout.CLASS_SOFTMAX:
        return raw.softmax(1)
    if output.readout is Readout.KEYPOINTS:  # or a range would be as wide as visibilities reach, which saturate
        each = raw.reshape(raw.shape[0], -1, output.bins, *raw.shape[2:])
        return torch.cat([each[:, :, :2], each[:, :, 2:].sigmoid()], 2).reshape(raw.shape)
    if output.readout is Readout.DISTRIBUTION:
        bins = torch.arange(output.bins, dtype=raw.dtype).reshape(1, 1, -1, *[1] * (raw.dim() - 2))
        sides = raw.reshape(raw.shape[0], -1, output.bins, *raw.shape[2:])
        return (sides.softmax(2) * bins).sum(2)
    return raw
