"""Bundles: one folder per device with the model, its runtime, golden inputs and everything that proves them.

Importing this package loads nothing; each name loads what it needs, so that the command's help needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .archive import pack
    from .bundle_options import Bundle, BundleOptions
    from .devices import BundleDevice, all_devices, device_named, resolve
    from .maker import make
    from .writer import write

__all__ = [
    "Bundle",
    "BundleDevice",
    "BundleOptions",
    "all_devices",
    "device_named",
    "make",
    "pack",
    "resolve",
    "write",
]

_WHERE = {
    "Bundle": "bundle_options",
    "BundleDevice": "devices",
    "BundleOptions": "bundle_options",
    "all_devices": "devices",
    "device_named": "devices",
    "make": "maker",
    "pack": "archive",
    "resolve": "devices",
    "write": "writer",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'yoloquant.bundle' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
