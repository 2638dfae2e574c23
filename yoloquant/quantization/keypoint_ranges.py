"""Coordinates and visibilities of a head's raw keypoints never share a range.

A keypoint's x and y are distances of a few strides, which count as they are; its visibility is a logit that reaches
twice as far and saturates in a sigmoid. One scale for both rounds coordinates to steps that are too coarse. So a point
that quantizes such a result has one scale per channel, of which there are two different ones: whatever stores one scale
per tensor computes the result in two convolutions (``targets.litert.split_results``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .qparams import QParams

if TYPE_CHECKING:
    from ..graph.trace import Graph

AXIS = 1
"""Of the channels in a head's result, (1, channels, height, width)."""
COORDINATES, VISIBILITY = "coordinates", "visibility"
Channels = tuple[int, ...]


def mixed_heads(graph: Graph) -> dict[str, dict[str, Channels]]:
    """Heads whose result holds both, by operation, with the channels of each."""
    from ..graph.head_outputs import Readout, head_outputs  # brings torch, which listing a scheme does without

    found: dict[str, dict[str, Channels]] = {}
    for head in head_outputs(graph):
        if head.readout is Readout.KEYPOINTS:
            assert head.op.shape is not None  # its channels are how it was recognised
            every = range(head.op.shape[AXIS])
            last = head.bins - 1  # the last of a keypoint's numbers
            found[head.op.name] = {
                COORDINATES: tuple(c for c in every if c % head.bins != last),
                VISIBILITY: tuple(c for c in every if c % head.bins == last),
            }
    return found


def part_name(point: str, part: str) -> str:
    """What the values of one part are observed as."""
    return f"{point}[{part}]"


def joined(parts: Mapping[str, Sequence[int]], ranges: Mapping[str, QParams]) -> QParams:
    """One range per channel from one per part."""
    count = sum(len(channels) for channels in parts.values())
    scale, zero_point = np.zeros(count, np.float32), np.zeros(count, np.int32)
    for name, channels in parts.items():
        scale[list(channels)], zero_point[list(channels)] = ranges[name].scale, ranges[name].zero_point
    return QParams(scale, zero_point)
