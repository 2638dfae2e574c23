"""Accuracy of a detector on a labelled data set, as ``yoloquant validate`` measures it on the machine that exports."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.detections import Selection
from ..core.detector import Detector
from ..core.matching import Truth, match, size_index
from ..core.metrics import ap_table, class_scores
from ..errors import DataError
from ..io.labels import read_labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({"bmp", "jpeg", "jpg", "jp2", "png", "tif", "tiff", "webp"})
"""Files that are taken for images: those of Ultralytics' that OpenCV reads."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on a data set.

    Attributes:
        map50_95: Mean over classes of AP, averaged over the IoU thresholds 0.5 to 0.95; 0 to 1.
        map50: The same at IoU 0.5.
        images: Images scored.
    """

    map50_95: float
    map50: float
    images: int


def measure(
    detector: Detector,
    folder: str | PathLike[str],
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Measure mean average precision with the settings of Ultralytics' validator, whatever the detector's own are.

    Args:
        detector: The model.
        folder: A data set in YOLO layout, ``images/...`` beside ``labels/...``, or its yaml (needs PyYAML). Where a
            folder has several splits, ``val`` is taken.
        limit: Score only so many images, the first by path.
        progress: Called after every image with images done and images in all.

    Raises:
        DataError: There are no images or labels, or one is unreadable.
        TargetError: The runtime failed.
    """
    images = find_images(Path(folder))[:limit]
    found, matches, truths = [], [], []
    for index, path in enumerate(images):
        classes, boxes = read_labels(label_path(path), len(detector.info.names))
        tensor, where = detector.preprocess(read_image(path))
        found.append(detector.select(detector.infer(tensor), Selection()))
        corners = where.to_input(boxes)
        truths.append(Truth(corners, classes, size_index(corners, where.area_scale)))
        matches.append(match(found[-1], truths[-1], where.area_scale))
        if progress is not None:
            progress(index + 1, len(images))
    if not any(len(truth.classes) for truth in truths):
        raise DataError(f"'{folder}' has no labels beside its images; each images/x.jpg needs a labels/x.txt")
    table = ap_table(class_scores(found, matches, truths), np.ones((1, len(images))))
    return Accuracy(float(table.map50_95[0]), float(table.map50[0]), len(images))


def find_images(source: Path) -> list[Path]:
    """The images of a data set, by path; see ``measure``.

    Raises:
        DataError: There are none.
    """
    roots = _split_of_yaml(source) if source.suffix in {".yaml", ".yml"} else [_split_of_folder(source)]
    images = sorted((p for root in roots for p in _listed(root)), key=str)
    if not images:
        raise DataError(f"'{source}' holds no images: looked in {', '.join(map(str, roots))}")
    return images


def _split_of_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"'{folder}' is not a folder; name one that holds images/ and labels/, or a data yaml")
    images = folder / "images" if (folder / "images").is_dir() else folder
    splits = sorted(p for p in images.iterdir() if p.is_dir() and p.name.startswith("val"))
    if len(splits) > 1:
        raise DataError(f"'{images}' has several splits for validation, {', '.join(p.name for p in splits)}; name one")
    return splits[0].resolve() if splits else images.resolve()


def _split_of_yaml(file: Path) -> list[Path]:
    content = _read_yaml(file)
    value = content.get("val") or content.get("validation")
    if not value:
        raise DataError(f"data yaml {file} has no split 'val'")
    entries = [Path(str(entry)) for entry in (value if isinstance(value, list) else [value])]
    root = Path(str(content.get("path") or file.parent))
    near = file.parent / root  # a relative 'path:' means the working folder, or else the yaml's own
    if not all((root / entry).exists() for entry in entries) and all((near / entry).exists() for entry in entries):
        root = near
    paths = [(root / entry).resolve() for entry in entries]
    for path in paths:
        if not path.exists():
            raise DataError(f"data yaml {file}: split 'val' points to {path}, which does not exist; correct 'path:'")
    return paths


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as exc:
        raise DataError(f"reading {file} needs PyYAML, which is not installed; name the data set's folder") from exc
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise DataError(f"data yaml {file} cannot be read: {exc}") from exc
    if not isinstance(content, dict):
        raise DataError(f"data yaml {file} must hold keys such as 'path' and 'val'")
    return content


def _listed(path: Path) -> list[Path]:
    """Images of a folder, of a list of paths in a text file, or one image."""
    if path.is_dir():
        files = list(path.rglob("*.*"))
    elif path.suffix == ".txt":
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        files = [path.parent / line[2:] if line.startswith("./") else Path(line) for line in lines if line]
    else:
        files = [path]
    return [file for file in files if file.suffix[1:].lower() in SUFFIXES]


def label_path(image: Path) -> Path:
    """Path of an image's label file: the last ``/images/`` becomes ``/labels/``, the suffix ``.txt``."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_image(path: Path) -> np.ndarray:
    """Decode an image: BGR uint8 (height, width, 3).

    Raises:
        DataError: It cannot be read or decoded.
    """
    import cv2

    try:
        content = np.fromfile(str(path), dtype=np.uint8)  # OpenCV's own reading fails on some characters in paths
    except OSError as exc:
        raise DataError(f"image {path} cannot be read: {exc}") from exc
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise DataError(f"image {path} cannot be decoded; replace or remove it")
    return np.asarray(image)
