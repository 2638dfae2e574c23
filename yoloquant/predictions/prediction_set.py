"""What a file of predictions holds, on the images that are scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.core.detections import Detections
from ..runtime.core.letterbox import Letterbox
from ..runtime.core.model_info import ModelInfo
from ..runtime.tasks import spec_of


class RecordedModel(ABC):
    """A model's results, which were recorded elsewhere, image by image.

    Attributes:
        info: What the model was.
    """

    info: ModelInfo

    @abstractmethod
    def on(self, index: int, where: Letterbox) -> Detections:
        """Its results on one image.

        Args:
            index: Place of the image among those that are scored.
            where: Where the image lies in the input that results are compared in.

        Returns:
            Results by falling confidence, in input pixels.

        Raises:
            YoloquantError: What was recorded is not usable.
        """

    def size(self, index: int) -> tuple[int, int] | None:
        """Height and width of an image as it was decoded then; None if that is not known."""
        return None


@dataclass(frozen=True)
class PredictionSet(RecordedModel):
    """Results in the pixels of the original images.

    Attributes:
        info: The model that they are compared with.
        found: Of every image, by falling confidence.
    """

    info: ModelInfo
    found: Sequence[Detections]

    def on(self, index: int, where: Letterbox) -> Detections:
        """See ``RecordedModel.on``."""
        # compared in the input's pixels, as everything that runs here is
        return spec_of(self.info.task).to_input(self.found[index], where)


@dataclass(frozen=True)
class PredictionFile:
    """A file of predictions, read.

    Attributes:
        path: The file.
        form: What it is, in words.
        model: The results.
        notes: What a reader of their scores must know.
    """

    path: Path
    form: str
    model: RecordedModel
    notes: tuple[str, ...] = ()


def sorted_by_confidence(found: Detections) -> Detections:
    """Results by falling confidence; equal ones stay in order."""
    # stable: of equal scores the file's order is what its maker's own NMS had
    return found.take(np.argsort(-found.confidence, kind="stable"))
