"""What an exported graph does besides the network: selecting detections, several images. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import UsageError
from ..runtime.core.detections import Selection
from ..types import ExportedModel, ModelInfo

NMS, BATCH, DYNAMIC, KEY = "nms", "batch", "dynamic", "graph"


@dataclass(frozen=True)
class GraphForm:
    """What a graph does besides the network.

    Attributes:
        nms: Whether it selects its detections.
        conf: Scores must be above it, for good.
        iou: Overlap above which the weaker box of a class is dropped.
        multi_label: Whether a box may be found once for each class, or only for its best one.
        max_det: Rows of its output; as many as the model itself has if None.
        batch: Images that it takes at a time.
        dynamic: Whether it takes any number of images; ``batch`` is then what others are told to give it at most.
    """

    nms: bool = False
    conf: float = Selection.conf
    iou: float = Selection.iou
    multi_label: bool = Selection.multi_label
    max_det: int | None = None
    batch: int = 1
    dynamic: bool = False

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of what a target must be able to do."""
        wanted = {NMS: self.nms, BATCH: self.batch > 1, DYNAMIC: self.dynamic}
        return tuple(name for name, asked in wanted.items() if asked)

    @property
    def several(self) -> bool:
        """Whether it takes another number of images than one."""
        return self.batch > 1 or self.dynamic

    @property
    def tag(self) -> str:
        """What a file's name says about it."""
        images = "-anybatch" if self.dynamic else f"-batch{self.batch}" if self.several else ""
        return f"{'-nms' if self.nms else ''}{images}"

    @property
    def selection(self) -> Selection:
        """How it selects; its rows are ``described(info).max_det``."""
        return Selection(self.conf, self.iou, multi_label=self.multi_label)

    def described(self, info: ModelInfo) -> ModelInfo:
        """A model as its export is: one that selects its detections needs no NMS behind it."""
        return replace(info, end2end=True, max_det=self.max_det or info.max_det) if self.nms else info

    def check(self, info: ModelInfo, target: str) -> None:
        """Raise UsageError if there is nothing in a model that its graph could select from."""
        from ..runtime.tasks import spec_of

        if not self.nms:
            return
        if info.end2end:
            raise UsageError("nms=true: this model's head selects its detections itself; leave nms= out")
        task = spec_of(info.task)
        if not task.suppressed:
            raise UsageError(
                f"nms=true: target '{target}' has NMS in the graph for upright boxes, and this model's task is "
                f"{info.task.value}; leave nms= out"
            )

    def notes(self, info: ModelInfo) -> tuple[str, ...]:
        """Remarks for people on an export of a model."""
        return (*self._selects(info), *self._takes())

    def _selects(self, info: ModelInfo) -> tuple[str, ...]:
        if not self.nms:
            return ()
        each = "once for each class" if self.multi_label else "for its best class alone"
        return (
            f"NMS is part of the graph, for good: scores above {self.conf:g}, overlap up to {self.iou:g}, a box "
            f"{each}, {self.described(info).max_det} rows",
        )

    def _takes(self) -> tuple[str, ...]:
        if self.dynamic:
            return (
                "takes any number of images, of one size; validation, predict and bench give it one at a time"
                + (f", Ultralytics up to {self.batch}" if self.batch > 1 else ""),
            )
        if self.several:
            return (
                f"takes {self.batch} images at a time; validation, predict and bench fill a single one up with empty "
                "ones, so that latency here is that of the whole batch",
            )
        return ()

    def to_metadata(self) -> dict[str, Any]:
        """It as an entry of an artifact's metadata; nothing for the network alone."""
        return {KEY: asdict(self)} if self.asked else {}


PLAIN = GraphForm()
"""The network alone."""


def form_of(exported: ExportedModel) -> GraphForm:
    """What an artifact's graph does besides the network."""
    return GraphForm(**exported.metadata.get(KEY, {}))
