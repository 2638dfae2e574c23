"""What a search for layers in float is asked for, checked before any work starts."""

from __future__ import annotations

from ..options import option, option_model
from ..options.shared import AllowUnsafe, InputSize, MeasuredSplit
from .analyze_options import AnalysisKind, AnalysisMetric, AnalyzeOptions


@option_model
class FloatSearchOptions:
    """A search for the layers that must stay in float."""

    scheme: str = option(default="onnxruntime", help="quantization scheme: the runtime that the plan is for")
    fidelity: float | None = option(
        default=0.97,
        ge=0,
        le=1,
        help="smallest mAP50-95 against the float model's own detections; none to leave it out",
    )
    map_drop: float | None = option(
        default=None, ge=0, help="largest loss of mAP50-95 in points, for which labels are needed"
    )
    share: float = option(default=0.1, gt=0, le=1, help="largest share of the multiplications that may be in float")
    images: int = option(default=64, ge=2, help="images that the budget is measured on")
    ranking_images: int = option(default=8, ge=2, help="so many of them rank the layers")
    split: MeasuredSplit = "val"
    imgsz: InputSize = None
    training_images: int = option(default=64, ge=8, help="training images that calibrate a plain checkpoint")
    seed: int = option(default=0, help="chooses training images")
    allow_unsafe: AllowUnsafe = False

    def analysis(self, metric: AnalysisMetric) -> AnalyzeOptions:
        """The same for what an analysis shares with it."""
        return AnalyzeOptions(
            kind=AnalysisKind.QUANT, metric=metric, images=self.images, split=self.split, imgsz=self.imgsz
        )
