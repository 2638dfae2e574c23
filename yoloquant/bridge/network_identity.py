"""What makes two networks the same in every result: the key under which results of a model are kept."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.core.folder_check import file_sha256
from .host_model import HostModel, weights_sha256

if TYPE_CHECKING:
    from torch import nn

_CODE = ("torch.", "ultralytics.", "yoloquant.")
"""Where classes come from whose code the versions of installed packages, or this package's own code, stand for."""
_PLAIN = (bool, int, float, str, type(None), tuple, list)
_UNTOLD = frozenset({"pt_path", "shape", "training"})
"""Attributes that say where a module was, not what it computes."""


def network_identity(model: HostModel) -> dict[str, Any] | None:
    """Everything of a model that decides its results at some input size, and what exports say of it.

    Returns:
        Plain data; None where no data could tell: layers are of somebody's own classes, whose code may change, or call
        functions that were hung on them.
    """
    if model.unsafe or not all(_is_told(m) for m in model.module.modules()):
        return None
    digest = hashlib.sha256()
    # settings besides weights: kernels and strides, thresholds of heads, which head of two runs
    for name, module in model.module.named_modules():
        kept = {k: v for k, v in vars(module).items() if isinstance(v, _PLAIN) and k not in _UNTOLD}
        digest.update(
            f"{name}\0{type(module).__module__}.{type(module).__qualname__}\0{sorted(kept.items())!r}\n".encode()
        )
    sources = {type(m).__module__ for m in model.module.modules() if not type(m).__module__.startswith("torch.")}
    return {
        "weights": weights_sha256(model.module),
        "settings": digest.hexdigest(),
        # many work on a copy of Ultralytics, whose version stays as it is
        "code": {name: file_sha256(Path(str(sys.modules[name].__file__))) for name in sorted(sources)},
        "task": model.task,
        "names": model.names,
        "channels": model.channels,
        "sha256": model.sha256,
        "origin": model.origin,
        "trained": model.trained,
    }


def _is_told(module: nn.Module) -> bool:
    """Whether a module computes what its class says."""
    own = vars(module)
    hooked = any(own.get(hooks) for hooks in ("_forward_hooks", "_forward_pre_hooks"))
    # what Ultralytics stores in some heads is their class's own method
    forward = own.get("forward")
    swapped = forward is not None and getattr(forward, "__func__", None) is not type(module).forward
    return f"{type(module).__module__}.".startswith(_CODE) and not hooked and not swapped
