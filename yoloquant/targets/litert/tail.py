"""The float decode tail of a drop-in ``.tflite``, as a torch module that lowers to few and cheap operations.

It computes what Ultralytics' heads compute behind their last convolutions. It is written anew instead of taken from
the traced model because the converter moves quantization through reshapes and concatenations: in the traced tail it
would force the levels' box outputs under one of their scales. Here every level passes a softmax, a sigmoid or an
arithmetic operation before it meets the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime.core.decode import anchor_points
from ...runtime.tasks import spec_of
from ...types import ModelInfo

NEAR_ONE = 1.0 + 2.0**-23
"""The float32 next to 1. The converter drops a product with 1, and with it what keeps levels' scales apart."""


def decode_tail(info: ModelInfo) -> nn.Module:
    """The tail of a model, which maps its raw outputs to the drop-in's."""
    task = spec_of(info.task)
    normalize = not info.end2end and task.normalized
    return DecodeTail(info, task.branches, normalize=normalize) if task.branches else Softmax()


class Softmax(nn.Module):
    """Probabilities from logits, in float: at steps of 1/256 all but the first few classes would be equal."""

    def forward(self, raw: Sequence[Tensor]) -> Tensor:
        """Logits (1, classes) to probabilities."""
        return raw[0].softmax(1)


