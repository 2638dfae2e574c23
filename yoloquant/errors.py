"""The exception hierarchy. Every error says what it got, what is allowed and how to fix it.

Those that running a model can raise are defined beside the runtime, which also lives without this package.
"""

from __future__ import annotations

# one tree: whoever catches YoloquantError catches the device runtime's, too
from .runtime.errors import (
    ArtifactError,
    BundleError,
    DataError,
    MissingRuntimeError,
    OutputError,
    SourceError,
    TargetError,
    UsageError,
    YoloquantError,
)

__all__ = [
    "ArtifactError",
    "BundleError",
    "CalibrationError",
    "ClusterError",
    "DataError",
    "MissingExtraError",
    "MissingRuntimeError",
    "ModelError",
    "OutputError",
    "PlanError",
    "PruneError",
    "SourceError",
    "TargetError",
    "TrainingError",
    "UsageError",
    "YoloquantError",
    "first_line",
]


class ModelError(YoloquantError):
    """The model is missing, corrupt, not a YOLO, or holds something that cannot be quantized."""


class CalibrationError(YoloquantError):
    """Ranges cannot be found: too few images, or activations that are NaN, infinite or constant."""


class PlanError(YoloquantError):
    """A quantization plan does not fit the model or the target that it is used with."""


class PruneError(YoloquantError):
    """A model cannot be pruned as asked; the message states the nearest that can be done."""


class MissingExtraError(TargetError):
    """A target's packages are not installed.

    Args:
        target: Name of the target.
        extra: The extra of this package that installs what is missing.
        module: The module that could not be imported.
    """

    def __init__(self, target: str, extra: str, module: str) -> None:
        super().__init__(
            f"target '{target}' needs the Python module '{module}', which is not installed; "
            f'install it with: pip install "yoloquant[{extra}]"'
        )
        self.target, self.extra, self.module = target, extra, module


class TrainingError(YoloquantError):
    """Training cannot go on."""


class ClusterError(YoloquantError):
    """Workers of a cluster are lost again and again."""


def first_line(exc: BaseException) -> str:
    """What a foreign error says in one line; its class where it says nothing."""
    text = str(exc).strip()
    return text.splitlines()[0] if text else type(exc).__name__
