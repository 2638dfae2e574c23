"""Runtimes behind one interface: every module beside this one holds one backend, under the module's own name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

from ..core.model_info import ModelInfo
from ..errors import UsageError
from .base import Backend, BackendOptions

__all__ = ["Backend", "BackendOptions", "backend_class", "backend_names", "open_backend"]


def open_backend(
    backend: str | type[Backend], path: Path, info: ModelInfo, options: BackendOptions | None = None
) -> Backend:
    """Load a network.

    Args:
        backend: Name of a backend, or the class of one that lives elsewhere.
        path: The file or folder that it loads.
        info: The model that it holds.
        options: How it is run.

    Raises:
        UsageError: There is no such backend, or an option is not one that it knows.
        MissingRuntimeError: Its library is not installed.
        ArtifactError: The file is missing or does not hold such a model.
        TargetError: The runtime refuses it.
    """
    kind = backend_class(backend) if isinstance(backend, str) else backend
    options, opener = options or BackendOptions(), cast("Callable[..., Backend]", kind)
    return opener(kind.form(Path(path), options.device), info, options)


def backend_names() -> tuple[str, ...]:
    """Names of all backends, sorted; importing none of them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"))


def backend_class(name: str) -> type[Backend]:
    """The class of a backend; its library is not imported yet.

    The name may come from a bundle, which nobody has to trust: only a module of this folder is ever imported for it.

    Raises:
        UsageError: There is no such backend.
    """
    if name not in backend_names():
        raise UsageError(f"there is no backend '{name}'; there are {', '.join(backend_names())}")
    module = importlib.import_module(f".{name}", __name__)
    for value in vars(module).values():
        # Defined here, not imported: `Backend` itself lies in every such module.
        if inspect.isclass(value) and issubclass(value, Backend) and value.__module__ == module.__name__:
            return value
    raise UsageError(f"the module '{name}' of the backends holds no class of one; copy the runtime again")
