"""How a model is quantized after training; light enough for recipes and the command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..data.calibration import CalibrationOptions
from .observers import CalibrationRecipe

if TYPE_CHECKING:
    from ..graph.trace import Graph
    from .plan import Point
    from .qparams import QuantSpec


@dataclass(frozen=True)
class QuantizeOptions:
    """How a model is quantized.

    Attributes:
        imgsz: Input size in pixels, one number or height and width; the checkpoint's own by default.
        calibration: Which images calibrate.
        ranges: Which algorithm finds which range.
        allow_unsafe: Read checkpoints that can run code.
        native_ranges: Take over the ranges of a checkpoint that Ultralytics' own QAT made; without this it is
            calibrated like any other.
        points: Representation of each point where it is to differ from the scheme's, for instance fewer bits.
    """

    imgsz: int | Sequence[int] | None = None
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    ranges: CalibrationRecipe = field(default_factory=CalibrationRecipe)
    allow_unsafe: bool = False
    native_ranges: bool = True
    points: Callable[[Graph, Point], QuantSpec] | None = None