class DecodeTail(nn.Module):
    """Decode per-level head outputs in float.

    Args:
        info: The model.
        branches: Branches of its head in the order of the raw outputs; boxes and scores first. What a file keeps apart
            stands behind them.
        normalize: Divide boxes and keypoints by the image size, as Ultralytics' LiteRT backend expects of heads that
            need NMS.
    """

    def __init__(self, info: ModelInfo, branches: Sequence[str], *, normalize: bool) -> None:
        super().__init__()
        self.info, self.branches = info, tuple(branches)
        points, steps = (torch.from_numpy(a) for a in anchor_points(info.imgsz, info.strides))
        size = torch.tensor([info.imgsz[1], info.imgsz[0]]) if normalize else torch.ones(2)
        factor = steps[:, None] / size  # per anchor: units of the stride to pixels or to fractions of the image
        counts = [(info.imgsz[0] // s) * (info.imgsz[1] // s) for s in info.strides]
        ends = np.cumsum(counts)
        for level, (start, end) in enumerate(zip(ends - counts, ends, strict=True)):
            self.register_buffer(f"points{level}", points[start:end].t()[None].contiguous())  # (1, 2, cells)
            self.register_buffer(f"factor{level}", factor[start:end].t()[None].contiguous())
        self.project = nn.Conv2d(info.reg_max, 1, 1, bias=False)
        self.project.weight.data = torch.arange(info.reg_max, dtype=torch.float32).view(1, -1, 1, 1)

    def forward(self, raw: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """Decode the raw outputs, (1, channels, h, w), branch by branch and level by level.

        Returns:
            The decoded output, and behind it the raw outputs that have no levels.
        """
        count = len(self.info.strides)
        apart = spec_of(self.info.task).apart
        behind = len(raw) - count * len(self.branches)
        branches = self.branches + apart if apart and behind >= count * len(apart) else self.branches
        by_branch = {name: raw[i * count : (i + 1) * count] for i, name in enumerate(branches)}
        rest = tuple(raw[count * len(branches) :])
        scores = torch.cat([score.flatten(2).sigmoid() for score in by_branch["score"]], 2)
        further = [self._further(level, by_branch) for level in range(count)]
        xy = [self._box(level, box, further[level]) for level, box in enumerate(by_branch["box"])]
        decoded = torch.cat(xy, 2)
        values = [torch.cat([v for v in further if v is not None], 2)] if further[0] is not None else []
        if self.info.end2end:
            output = self._select(decoded[0].t(), scores[0].t(), [v[0].t() for v in values])
        else:
            output = torch.cat([decoded, scores, *values], 1)
        return (output, *rest) if rest else output

    def _box(self, level: int, box: Tensor, further: Tensor | None) -> Tensor:
        """Boxes of one level, (1, 4, cells): xywh, or the corners for end-to-end heads."""
        points: Tensor = getattr(self, f"points{level}")
        factor: Tensor = getattr(self, f"factor{level}")
        cells = points.shape[2]
        if self.info.reg_max > 1:
            bins = box.permute(0, 2, 3, 1).reshape(1, cells, 4, self.info.reg_max).softmax(3)
            box = self.project(bins.permute(0, 3, 1, 2)).view(1, cells, 4).transpose(1, 2)
        else:
            box = box.flatten(2)
        if "angle" in self.branches and further is not None:
            return self._turned(box, further, points, factor)
        low, high = points - box[:, :2], points + box[:, 2:]
        if self.info.end2end:
            return torch.cat([low * factor, high * factor], 1)
        return torch.cat([(low + high) * (factor / 2), (high - low) * factor], 1)

    def _turned(self, box: Tensor, angle: Tensor, points: Tensor, factor: Tensor) -> Tensor:
        """Rotated boxes as xywh: the centre turns about the anchor."""
        half = (box[:, 2:] - box[:, :2]) / 2
        cos, sin = angle.cos(), angle.sin()
        x, y = half[:, :1] * cos - half[:, 1:] * sin, half[:, :1] * sin + half[:, 1:] * cos
        centre = (torch.cat([x, y], 1) + points) * factor
        return torch.cat([centre, (box[:, :2] + box[:, 2:]) * factor], 1)

    def _further(self, level: int, by_branch: dict[str, Sequence[Tensor]]) -> Tensor | None:
        """What a level predicts besides boxes and scores, (1, values, cells)."""
        if "mask" in by_branch:
            return by_branch["mask"][level].flatten(2) * NEAR_ONE  # a real operation, see the head of this file
        if "angle" in by_branch:
            angle = by_branch["angle"][level].flatten(2)
            return angle * NEAR_ONE if self.info.direct else (angle.sigmoid() - 0.25) * math.pi
        if "keypoint" not in by_branch:
            return None
        apart = by_branch["visibility"][level] if "visibility" in by_branch else None
        return self._keypoints(level, by_branch["keypoint"][level], apart)

    def _keypoints(self, level: int, raw: Tensor, apart: Tensor | None) -> Tensor:
        """Keypoints of one level, (1, keypoints * values, cells); visibilities are with them, or apart."""
        assert self.info.kpt_shape is not None  # ``exportable`` models have one
        count, values = self.info.kpt_shape
        points: Tensor = getattr(self, f"points{level}")
        factor: Tensor = getattr(self, f"factor{level}")
        numbers = raw.flatten(2).view(count, values if apart is None else 2, -1)
        near = numbers[:, :2] + points if self.info.direct else numbers[:, :2] * 2 + (points - 0.5)
        visibility = numbers[:, 2:] if apart is None else apart.flatten(2).view(count, 1, -1)
        parts = [near * factor] if values == 2 else [near * factor, visibility.sigmoid()]
        return torch.cat(parts, 1).reshape(1, count * values, -1)

    def _select(self, boxes: Tensor, scores: Tensor, values: Sequence[Tensor]) -> Tensor:
        """(1, max_det, 6 + values) from boxes (anchors, 4), scores (anchors, classes): best anchors, then classes."""
        count, classes = min(self.info.max_det, boxes.shape[0]), scores.shape[1]
        anchors = scores.amax(1).topk(count).indices
        chosen = scores.index_select(0, anchors)
        best, flat = chosen.reshape(-1).topk(count)
        rows, labels = flat // classes, flat % classes
        further = [v.index_select(0, anchors).index_select(0, rows) for v in values]
        found = boxes.index_select(0, anchors).index_select(0, rows)
        return torch.cat([found, best[:, None], labels[:, None].float(), *further], 1)[None]
