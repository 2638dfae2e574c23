"""Runtimes behind one interface, found by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from ..core.model_info import ModelInfo
from ..errors import UsageError
from .base import Backend, BackendOptions

BACKENDS = {
    "litert": "LiteRTBackend",
    "onnxruntime": "OnnxRuntimeBackend",
    "openvino": "OpenVinoBackend",
    "tensorrt": "TensorRTBackend",
}
"""Name of every backend, which is that of its module, and its class: ``Class(path, info, options)``."""

__all__ = ["BACKENDS", "Backend", "BackendOptions", "backend_class", "open_backend"]


def open_backend(name: str, path: Path, info: ModelInfo, options: BackendOptions | None = None) -> Backend:
    """Load a network.

    Args:
        name: Name of the backend.
        path: The file or folder that it loads.
        info: The model that it holds.
        options: How it is run.

    Raises:
        UsageError: There is no such backend, or an option is not one that it knows.
        MissingRuntimeError: Its library is not installed.
        ArtifactError: The file is missing or does not hold such a model.
        TargetError: The runtime refuses it.
    """
    opener: Callable[..., Backend] = backend_class(name)
    return opener(Path(path), info, options or BackendOptions())


def backend_class(name: str) -> type[Backend]:
    """The class of a backend; its library is not imported yet.

    Raises:
        UsageError: There is no such backend.
    """
    if name not in BACKENDS:
        raise UsageError(f"there is no backend '{name}'; there are {', '.join(BACKENDS)}")
    found: type[Backend] = getattr(importlib.import_module(f".{name}", __name__), BACKENDS[name])
    return found
