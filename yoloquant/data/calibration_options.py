"""Which images calibrate."""

from __future__ import annotations

from ..options import option, option_model

DEFAULT_IMAGES = 128
# a percentile or a histogram of fewer images is that of its one odd image
MIN_IMAGES = 8


@option_model
class SampleOptions:
    """How many images calibrate, and which."""

    images: int = option(
        default=DEFAULT_IMAGES, ge=MIN_IMAGES, help="how many training images calibrate; all there are if fewer"
    )
    split: str = option(default="train", help="split of the data yaml that calibrates", flat="calibration_split")
    seed: int = option(default=0, help="chooses the calibration images")
    allow_scored: bool = option(
        default=False, help="calibrate even on images that will be scored; the scores then flatter the model"
    )


@option_model
class CalibrationOptions(SampleOptions):
    """Which images calibrate, apart from those that exports will be scored on."""

    scored_split: str = option(
        default="val", help="split that exports will be scored on; none of its images calibrates", python_only=True
    )
