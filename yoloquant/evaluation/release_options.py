"""How two releases are compared; light enough for the command."""

from __future__ import annotations

from ..options import Names, Text, TextOrNone, option, option_model
from ..options.shared import KeptResults, ReportFolder
from ..predictions.prediction_options import ReadingChoices
from .validate_options import GateNames, MeasuringOptions

WHAT = (
    "an artifact, an export folder, a checkpoint, a report's folder or its results.npz (also by its address), or "
    "predictions (.json, .jsonl, .npz)"
)


@option_model
class ReleasePair:
    """Two releases, and the images that they are compared on."""

    old: Text = option(help=f"the last release: {WHAT}")
    new: Text = option(help="the new one, likewise")
    data: TextOrNone = option(
        default=None,
        help="data yaml with labels (a path, or a name such as coco128.yaml); what recorded results name if not given",
    )
    source: TextOrNone = option(default=None, help="folder of images without labels, instead of data")
    only: Names = option(default=(), help="rows to compare, where both hold several; all that both have if not given")


@option_model
class ReleaseOptions(MeasuringOptions, ReleasePair):  # fields come in the order of the bases from right to left
    """Two releases, the images that they are compared on, and the gate."""

    gate: GateNames = "release"
    latency: bool = option(default=True, help="measure the latency of two artifacts in turn")
    reading: ReadingChoices = option(default_factory=ReadingChoices, help="how files of predictions are read")
    cache: KeptResults = True
    report: ReportFolder = None
