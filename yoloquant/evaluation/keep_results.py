"""Keeping a validation's results, image by image, for later comparisons that have neither the models nor the time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..predictions.results_file import ResultRow, ResultsHeader, storable, write_results
from ..runtime.core.model_info import ModelInfo
from .evaluate import Evaluation
from .results import RESULTS
from .verdict import ArtifactInfo

logger = logging.getLogger(__name__)


def keep_results(
    folder: Path, evaluation: Evaluation, facts: Mapping[str, ArtifactInfo], info: ModelInfo, made: Mapping[str, Any]
) -> Path | None:
    """Write the results of the baseline and of every artifact that got through.

    Args:
        folder: The report's folder.
        evaluation: What was measured.
        facts: What is known of each row.
        info: The baseline's description.
        made: Versions and hashes, as the report states them.

    Returns:
        The file; None where results cannot be kept (masks).

    Raises:
        OutputError: It cannot be written.
    """
    detections = {name: record.detections for name, record in evaluation.records.items()}
    if not all(storable(results) for results in detections.values()):
        logger.info("results with masks are not kept")
        return None
    # The baseline comes first: readers take the first row for what the others were held against. Then as they were
    # asked for, and not those that ran before those whose results were known.
    names = [n for n in dict.fromkeys((evaluation.options.baseline, *facts, *detections)) if n in detections]
    rows = tuple(_row(name, facts.get(name, ArtifactInfo())) for name in names)
    images = tuple((image.path.name, image.sha256) for image in evaluation.data.images)
    header = ResultsHeader(info, images, rows, evaluation.data.data_hash, made)
    write_results(folder / RESULTS, header, detections)
    return folder / RESULTS


def _row(name: str, facts: ArtifactInfo) -> ResultRow:
    latency = facts.latency.median_ms if facts.latency else None
    return ResultRow(name, facts.path, facts.sha256, facts.scheme, facts.size_bytes, latency, facts.weights)
