"""The LiteRT targets: a drop-in ``.tflite``, and one in pure integers for accelerators."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...errors import TargetError
from ...types import ExportedModel, HeadLayout, Task
from ..base import Capabilities, Runner, Target

if TYPE_CHECKING:
    from ...artifact import Artifact
    from .build import Variant

logger = logging.getLogger(__name__)


class LiteRTTarget(Target):
    """A ``.tflite`` with an integer body between a float input and a float decode tail.

    It is a drop-in: ``ultralytics.YOLO(path)`` loads it for predict and val, in the layout of Ultralytics' own LiteRT
    exports (NCHW input, boxes as fractions of the image).
    """

    name: ClassVar[str] = "litert"
    extra: ClassVar[str] = "litert"
    requires: ClassVar[tuple[str, ...]] = ("litert_torch",)
    runs_with: ClassVar[tuple[str, ...]] = ("ai_edge_litert",)
    scheme: ClassVar[str] = "litert"
    suffix: ClassVar[str] = ".tflite"
    capabilities: ClassVar[Capabilities] = Capabilities(tasks=(Task.DETECT,), devices=("raspberrypi", "android"))

    @classmethod
    def _variant(cls) -> Variant:
        from .build import Variant

        return Variant()
