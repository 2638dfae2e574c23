"""The float decode tail of a drop-in ``.tflite``, as a torch module that lowers to few and cheap operations.

It computes what Ultralytics' ``Detect`` head computes behind its last convolutions. It is written anew instead of
taken from the traced model because the converter moves quantization through reshapes and concatenations: in the traced
tail it would force the levels' box outputs under one of their scales. Here every level passes a softmax, a sigmoid or
an arithmetic operation before it meets the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime.core.decode import anchor_points
from ...types import ModelInfo


class DecodeTail(nn.Module):
    """Decode per-level head outputs in float.

    Args:
        info: The model.
        normalize: Divide boxes by the image size, as Ultralytics' LiteRT backend expects of heads that need NMS.
    """

    def __init__(self, info: ModelInfo, *, normalize: bool) -> None:
        super().__init__()
        self.info = info
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

    def forward(self, boxes: Sequence[Tensor], scores: Sequence[Tensor]) -> Tensor:
        """Decode boxes (1, 4 * reg_max, h, w) and class logits (1, classes, h, w), level by level."""
        xy = [self._box(level, box) for level, box in enumerate(boxes)]
        probabilities = torch.cat([score.flatten(2).sigmoid() for score in scores], 2)
        decoded = torch.cat(xy, 2)
        if self.info.end2end:
            return self._select(decoded[0].t(), probabilities[0].t())
        return torch.cat([decoded, probabilities], 1)

    def _box(self, level: int, box: Tensor) -> Tensor:
        """Boxes of one level, (1, 4, cells): xywh, or the corners for end-to-end heads."""
        points: Tensor = getattr(self, f"points{level}")
        factor: Tensor = getattr(self, f"factor{level}")
        cells = points.shape[2]
        if self.info.reg_max > 1:
            bins = box.permute(0, 2, 3, 1).reshape(1, cells, 4, self.info.reg_max).softmax(3)
            box = self.project(bins.permute(0, 3, 1, 2)).view(1, cells, 4).transpose(1, 2)
        else:
            box = box.flatten(2)
        low, high = points - box[:, :2], points + box[:, 2:]
        if self.info.end2end:
            return torch.cat([low * factor, high * factor], 1)
        return torch.cat([(low + high) * (factor / 2), (high - low) * factor], 1)

    def _select(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """(1, max_det, 6) from boxes (anchors, 4) and scores (anchors, classes): best anchors, then best classes."""
        count, classes = min(self.info.max_det, boxes.shape[0]), scores.shape[1]
        anchors = scores.amax(1).topk(count).indices
        chosen = scores.index_select(0, anchors)
        best, flat = chosen.reshape(-1).topk(count)
        rows, labels = flat // classes, flat % classes
        found = boxes.index_select(0, anchors).index_select(0, rows)
        return torch.cat([found, best[:, None], labels[:, None].float()], 1)[None]
