"""Running an exported model: the same code in the package and, as ``yoloquant_runtime``, in a bundle on the device.

It needs the standard library, numpy and OpenCV; the library of a runtime is imported when a model is loaded.
"""

from __future__ import annotations

import os
import sys

if "." not in __name__:  # a bundle: its folder may hold files named like modules, which must not take their place
    _FOLDER = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    sys.path[:] = [*(place for place in sys.path if os.path.realpath(place or ".") != _FOLDER), _FOLDER]

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from .core.detector import Detector

__all__ = ["load"]


def load(
    path: str | PathLike[str],
    *,
    threads: int | None = None,
    device: str = "",
    conf: float = 0.25,
    iou: float = 0.7,
    max_det: int = 300,
) -> Detector:
    """Load a bundle, once its files are proven to be those that were exported.

    Args:
        path: The bundle's folder.
        threads: Threads of one inference; None uses every core.
        device: Which device of the runtime; empty for its usual one.
        conf: Lowest score of a detection.
        iou: Overlap above which the weaker box of one class is dropped.
        max_det: Detections per image.

    Raises:
        BundleError: A file is missing or was changed.
        MissingRuntimeError: The runtime's library is not installed.
        TargetError: The runtime refuses the model.
    """
    # Inside: `info` and the check of a bundle's files import this package first, and must do without numpy.
    from pathlib import Path

    from .backends import BackendOptions, open_backend
    from .core.bundle_manifest import model_path, read
    from .core.detections import Selection
    from .core.detector import Detector

    # One class for a box: what an application wants, and what Ultralytics' predict gives; validation differs.
    selection = Selection(conf=conf, iou=iou, max_det=max_det, multi_label=False)
    folder = Path(path)
    manifest = read(folder)
    options = BackendOptions(threads=threads, device=device, raw=manifest.raw)
    model = model_path(folder, manifest)
    return Detector(open_backend(manifest.backend, model, manifest.info, options), selection)
