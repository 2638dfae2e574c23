"""Detection: boxes, compared by their IoU."""

from __future__ import annotations

from typing import ClassVar, Tuple

from ..core.model_info import Task
from .anchors import BOX, AnchorTask, ap_metrics
from .base import Metric, Similarity


class Detect(AnchorTask):
    """Boxes with classes; every rule is the common one of tasks with anchors."""

    task: ClassVar[Task] = Task.DETECT
    metrics: ClassVar[Tuple[Metric, ...]] = ap_metrics("", "")
    similarities: ClassVar[Tuple[Similarity, ...]] = (BOX,)
    branches: ClassVar[Tuple[str, ...]] = ("box", "score")
