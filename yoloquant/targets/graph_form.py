"""What an exported graph does besides the network: selecting its detections. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import UsageError
from ..runtime.core.detections import Selection
from ..types import ExportedModel, ModelInfo

NMS, KEY = "nms", "graph"


@dataclass(frozen=True)
class GraphForm:
    """What a graph does besides the network.

    Attributes:
        nms: Whether it selects its detections.
        conf: Scores must be above it, for good.
        iou: Overlap above which the weaker box of a class is dropped.
        multi_label: Whether a box may be found once for each class, or only for its best one.
        max_det: Rows of its output; as many as the model itself has if None.
    """

    nms: bool = False
    conf: float = Selection.conf
    iou: float = Selection.iou
    multi_label: bool = Selection.multi_label
    max_det: int | None = None

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of what a target must be able to do."""
        return (NMS,) * self.nms

    @property
    def tag(self) -> str:
        """What a file's name says about it."""
        return "".join(f"-{name}" for name in self.asked)

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
        if not self.nms:
            return ()
        each = "once for each class" if self.multi_label else "for its best class alone"
        return (
            f"NMS is part of the graph, for good: scores above {self.conf:g}, overlap up to {self.iou:g}, a box "
            f"{each}, {self.described(info).max_det} rows",
        )

    def to_metadata(self) -> dict[str, Any]:
        """It as an entry of an artifact's metadata; nothing for the network alone."""
        return {KEY: asdict(self)} if self.asked else {}


PLAIN = GraphForm()
"""The network alone."""


def form_of(exported: ExportedModel) -> GraphForm:
    """What an artifact's graph does besides the network."""
    return GraphForm(**exported.metadata.get(KEY, {}))
