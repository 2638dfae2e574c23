"""Reading a checkpoint without running code from it, for Ultralytics releases that cannot do so themselves.

PyTorch's restricted unpickler is given exactly the layer classes that the file names and that belong to torch or
Ultralytics; anything else in the file makes it refuse.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

_LAYERS = ("torch.nn.modules.", "ultralytics.nn.modules.", "ultralytics.nn.tasks.")
_PLAIN = frozenset({"ultralytics.utils.IterableSimpleNamespace"})
_HELPERS = ("ultralytics.utils.loss.", "ultralytics.utils.tal.")


def read_restricted(path: Path) -> Any:
    """Read a checkpoint with PyTorch's restricted unpickler.

    Args:
        path: A zip archive that ``torch.save`` wrote.

    Returns:
        Its content.

    Raises:
        pickle.UnpicklingError: It names something besides layers, tensors and plain data.
    """
    import torch

    named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    with torch.serialization.safe_globals([entry for entry in map(_resolve, named) if entry is not None]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _resolve(name: str) -> Any:
    """The class behind a name, if it is one that cannot do harm by being built."""
    from torch import nn

    module, _, attribute = name.rpartition(".")
    if not (name.startswith((*_LAYERS, *_HELPERS)) or name in _PLAIN):
        return None
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    if not isinstance(found, type):
        return None
    own = found.__module__ == module and not name.startswith(_LAYERS)
    return found if own or issubclass(found, nn.Module) else None
