"""The exception hierarchy. Every error says what it got, what is allowed and how to fix it."""

from __future__ import annotations


class YoloquantError(Exception):
    """Base class of every error that yoloquant raises on purpose."""


class UsageError(YoloquantError):
    """The request itself is wrong: an unknown name, a bad value, arguments that exclude each other."""


class ModelError(YoloquantError):
    """The model is missing, corrupt, not a YOLO, or holds something that cannot be quantized."""


class DataError(YoloquantError):
    """The data set is missing, unreadable, mislabelled, or would be scored on its own calibration images."""


class CalibrationError(YoloquantError):
    """Ranges cannot be found: too few images, or activations that are NaN, infinite or constant."""


class PlanError(YoloquantError):
    """A quantization plan does not fit the model or the target that it is used with."""


class ArtifactError(YoloquantError):
    """An artifact is damaged, incomplete or of another version."""


class TargetError(YoloquantError):
    """A target could not build or run its artifact."""


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


class OutputError(YoloquantError):
    """The output folder cannot be written: read-only, full, or a file is in its place."""


class TrainingError(YoloquantError):
    """Training cannot go on."""
