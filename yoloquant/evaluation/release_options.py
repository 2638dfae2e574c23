"""How two releases are compared; light enough for the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..options import Names, Text, TextOrNone, option, option_model
from ..predictions.prediction_options import ReadingChoices

WHAT = (
    "an artifact, an export folder, a checkpoint, a report's folder or its results.npz, or predictions (.json, .jsonl, "
    ".npz)"
)


@option_model
class ReleaseOptions:
    """Two releases, the images that they are compared on, and the gate."""

    old: Text = option(help=f"the last release: {WHAT}")
    new: Text = option(help="the new one, likewise")
    data: TextOrNone = option(
        default=None,
        help="data yaml with labels (a path, or a name such as coco128.yaml); what recorded results name if not given",
    )
    source: TextOrNone = option(default=None, help="folder of images without labels, instead of data")
    only: Names = option(default=(), help="rows to compare, where both hold several; all that both have if not given")
    gate: Any = option(
        default="release", help="names of gates, or paths, separated by commas; in Python also limits themselves"
    )
    split: str = option(default="val", help="split of the data yaml that is scored")
    limit: int | None = option(default=None, ge=1, help="score only so many images")
    conf: float = option(
        default=0.25,
        ge=0.001,
        le=0.99,
        help="confidence that is deployed: precision, recall, F1 and false alarms are measured at it",
    )
    threads: int | None = option(default=None, ge=1, help="threads of every runtime; all cores if not given")
    latency: bool = option(default=True, help="measure the latency of two artifacts in turn")
    bootstrap: int = option(default=1000, ge=100, help="replicates of the paired bootstrap")
    reading: ReadingChoices = option(default_factory=ReadingChoices, help="how files of predictions are read")
    report: Path | None = option(
        default=None, help="folder that the report is written to", flat="output", aliases=("report",), python_only=True
    )
