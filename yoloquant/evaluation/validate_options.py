"""How artifacts are judged; light enough for recipes and the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from ..options import Text, option, option_model, shared_option
from ..options.shared import ClusterAddress, KeptResults, ReportFolder
from ..options.where import Where, refuse_for_ray
from ..predictions.prediction_options import PredictionOptions
from .match_by import USUAL, MatchBy

GateNames = Annotated[
    Any, shared_option(help="names of gates, or paths, separated by commas; in Python also limits themselves")
]
ScoredImages = Annotated[int | None, shared_option(help="score only so many images", ge=1)]
Processors = Annotated[
    Text,
    shared_option(
        help="processors to judge on, separated by commas: native (this one), avx2 (x86 without VNNI), aarch64"
    ),
]
DeviceRoot = Annotated[
    str | Path | None,
    shared_option(help="root of aarch64's Python and runtimes, as tools/make_device_root.py makes it"),
]


@option_model
class MeasuringOptions:
    """What is measured on scored images, and which gate decides on it, whatever is compared."""

    gate: GateNames = "default"
    split: str = option(default="val", help="split of the data yaml that is scored")
    limit: ScoredImages = None
    # Not below 0.001: under that nothing is selected, so nothing could be counted.
    conf: float = option(
        default=0.25,
        ge=0.001,
        le=0.99,
        help="confidence that is deployed: precision, recall, F1 and false alarms are measured at it",
    )
    match: MatchBy = option(
        default=USUAL,
        help="what an export does as FP32 does at its matched confidence: reach the F1, or raise false alarms; without "
        "labels it finds as much",
    )
    threads: int | None = option(default=None, ge=1, help="threads of every runtime; all cores if not given")
    # At least what gates ask for by default (`min_replicates`): with fewer there is no verdict.
    bootstrap: int = option(default=1000, ge=100, help="replicates of the paired bootstrap")


@option_model
class ScoringOptions(MeasuringOptions):
    """By what artifacts are judged, and what of them is measured."""

    latency: bool = option(default=True, help="measure latency beside a float model in the same runtime")
    memory: bool = option(default=True, help="measure peak memory of every artifact in a process of its own")
    coco_eval: bool = option(
        default=False, help="also report pycocotools' mAP of the same boxes, masks and keypoints, and why it differs"
    )
    manifest: str | Path | None = option(default=None, help="manifest (json) that the images are held against")
    cpu: Processors = "native"
    cpu_root: DeviceRoot = None


@option_model
class ValidateOptions(ScoringOptions):
    """How artifacts are judged, and where that is written."""

    baseline: str | Path | None = option(
        default=None,
        help="checkpoint of the FP32 model to compare with, or results.npz of an earlier report, a file or an https "
        "address, which holds its results; the one that the model was made from if not given",
    )
    allow_stale: bool = option(default=False, help="score artifacts of other weights than the model's")
    allow_scored: bool = option(default=False, help="score artifacts even on images that calibrated them")
    recorded: PredictionOptions = option(
        default_factory=PredictionOptions, help="which files of predictions are judged too"
    )
    on: Where = option(default=Where.LOCAL, help="local, or ray: workers of a Ray cluster score the images")
    shards: int | None = option(
        default=None, ge=1, help="with on=ray: how many parts; as many as the cluster can score at a time if not given"
    )
    address: ClusterAddress = None
    cache: KeptResults = True
    report: ReportFolder = None

    def __post_init__(self) -> None:
        refuse_for_ray(self.on, shards=self.shards, address=self.address)
