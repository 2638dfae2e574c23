"""Data sets of other formats, each in a file of its own, read into a copy that Ultralytics reads too."""

from __future__ import annotations

import importlib
from functools import cache

from .base import DataFormat

FORMATS = (".coco_json:CocoJson", ".pascal_voc:PascalVoc", ".hugging_face:HuggingFace")
"""Where each format is read; the first that knows a data set reads it."""


@cache
def formats() -> tuple[DataFormat, ...]:
    """Every format."""
    found = (place.split(":") for place in FORMATS)
    # by name: one list says where formats are, and none is imported before data are opened
    return tuple(getattr(importlib.import_module(module, __name__), name)() for module, name in found)
