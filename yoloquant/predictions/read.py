"""Reading a file of predictions, whatever wrote it, and holding it against the images that are scored."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import ValidationSet
from ..errors import DataError, UsageError
from ..runtime.core.detections import Detections
from ..runtime.core.model_info import ModelInfo
from .boxes import LOOKED_AT, check_numbers, check_places
from .categories import ClassIds
from .coco_file import CocoNames, read_coco
from .image_keys import ImageKeys
from .lines_file import read_lines
from .prediction_set import PredictionFile, PredictionSet
from .raw_file import RawOutputs
from .rows import detections_of, empty

logger = logging.getLogger(__name__)

FORMS = {".json": "COCO results", ".jsonl": "JSON lines", ".npz": "recorded head outputs"}
HIGHEST_CONF = 0.01
"""Lowest confidence of a file above which its mAP lacks the tail of every curve; validation goes down to 0.001."""
ABSENT = 0.1
"""Share of images that a COCO file may leave out because nothing was found there: it cannot say so."""


@dataclass(frozen=True)
class ReadingOptions:
    """How files of predictions are read.

    Attributes:
        class_ids: What category numbers stand for.
        annotations: COCO annotation file that says which file an image id and which class a category id stands for.
        allow_missing: Take images without predictions for images where nothing was found.
    """

    class_ids: ClassIds = ClassIds.AUTO
    annotations: Path | None = None
    allow_missing: bool = False


def read_predictions(
    path: Path,
    everything: ValidationSet,
    scored: int,
    info: ModelInfo,
    options: ReadingOptions | None = None,
) -> PredictionFile:
    """Read a file of predictions.

    Args:
        path: COCO results (``.json``), JSON lines (``.jsonl``) or recorded head outputs (``.npz``).
        everything: All images of the data; predictions on others are refused.
        scored: How many of them, from the first, are scored.
        info: The FP32 model that predictions are held against; its classes are theirs.
        options: How to read it.

    Raises:
        DataError: It is damaged, or about other images or classes; or boxes are in other coordinates.
        UsageError: The suffix is unknown.
    """
    options = options or ReadingOptions()
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"predictions '{path}' are of an unknown kind; allowed are {', '.join(FORMS)}")
    if not path.is_file():
        raise DataError(f"predictions '{path}' do not exist; write them with yoloquant predict ... output={path.name}")
    names = CocoNames.read(options.annotations)
    # all images of the data and not only the scored ones: predictions on the rest are no mistake
    images = ImageKeys([image.path for image in everything.images], scored, names.images)
    if path.suffix.lower() == ".npz":
        raw = RawOutputs(path, images, info)
        # certain: what was recorded is there, whether anything was found or not
        notes = _check_missing(images, raw.places, path, options, certain=True)
        return PredictionFile(path, form, raw, tuple(notes))
    if path.suffix.lower() == ".json":
        records, how = read_coco(path, images, info, options.class_ids, names)
        notes = [how]
    else:
        records, notes = read_lines(path, images, info), []
    notes += _check_missing(images, records, path, options, certain=path.suffix.lower() == ".jsonl")
    # scored ones alone: a file of the whole data set may be judged on a part
    found = {i: detections_of(records[i], info, path, images.images[i].name) for i in sorted(records) if i < scored}
    _check_boxes(found, everything, info, path)
    notes += _low(found, path)
    nothing = empty(info, path)
    model = PredictionSet(info, [found.get(i, nothing) for i in range(scored)])
    return PredictionFile(path, form, model, tuple(notes))


def _check_missing(
    images: ImageKeys, records: Mapping[int, Any], path: Path, options: ReadingOptions, *, certain: bool
) -> list[str]:
    """Refuse files that lack images; what was accepted, for the report.

    Args:
        images: The images.
        records: What the file holds.
        path: The file.
        options: What is allowed.
        certain: Whether the file names images where nothing was found, so that one that is not there was not tried.
    """
    missing = images.missing(records)
    if not missing:
        return []
    if not options.allow_missing and (certain or len(missing) > ABSENT * images.scored):
        _refuse_missing(missing, images, path)
    first = images.images[missing[0]].name
    text = f"{len(missing)} of {images.scored} images have no prediction in '{path.name}' (the first is {first})"
    return [f"{text}; they count as images where nothing was found"]


def _refuse_missing(missing: list[int], images: ImageKeys, path: Path) -> None:
    if missing:
        raise DataError(
            f"{len(missing)} of {images.scored} images have no prediction in '{path}' (the first is "
            f"{images.images[missing[0]].name}); predict on all of them, score fewer with limit=, or pass "
            "allow_missing=true if nothing was found there"
        )


def _check_boxes(found: Mapping[int, Detections], everything: ValidationSet, info: ModelInfo, path: Path) -> None:
    full = {i: d for i, d in found.items() if len(d)}
    if not full:
        return
    check_numbers(
        np.concatenate([d.xyxy for d in full.values()]), np.concatenate([d.confidence for d in full.values()]), path
    )
    # evenly spread, since reading every image for its size would take as long as validating
    chosen = sorted(full)[:: max(1, len(full) // LOOKED_AT)]
    sizes = {}
    for index in chosen:
        height, width = everything.read(index).shape[:2]
        sizes[index] = (height, width)
    check_places({i: full[i].xyxy for i in chosen}, sizes, info.imgsz, path)


def _low(found: Mapping[int, Detections], path: Path) -> list[str]:
    """A note where predictions were cut off far above what validation counts."""
    scores = [float(d.confidence.min()) for d in found.values() if len(d)]
    # without any result nothing can be said about where they were cut off
    if not scores or min(scores) <= HIGHEST_CONF:
        return []
    text = (
        f"the lowest confidence in '{path.name}' is {min(scores):.3g}, and mAP counts results from 0.001 on, so its "
        "drop is overstated; predict with conf=0.001 multi_label=true"
    )
    logger.warning(text)
    return [text]
