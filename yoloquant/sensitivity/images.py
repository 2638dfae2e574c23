"""The images of an analysis: those that are measured on, and training images for statistics and ranges."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..data.calibration import MIN_IMAGES, CalibrationOptions, CalibrationSet, calibration_set
from ..data.class_folders import is_split_root
from ..data.convert import is_foreign
from ..data.dataset import ValidationSet
from ..data.image_files import is_without_yaml
from ..errors import DataError, UsageError
from ..pruning.recalibrate_bn import stacked
from ..runtime.core.letterbox import Letterbox
from ..runtime.tasks import spec_of
from ..types import ModelInfo
from .analyze_options import AnalysisMetric, AnalyzeOptions


@dataclass(frozen=True)
class Images:
    """Images that every change is measured on, letterboxed once.

    Attributes:
        data: The images and their labels.
        info: The model that they are prepared for.
    """

    data: ValidationSet
    info: ModelInfo

    @cached_property
    def inputs(self) -> tuple[tuple[np.ndarray, Letterbox], ...]:
        """float32 (1, channels, height, width), 0 to 1, and where the image lies in it."""
        prepare = spec_of(self.info.task).prepare
        return tuple(prepare(self.data.read(i), self.info.imgsz) for i in range(len(self.data)))

    @cached_property
    def batches(self) -> tuple[torch.Tensor, ...]:
        """The same in batches."""
        return tuple(stacked(image for image, _ in self.inputs))


def open_images(data: str | os.PathLike[str] | None, options: AnalyzeOptions, info: ModelInfo) -> Images:
    """The images to measure on.

    Args:
        data: Data yaml, or a folder of images without labels.
        options: How many, and of which split.
        info: The model's description.

    Raises:
        UsageError: There is no data, or the metric does not suit the model.
        DataError: The data are missing, or have no labels or other classes though the metric needs them.
    """
    if data is None or not str(data):
        raise UsageError("an analysis needs data=<data yaml>, or a folder of images for metric=distill and fidelity")
    if is_folder(data):
        found = ValidationSet.from_folder(str(data), info.names)
    else:
        found = ValidationSet.open(str(data), info, split=options.split)
    # the first ones: the same images on every call, or the journal's measurements would not compare
    found = found.take(options.images)
    if options.metric is AnalysisMetric.MAP:
        if not found.labelled:
            raise DataError(
                f"metric=map needs labels, and the first {len(found)} images of '{found.source}' have none; use "
                "metric=distill or metric=fidelity, or more images"
            )
        # by name, as validation does, which refuses other classes: a label would count as whatever has its index
        found = found.for_classes(info.names)
    return Images(found, info)


def is_folder(data: str | os.PathLike[str]) -> bool:
    """Whether data are a folder of images without a yaml."""
    path = Path(data)
    # a classifier's splits and other formats are folders as well, and have labels
    return is_without_yaml(path) and not is_split_root(path) and not is_foreign(path)


def training_images(data: str | os.PathLike[str], options: AnalyzeOptions) -> CalibrationSet:
    """Training images for BatchNorm statistics or ranges; none that is measured on, unless that is the train split.

    Raises:
        DataError: There are none.
        CalibrationError: There are too few.
    """
    same = options.split == "train"
    chosen = CalibrationOptions(
        # the calibration set refuses fewer
        images=max(options.training_images, MIN_IMAGES),
        scored_split=options.split,
        seed=options.seed,
        allow_scored=same,
    )
    return calibration_set(data, chosen)
