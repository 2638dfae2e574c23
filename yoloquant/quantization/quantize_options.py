"""How a model is quantized after training; light enough for recipes and the command."""

from __future__ import annotations

from typing import Any

from ..data.calibration_options import CalibrationOptions
from ..options import option, option_model
from ..options.shared import AllowUnsafe, FloatLayers, InputSize, KeptResults, LayerPrecisions
from .range_options import CalibrationRecipe


@option_model
class QuantizeOptions:
    """How a model is quantized."""

    imgsz: InputSize = None
    calibration: CalibrationOptions = option(default_factory=CalibrationOptions, help="which images calibrate")
    ranges: CalibrationRecipe = option(default_factory=CalibrationRecipe, help="which algorithm finds which range")
    allow_unsafe: AllowUnsafe = False
    max_det: int | None = option(
        default=None,
        ge=1,
        help="detections per image that count, and that an end-to-end model returns; the checkpoint's own (300) if not "
        "given",
    )
    native_ranges: bool = option(
        default=True,
        help="take over the ranges of a checkpoint that Ultralytics' own QAT made; without this it is calibrated anew",
    )
    float_layers: FloatLayers = ()
    precision: LayerPrecisions = ()
    cache: KeptResults = True
    points: Any = option(
        default=None,
        help="function of graph and point that gives the representation of a point where it is to differ from the "
        "scheme's, for instance fewer bits",
        python_only=True,
    )
