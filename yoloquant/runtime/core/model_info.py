"""What a model is, as far as running it needs to know: enums and one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Task(str, Enum):
    """Ultralytics' task names."""

    DETECT = "detect"
    SEGMENT = "segment"
    POSE = "pose"
    OBB = "obb"
    CLASSIFY = "classify"


class HeadLayout(str, Enum):
    """What the output tensors of an artifact hold."""

    DECODED = "decoded"  # a detector's (1, 4 + nc, anchors): xywh in input pixels, sigmoid scores; needs NMS
    END2END = "end2end"  # a detector's (1, max_det, 6): x1 y1 x2 y2 score class, already selected
    RAW = "raw"  # what the last head convolutions emit: one tensor per level and branch


@dataclass(frozen=True)
class ModelInfo:
    """What a runtime must know about the model to feed it and to read its outputs.

    Attributes:
        task: The model's task.
        names: Class names, index by index.
        imgsz: Input height and width in pixels.
        stride: Largest stride of the model in pixels.
        strides: Stride of each head level, in the order of its raw outputs.
        reg_max: Number of DFL bins per box side; 1 means that the head regresses distances directly.
        end2end: Whether the head selects its detections itself (no NMS).
        max_det: Detections that an end-to-end head returns.
        channels: Input channels.
        kpt_shape: Keypoints and their dimensions, for pose models.
        direct: Whether keypoints and angles are regressed as they are (YOLO26), without the scaling of earlier heads.
    """

    task: Task
    names: tuple[str, ...]
    imgsz: tuple[int, int]
    stride: int = 32
    strides: tuple[int, ...] = (8, 16, 32)
    reg_max: int = 16
    end2end: bool = False
    max_det: int = 300
    channels: int = 3
    kpt_shape: tuple[int, int] | None = None
    direct: bool = False

    @property
    def layout(self) -> HeadLayout:
        """Layout of a drop-in export of this model."""
        return HeadLayout.END2END if self.end2end else HeadLayout.DECODED
