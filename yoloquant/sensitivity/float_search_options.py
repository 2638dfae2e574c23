"""What a search for layers in float is asked for, checked before any work starts."""

from __future__ import annotations

from enum import Enum

from ..options import option, option_model
from ..options.kinds import NumberOrNone
from ..options.shared import AllowUnsafe, InputSize, MeasuredSplit
from .analyze_options import AnalysisKind, AnalysisMetric, AnalyzeOptions


class SearchGoal(str, Enum):
    """What layers in float are for."""

    ACCURACY = "accuracy"  # fidelity or mAP within a budget
    LATENCY = "latency"  # no layer slower in integers than in float


@option_model
class FloatSearchOptions:
    """A search for the layers that stay in float."""

    scheme: str = option(default="onnxruntime", help="quantization scheme: the runtime that the plan is for")
    goal: SearchGoal = option(
        default=SearchGoal.ACCURACY,
        help="accuracy: the fewest layers in float that meet the budget; latency: layers that the runtime itself "
        "measures slower in integers than in float",
    )
    fidelity: NumberOrNone = option(
        default=0.97,
        ge=0,
        le=1,
        allowed="a number from 0 to 1, or none",
        help="smallest mAP50-95 against the float model's own detections; none to leave it out",
    )
    map_drop: float | None = option(
        default=None,
        ge=0,
        help="largest loss of mAP50-95 in points, for which labels are needed; 1 is what a gate calls 0.01",
    )
    share: float = option(default=0.1, gt=0, le=1, help="largest share of the multiplications that may be in float")
    slower: float | None = option(
        default=None,
        ge=0,
        help="at most so many percent slower than without float layers: 10 allows 1.1 times the time; real exports are "
        "timed here",
    )
    images: int = option(
        default=64,
        ge=2,
        help="how many images of the split the budget is measured on, none of which calibrates (training_images=)",
    )
    ranking_images: int = option(default=8, ge=2, help="so many of them rank the layers")
    split: MeasuredSplit = "val"
    threads: int | None = option(
        default=None, ge=1, help="with goal=latency or slower=: threads of the runtime; all cores if not given"
    )
    imgsz: InputSize = None
    training_images: int = option(default=64, ge=8, help="training images that calibrate a plain checkpoint")
    seed: int = option(default=0, help="chooses training images")
    allow_unsafe: AllowUnsafe = False

    def analysis(self, metric: AnalysisMetric) -> AnalyzeOptions:
        """The same for what an analysis shares with it."""
        return AnalyzeOptions(
            kind=AnalysisKind.QUANT, metric=metric, images=self.images, split=self.split, imgsz=self.imgsz
        )
