"""Detection: boxes, compared by their IoU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Tuple

from ..core.model_info import ModelInfo, Task
from ..errors import DataError
from .anchors import BOX, AnchorTask, ap_metrics
from .base import Metric, Similarity


class Detect(AnchorTask):
    """Boxes with classes; every rule is the common one of tasks with anchors."""

    task: ClassVar[Task] = Task.DETECT
    metrics: ClassVar[Tuple[Metric, ...]] = ap_metrics("", "")
    similarities: ClassVar[Tuple[Similarity, ...]] = (BOX,)
    noun: ClassVar[str] = "detector"
    branches: ClassVar[Tuple[str, ...]] = ("box", "score")

    def check_data(self, content: Mapping[str, Any], source: str, info: ModelInfo) -> None:
        """See ``TaskSpec.check_data``: lines with keypoints would be read as polygons, and give other boxes."""
        if content.get("kpt_shape"):
            raise DataError(
                f"data yaml {source} describes keypoints (kpt_shape), but the model is a detect model, for which a "
                "label line is 'class x y width height'; score a pose model on it, or write labels without keypoints"
            )
