"""The few functions of Ultralytics that validation stands on, behind names that stay put between its releases.

Everything is imported when it is first called, so importing this module loads neither torch nor Ultralytics.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

# those that not every OpenCV reads; the host falls back to Pillow
_HOST_FORMATS = frozenset({".avif", ".heic", ".heif"})

# Never let the host install a package by itself; it reads this once, at its own import.
os.environ.setdefault("YOLO_AUTOINSTALL", "false")


def attribute(*places: str) -> Any:
    """Return the first of several ``module:name`` that exists in the installed Ultralytics."""
    for place in places:
        module, name = place.split(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"this release of ultralytics has none of {', '.join(places)}; yoloquant needs ultralytics>=8.3")


def read_image(path: Path) -> np.ndarray | None:
    """Read an image as the host's data loader does: BGR uint8 (height, width, 3); None if it cannot be decoded.

    The rules are those of Ultralytics 8.4.190. Releases before 8.4.140 leave 16-bit TIFFs as they are, which looks
    uniformly grey to a model, and give one or four channels for others; so only formats that OpenCV cannot read are
    left to the host.
    """
    import cv2

    if path.suffix.lower() in _HOST_FORMATS:
        image = attribute("ultralytics.utils.patches:imread")(str(path), cv2.IMREAD_COLOR)
    else:
        image = _decode(path)
    if image is None:
        return None
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)  # the high byte, as the host does
    if image.ndim == 2 or image.shape[2] == 1:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    # alpha goes without being blended in, as in the host
    return np.ascontiguousarray(image[..., :3]) if image.dtype == np.uint8 else None


def _decode(path: Path) -> np.ndarray | None:
    import cv2

    try:
        content = np.fromfile(str(path), np.uint8)  # OpenCV's own reading fails on some characters in paths
        if not content.size:
            return None
        # as the host since 8.4.140: the first page of colour, unchanged, of which the high byte is taken above
        if path.suffix.lower() in {".tif", ".tiff"}:
            good, pages = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED)
            if good and pages and pages[0].ndim == 3 and pages[0].shape[2] >= 3:
                return np.asarray(pages[0])
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    return None if image is None else np.asarray(image)


def image_suffixes() -> frozenset[str]:
    """File suffixes of images, lower case and without a dot."""
    return frozenset(attribute("ultralytics.data.utils:IMG_FORMATS"))


def label_paths(images: list[Path]) -> list[Path]:
    """Path of each image's label file: the last ``/images/`` becomes ``/labels/``, the suffix ``.txt``."""
    # the host's own rule: our labels must be its labels
    img2label = attribute("ultralytics.data.utils:img2label_paths")
    return [Path(p) for p in img2label([str(p) for p in images])]


def renamed_classes(folders: list[str]) -> dict[str, str]:
    """Class names by the name of their folder where they differ: ImageNet's codes are read as the host reads them."""
    if not folders:
        return {}
    check = attribute("ultralytics.nn.autobackend:check_class_names")
    names = check(list(folders)).values()
    return {folder: name for folder, name in zip(folders, names, strict=True) if folder != name}


def datasets_folder() -> Path:
    """The folder that relative data set paths are looked up in (``yolo settings datasets_dir``)."""
    return Path(attribute("ultralytics.utils:DATASETS_DIR"))


def find_data_file(name: str) -> Path | None:
    """Find a data yaml by path or by the name of one that ships with the host; never downloads.

    Args:
        name: For instance ``coco8.yaml``, ``coco8`` or a path.
    """
    check_file = attribute("ultralytics.utils.checks:check_file")
    candidates = [name] if Path(name).suffix in {".yaml", ".yml"} else [f"{name}.yaml", f"{name}.yml"]
    for candidate in candidates:
        try:
            # it also searches the host's own folders, so ``coco8.yaml`` needs no path
            found = check_file(candidate, download=False, hard=False)
        except Exception:  # the host raises several types for names it cannot parse
            continue
        if isinstance(found, (str, Path)) and found and Path(found).is_file():
            return Path(found)
    return None
