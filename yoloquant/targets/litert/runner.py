"""Run a ``.tflite`` on this machine's CPU through the LiteRT interpreter (XNNPACK kernels)."""

from __future__ import annotations

from pathlib import Path

from ...runtime.backends import BackendOptions, open_backend
from ...types import ModelInfo
from ..backend_runner import BackendRunner


class LiteRTRunner(BackendRunner):
    """A loaded ``.tflite``.

    Args:
        path: The file.
        info: The model that it holds.
        raw: Whether its outputs are the head's raw levels.
        threads: Threads of the interpreter; None uses every core.

    Raises:
        ArtifactError: The file does not hold such a model.
        TargetError: The interpreter cannot run it.
    """

    def __init__(self, path: Path, info: ModelInfo, *, raw: bool, threads: int | None = None) -> None:
        super().__init__(open_backend("litert", path, info, BackendOptions(threads=threads, raw=raw)))
