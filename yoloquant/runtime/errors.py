"""The exceptions that running a model can raise. Every one says what it got, what is allowed and how to fix it."""

from __future__ import annotations


class YoloquantError(Exception):
    """Base class of every error that yoloquant raises on purpose."""


class UsageError(YoloquantError):
    """The request itself is wrong: an unknown name, a bad value, arguments that exclude each other."""


class DataError(YoloquantError):
    """The data set is missing, unreadable, mislabelled, or would be scored on its own calibration images."""


class ArtifactError(YoloquantError):
    """An artifact is damaged, incomplete or of another version."""


class BundleError(ArtifactError):
    """A bundle is damaged, incomplete, changed after its export, or of another version."""


class TargetError(YoloquantError):
    """A target could not build or run its artifact."""


class MissingRuntimeError(TargetError):
    """The library that runs an artifact is not installed.

    Args:
        backend: Name of the backend that needs it.
        module: The module that could not be imported.
        fix: How to install it.
    """

    def __init__(self, backend: str, module: str, fix: str) -> None:
        super().__init__(f"backend '{backend}' needs the Python module '{module}', which is not installed; {fix}")
        self.backend, self.module, self.fix = backend, module, fix


class SourceError(YoloquantError):
    """A camera, video or stream cannot be opened, stalled, or broke off."""


class OutputError(YoloquantError):
    """The output folder cannot be written: read-only, full, or a file is in its place."""
