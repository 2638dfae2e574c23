"""Files of predictions as contenders: read, checked, and described for the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..data.dataset import ValidationSet
from ..errors import UsageError
from ..predictions.categories import ClassIds
from ..predictions.prediction_options import PredictionOptions, ReadingChoices
from ..predictions.prediction_set import PredictionFile
from ..predictions.read import ReadingOptions, read_predictions
from ..runtime.core.folder_check import file_sha256
from ..types import ModelInfo
from .verdict import ArtifactInfo

PREDICTIONS = "predictions"
"""What limits of a gate may call a contender of which only its results are known."""


def reading_options(choices: ReadingChoices) -> ReadingOptions:
    """How files are read, as the reader takes it."""
    annotations = Path(choices.annotations) if choices.annotations else None
    return ReadingOptions(ClassIds(choices.class_ids), annotations, choices.allow_missing)


def read_files(
    options: PredictionOptions, everything: ValidationSet, scored: int, info: ModelInfo
) -> Mapping[str, PredictionFile]:
    """Every file by the name of its row in the report.

    Args:
        options: The files, and how they are read.
        everything: All images of the data.
        scored: How many of them are scored.
        info: The FP32 model.

    Raises:
        UsageError: A file is given twice.
        YoloquantError: See ``read_predictions``.
    """
    reading = reading_options(options)
    files: dict[str, PredictionFile] = {}
    for text in options.predictions:
        name = f"{PREDICTIONS}:{Path(text).stem}"
        # Files of one name lie in several folders, as every program calls its results the same.
        if name in files:
            name = f"{PREDICTIONS}:{text}"
        if name in files:
            raise UsageError(f"predictions '{text}' are given twice")
        files[name] = read_predictions(Path(text), everything, scored, info, reading)
    return files


def prediction_info(file: PredictionFile) -> ArtifactInfo:
    """What the report says of a file of predictions."""
    return ArtifactInfo(
        path=file.path.name,
        scheme="",
        notes=(f"judged by its results alone, {file.form} made elsewhere", *file.notes),
        target=PREDICTIONS,
        sha256=file_sha256(file.path),
        latency_note="results alone were judged; measure latency on the device, with 'bench'",
    )
