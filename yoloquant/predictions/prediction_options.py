"""How files of predictions are read; light enough for the command."""

from __future__ import annotations

from typing import Literal

from ..options import ImageSize, Names, PathOrNone, option, option_model


@option_model
class ReadingChoices:
    """How files of predictions are read."""

    # texts and not the enum: importing that would load numpy for the command's help
    class_ids: Literal["auto", "zero", "one", "coco"] = option(
        default="auto",
        help="what category_id counts in COCO results: class indices from zero, from one, coco's own 1 to 90, or auto "
        "by the numbers that are there",
    )
    annotations: PathOrNone = option(
        default=None, help="COCO annotation file that says which image an image_id and which class a category_id is"
    )
    allow_missing: bool = option(
        default=False, help="take images without predictions for images where nothing was found"
    )
    imgsz: ImageSize = option(
        default=None, help="input size of the model where predictions alone are judged; its own if not given"
    )


@option_model
class PredictionOptions(ReadingChoices):
    """Which files of predictions are judged, and how they are read."""

    predictions: Names = option(
        default=(),
        help="files of predictions that were made elsewhere: COCO results (.json), JSON lines of predict (.jsonl), or "
        "recorded head outputs (.npz)",
    )
