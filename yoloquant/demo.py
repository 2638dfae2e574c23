"""The demonstration: a small model that ships with the project, on images that it draws itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from .resources import resource
from .writing import output_folder

IMGSZ = 320
IMAGES = 128


def generator() -> ModuleType:
    """The module that draws the demo set (``datasets/demo.py``)."""
    spec = importlib.util.spec_from_file_location("yoloquant_demo_set", resource("datasets", "demo.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(folder: Path) -> dict[str, Any]:
    """Draw the demo set into a folder.

    Args:
        folder: Where to; images that are already there are kept.

    Returns:
        The recipe's model, data and calibration.

    Raises:
        OutputError: The folder cannot be written.
    """
    data = generator().write_demo_set(output_folder(folder) / "data", train=IMAGES, val=IMAGES, imgsz=IMGSZ)
    return {
        "model": str(resource("datasets", "demo.pt")),
        "data": str(data),
        "imgsz": IMGSZ,
        "calibration": {"images": 64},
    }
