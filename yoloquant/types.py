"""Vocabulary shared by every part: enums and frozen dataclasses without behaviour of their own.

Nothing here imports torch, Ultralytics or a runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

# defined beside the device runtime, which knows nothing of this package
from .runtime.core.model_info import HeadLayout, ModelInfo, Task

if TYPE_CHECKING:
    from .targets.exports import ExportResult

__all__ = ["AfterEpoch", "ExportedModel", "HeadLayout", "Listener", "ModelInfo", "Progress", "Task", "Verdict"]

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is being done."""


AfterEpoch = Callable[[int, float], None]
"""Called with the number of an epoch that is done, from 1, and its score (larger is better)."""


class Listener(Protocol):
    """What a run tells while it works."""

    def stage(self, name: str) -> AbstractContextManager[Progress | None]:
        """Surround a stage that takes a while; its progress is reported to what this yields."""

    def note(self, text: str) -> None:
        """Take a line about what a stage made."""

    def exported(self, exports: ExportResult) -> None:
        """Take the list of artifacts, before they are judged."""


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
        precision: ``int8``, ``fp32``, ``fp16``, ``dynamic`` or ``weights``; see ``targets.base``.
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

    @property
    def name(self) -> str:
        """What reports call it: its target, and its precision unless that is the usual one."""
        return self.target if self.precision == "int8" else f"{self.target}:{self.precision}"
