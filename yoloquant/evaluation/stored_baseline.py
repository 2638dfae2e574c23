"""The FP32 model's results from an earlier report, so that a pipeline need not run it again."""

from __future__ import annotations

import logging
from pathlib import Path

from ..data.dataset import ValidationSet
from ..errors import ArtifactError, DataError
from ..predictions.prediction_set import RecordedModel
from ..predictions.results_file import ResultsFile
from ..types import ModelInfo
from .fetch import fetch, is_address
from .lineage import SHORT

logger = logging.getLogger(__name__)


def stored_baseline(asked: str | Path | None) -> ResultsFile | None:
    """The results file that ``baseline=`` names; None if it names a checkpoint or nothing.

    Raises:
        DataError: It is missing, cannot be fetched, or is no results file.
    """
    if is_address(asked):
        return ResultsFile(fetch(str(asked)))
    if asked is None or Path(asked).suffix != ".npz":
        return None
    if not Path(asked).is_file():
        raise DataError(f"baseline '{asked}' does not exist; validate writes results.npz into its report's folder")
    return ResultsFile(Path(asked))


def stored_model(
    file: ResultsFile, images: ValidationSet, info: ModelInfo, sha256: str, *, allow_stale: bool
) -> tuple[RecordedModel, tuple[str, ...]]:
    """The baseline's recorded results, once they are proven to be this model's on these images.

    Args:
        file: The results; their first row is the baseline.
        images: What is scored.
        info: The FP32 model.
        sha256: Hash of its checkpoint.
        allow_stale: Take results of other weights.

    Returns:
        The results, and what a reader of the report must know.

    Raises:
        ArtifactError: They are another model's, or of another input size.
        DataError: They are of other images.
    """
    # The first row, which is the baseline of the report that it comes from.
    row, theirs = file.header.rows[0], file.header.info
    if theirs.names != info.names or theirs.task is not info.task:
        raise ArtifactError(
            f"baseline '{file.path}' holds results of a {theirs.task.value} model of {len(theirs.names)} classes, this "
            f"one is a {info.task.value} model of {len(info.names)}; record it anew with this model"
        )
    # at another size FP32 finds other things: a smaller one would hide what an artifact loses
    if theirs.imgsz != info.imgsz:
        (recorded_height, recorded_width), (height, width) = theirs.imgsz, info.imgsz
        raise ArtifactError(
            f"baseline '{file.path}' was recorded at an input of {recorded_height} x {recorded_width} pixels, and what "
            f"is judged has {height} x {width}; record it anew at that size"
        )
    notes = [f"the baseline's results were recorded earlier, in '{file.path.name}'"]
    # Its classes may be the same although it was trained on: only the hash tells.
    if row.sha256 != sha256:
        text = (
            f"baseline '{file.path}' holds results of '{row.path}' ({row.sha256[:SHORT] or 'unknown'}), and the FP32 "
            f"model is another ({sha256[:SHORT]})"
        )
        if not allow_stale:
            raise ArtifactError(f"{text}: record it anew, or pass allow_stale=true to compare with it all the same")
        logger.warning(text)
        notes.append(f"{text}; accepted by allow_stale=true")
    return file.model(row.name, images), tuple(notes)
