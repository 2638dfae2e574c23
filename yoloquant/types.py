"""Vocabulary shared by every part: enums and frozen dataclasses without behaviour of their own.

Nothing here imports torch, Ultralytics or a runtime.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from .runtime.core.model_info import HeadLayout, ModelInfo, Task

__all__ = ["ExportedModel", "HeadLayout", "ModelInfo", "Task", "Verdict"]


class Verdict(str, Enum):
    """Outcome of a gate check, of one target, or of a whole validation."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"  # asked for, but could not be built or run; never a pass


@dataclass(frozen=True)
class ExportedModel:
    """An artifact on disk.

    Attributes:
        target: Name of the target that wrote it.
        path: The file or folder that the runtime loads.
        info: What the runtime must know about the model.
        layout: What its outputs hold.
        drop_in: Whether plain ``ultralytics.YOLO(path)`` loads it.
        precision: ``int8`` or ``fp32``.
        scheme: Name of the quantization scheme; empty for float.
        size_bytes: Size on disk.
        metadata: What was written into the artifact besides the model (versions, hashes, plan name).
        notes: Remarks a person should read, for instance points that had to be calibrated anew.
    """

    target: str
    path: Path
    info: ModelInfo
    layout: HeadLayout
    drop_in: bool = True
    precision: str = "int8"
    scheme: str = ""
    size_bytes: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
