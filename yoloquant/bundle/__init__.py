"""Bundles: one folder per device with the model, its runtime, golden inputs and everything that proves them.

Importing this package loads no runtime; each step loads what it needs.
"""

from __future__ import annotations

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
