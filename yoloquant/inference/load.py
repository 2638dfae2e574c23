"""An export as a function from images to detections, whatever runtime it is for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, UsageError
from ..runtime.apps.keys import RUNNING
from ..runtime.apps.running import Running
from ..runtime.apps.settings import VerbSettings
from ..runtime.core.detections import Detections
from ..runtime.io.images import read_image
from ..types import ExportedModel, ModelInfo
from .run_exports import ArtifactOpener, texts_of

if TYPE_CHECKING:
    from ..runtime.core.detector import Detector


@dataclass(frozen=True)
class ImageDetections(Detections):
    """Detections in pixels of the image; ``xyxy``, ``confidence`` and ``class_id`` as in ``supervision``."""

    # with every result: results are passed on without the model that they are of
    names: tuple[str, ...] = ()

    @property
    def class_name(self) -> list[str]:
        """The name of every detection's class."""
        # an export of another program may name fewer classes than it finds
        return [self.names[i] if i < len(self.names) else str(i) for i in self.class_id.tolist()]

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections``, with class names in ``data``.

        Raises:
            UsageError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as exc:
            raise UsageError(
                "to_supervision() needs the package supervision, which is not installed; install it with: "
                "pip install supervision"
            ) from exc
        return supervision.Detections(
            xyxy=self.xyxy,
            confidence=self.confidence,
            class_id=self.class_id.astype(int),
            data={"class_name": np.array(self.class_name, dtype=str)},
        )


class LoadedModel:
    """A loaded export; use it in ``with``, or call ``close``.

    Attributes:
        info: Task, class names and input size.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.info: ModelInfo = detector.info

    def __call__(self, images: Any) -> Any:
        """Detect.

        Args:
            images: The path of an image, an array (height, width, 3) uint8 in BGR as OpenCV reads it, or several of
                these.

        Returns:
            What was found in the image; a list for several.

        Raises:
            DataError: An image cannot be read, or an array is no image.
        """
        # a text is iterable, too: a path must not be taken for a list of letters
        if isinstance(images, (str, os.PathLike, np.ndarray)) and not _stacked(images):
            return self._one(images)
        if not isinstance(images, (Iterable, np.ndarray)):
            raise UsageError(f"got {type(images).__name__}; give the path of an image, an array, or several of these")
        return [self._one(image) for image in images]

    def _one(self, image: Any) -> ImageDetections:
        found = self._detector(_pixels(image))
        return ImageDetections(**vars(found), names=tuple(self.info.names))

    def close(self) -> None:
        """Free the runtime."""
        self._detector.close()

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        height, width = self.info.imgsz
        return f"LoadedModel({self.info.task.value}, {len(self.info.names)} classes, {height} x {width} px)"


def _stacked(images: Any) -> bool:
    return isinstance(images, np.ndarray) and images.ndim == 4


def _pixels(image: Any) -> np.ndarray:
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise DataError(
                f"got an array of shape {image.shape} and type {image.dtype}; allowed is (height, width, 3) uint8, BGR"
            )
        return image
    return read_image(image)


def load(export: str | os.PathLike[str] | ExportedModel, **keywords: Any) -> LoadedModel:
    """Load an export, to run it on images.

    Args:
        export: An artifact in its export folder, a folder that holds one, a bundle, or an ``ExportedModel``.
        **keywords: ``conf``, ``iou``, ``max_det``, ``threads``, ``device``, ``hint``, ``precision``, as in ``predict``.

    Returns:
        The model, which is called with images.

    Raises:
        ArtifactError: It is missing or damaged, or nobody knows what it holds.
        UsageError: A keyword is unknown, or the artifact does not run as it is.
        TargetError: The runtime refuses it.
    """
    path = export.path if isinstance(export, ExportedModel) else Path(export)
    # through the verb's own reader: one place knows names, types and limits
    running = Running.parse(VerbSettings(texts_of(keywords), RUNNING, "load"))
    return LoadedModel(ArtifactOpener(str(path), running)())
