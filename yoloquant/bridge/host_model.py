"""A float YOLO as Ultralytics holds it, and which model it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..runtime.tasks import spec_of
from ..types import ModelInfo, Task
from .input_size import check_imgsz

if TYPE_CHECKING:
    from torch import nn

ORIGIN = "yoloquant_origin"
"""Attribute of every module that is loaded here: which model it was before anything was pruned, fitted or trained. It
is plain data, and travels with the module through copies, training and checkpoints."""


@dataclass(frozen=True)
class Origin:
    """The original FP32 model that a checkpoint was made from; the checkpoint itself where nothing was changed.

    Attributes:
        name: File name, without its folder.
        sha256: Hash of the file; of the weights where there was no file.
        weights: Hash of the weights.
    """

    name: str
    sha256: str
    weights: str


@dataclass(frozen=True)
class HostModel:
    """A float YOLO as Ultralytics holds it.

    Attributes:
        module: The ``BaseModel`` in float32 and eval mode, not fused.
        task: Its task.
        names: Class names.
        stride: Largest stride in pixels.
        channels: Input channels.
        imgsz: Input size that it was trained at, if the checkpoint tells.
        source: File it came from, or a description.
        sha256: Hash of the weights (of the file where there is one).
        state: What yoloquant stored in the checkpoint; empty for a plain one.
        unsafe: Whether the file could only be read by running its pickled code.
        trained: Training arguments that say which classes it saw: ``single_cls`` and ``classes``.
        native: Quantizer state of Ultralytics' own QAT in a checkpoint (``quantization.importers.modelopt``).
        origin: The model that it was made from.
    """

    module: nn.Module
    task: Task
    names: tuple[str, ...]
    stride: int
    channels: int = 3
    imgsz: tuple[int, int] | None = None
    source: str = ""
    sha256: str = ""
    state: dict[str, Any] = field(default_factory=dict)
    unsafe: bool = False
    trained: dict[str, Any] = field(default_factory=dict)
    native: dict[str, Any] = field(default_factory=dict)
    origin: Origin = Origin("", "", "")

    @property
    def derived(self) -> bool:
        """Whether its weights are others than those of the model that it was made from."""
        # by weights and not by file: a copy under another name is the same model
        return bool(self.origin.weights) and self.origin.weights != weights_sha256(self.module)

    def allow_detections(self, count: int) -> None:
        """Let so many detections of an image count; the number stays with the model, in checkpoints too.

        An end-to-end head returns so many. Ultralytics' own default is 300, which crowded images exceed.
        """
        self.module.model[-1].max_det = count  # type: ignore[index,union-attr,assignment]

    def resolve_imgsz(self, imgsz: int | Sequence[int] | None = None) -> tuple[int, int]:
        """Choose the input size: the one asked for, else the one trained at, else the task's usual one.

        Args:
            imgsz: One number for a square, or height and width, in pixels.

        Returns:
            Height and width in pixels.

        Raises:
            UsageError: It is not a positive multiple of the stride.
        """
        return check_imgsz(imgsz or self.imgsz or spec_of(self.task).imgsz, self.stride)


def weights_sha256(module: nn.Module) -> str:
    """Hash of all weights in float32, whatever type they are stored in."""
    digest = hashlib.sha256()
    # sorted and in float32: the order of modules and half-precision files must not change the hash
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def model_info(host: HostModel, imgsz: tuple[int, int]) -> ModelInfo:
    """Describe what a runtime must know about a model at an input size."""
    head: Any = host.module.model[-1]  # type: ignore[index]
    # a classifier's head has none
    strides = tuple(int(s) for s in head.stride) if hasattr(head, "nl") else ()
    anchors = sum((imgsz[0] // s) * (imgsz[1] // s) for s in strides)
    kpt = getattr(head, "kpt_shape", None)
    return ModelInfo(
        task=host.task,
        names=host.names,
        imgsz=imgsz,
        stride=host.stride,
        strides=strides,
        reg_max=int(getattr(head, "reg_max", 1)),
        end2end=bool(getattr(head, "end2end", False)),
        # a small input has fewer places than the default asks for
        max_det=min(int(getattr(head, "max_det", 300)), anchors) if anchors else 0,
        channels=host.channels,
        kpt_shape=(int(kpt[0]), int(kpt[1])) if kpt is not None else None,
        # these heads predict keypoints and angles without the older ones' arithmetic behind them
        direct=any(kind.__name__ in {"Pose26", "OBB26"} for kind in type(head).__mro__),
    )


def head_note(host: HostModel) -> str:
    """Which head of a model that has two is run, for people; empty for a model with one."""
    head: Any = host.module.model[-1]  # type: ignore[index]
    if getattr(head, "one2one_cv2", None) is None or getattr(head, "cv2", None) is None:
        return ""
    if getattr(head, "end2end", False):
        return "the end-to-end (one-to-one) head ran, without NMS, as the checkpoint asks"
    return "the one-to-many head ran, with NMS, as the checkpoint asks; its end-to-end head was not used"
