"""The demonstration: small models that ship with the project, on images that it draws itself."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..io import output_folder, resource

# the size that demo.pt was trained at
IMGSZ = 320
IMAGES = 128


@dataclass(frozen=True)
class Demonstration:
    """One of the models that ship.

    Attributes:
        checkpoint: Its file in ``datasets/``.
        imgsz: Side of its images in pixels, the size that it was trained at.
        rotated: Whether objects lie at any angle and labels are rotated boxes.
    """

    checkpoint: str
    imgsz: int
    rotated: bool = False


DEMONSTRATIONS = {"detect": Demonstration("demo.pt", IMGSZ), "obb": Demonstration("demo-obb.pt", 224, rotated=True)}
"""By the task of the model."""


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


def prepare(folder: Path, task: str = "detect") -> dict[str, Any]:
    """Draw the demo set into a folder.

    Args:
        folder: Where to; images that are already there are kept.
        task: Which of ``DEMONSTRATIONS``.

    Returns:
        The recipe's model, data and calibration.

    Raises:
        OutputError: The folder cannot be written.
    """
    shown = DEMONSTRATIONS[task]
    data = generator().write_demo_set(
        output_folder(folder) / "data", train=IMAGES, val=IMAGES, imgsz=shown.imgsz, rotated=shown.rotated
    )
    return {
        "model": str(resource("datasets", shown.checkpoint)),
        "data": str(data),
        "imgsz": shown.imgsz,
        "calibration": {"images": 64},
    }
