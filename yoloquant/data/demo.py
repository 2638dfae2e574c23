"""The demonstration: a small model that ships with the project, on images that it draws itself."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..io import output_folder, resource

# the size that demo.pt was trained at
IMGSZ = 320
IMAGES = 128


def generator() -> ModuleType:
    """The module that draws the demo set (``datasets/demo.py``), imported under a name of its own.

    The folder lies at the top of a checkout and inside an installed package, and other packages are called datasets.
    """
    name, folder = "yoloquant_datasets", resource("datasets")
    # once: a module that is executed twice has two of each class
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return importlib.import_module(f"{name}.demo")


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
