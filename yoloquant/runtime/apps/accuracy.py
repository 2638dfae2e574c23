"""Accuracy of a model on a labelled data set, as ``yoloquant validate`` measures it on the machine that exports."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Tuple

import numpy as np

from ..core.class_order import class_order
from ..core.damaged import UNREADABLE
from ..core.detections import Selection
from ..core.detector import Detector
from ..core.matching import Matches
from ..errors import DataError
from ..io.images import read_image
from ..tasks import Task, spec_of
from ..tasks.base import Labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({"bmp", "jpeg", "jpg", "jp2", "png", "tif", "tiff", "webp"})
"""Files that are taken for images: those of Ultralytics' that OpenCV reads."""


SPLITS = frozenset({"val", "validation", "valid"})
"""Names of the folder of a classifier's split for validation."""


@dataclass(frozen=True)
class DataSetAccuracy:
    """Accuracy on a data set.

    Attributes:
        metrics: Every metric of the task by name, 0 to 1; a detector's ``map50_95`` and ``map50``.
        images: Images scored.
    """

    metrics: Mapping[str, float]
    images: int


def measure(
    detector: Detector,
    folder: str | PathLike[str],
    *,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DataSetAccuracy:
    """Measure every metric of the model's task with Ultralytics' settings, whatever the detector's own are.

    Args:
        detector: The model.
        folder: A data set in YOLO layout, ``images/...`` beside ``labels/...``, or its yaml (needs PyYAML); for a
            classifier a folder of class folders. Where a folder has several splits, ``val`` is taken.
        limit: Score only so many images, the first by path.
        progress: Called after every image with images done and images in all.

    Classes that the yaml lists in another order are mapped by name.

    Raises:
        DataError: There are no images or labels, one is unreadable, or the yaml names other classes than the model's.
        TargetError: The runtime failed.
    """
    task, info = detector.task, detector.info
    images = find_images(Path(folder), info.task)[:limit]
    labels = of_model(task.labels_of(images, info, label_path), Path(folder), info.names)
    if not any(len(item.classes) for item in labels):
        raise DataError(f"'{folder}' has no labels beside its images; each images/x.jpg needs a labels/x.txt")
    found, truths = [], []
    matches: dict[str, list[Matches]] = {s.prefix: [] for s in task.similarities}
    for index, (path, item) in enumerate(zip(images, labels)):
        tensor, where = detector.preprocess(read_image(path))
        # The validator's thresholds and not the detector's own: those would cut off the tail of every curve.
        everything = detector.select(detector.infer(tensor), Selection())
        truth = task.truth(item, where, info)
        for prefix, matched in task.match(everything, truth, where.area_scale).items():
            matches[prefix].append(matched)
        found.append(task.compact(everything, conf=1.0))
        truths.append(task.kept(truth))
        if progress is not None:
            progress(index + 1, len(images))
    # One row of ones: every image counts once. The bootstrap gives the same function many rows.
    values = task.scores(found, matches, truths).values(np.ones((1, len(images))))
    return DataSetAccuracy({name: float(value[0]) for name, value in values.items()}, len(images))


def of_model(labels: List[Labels], source: Path, names: Tuple[str, ...]) -> List[Labels]:
    """Labels by the model's class indices, where a yaml says what its own mean.

    Args:
        labels: Labels by the data set's indices.
        source: Folder or yaml.
        names: Names of the model's classes.

    Raises:
        DataError: The yaml names other classes.
    """
    given = _read_yaml(source).get("names") if source.suffix in {".yaml", ".yml"} else None
    if isinstance(given, dict):
        given = [given[key] for key in sorted(given)] if all(isinstance(key, int) for key in given) else None
    if not isinstance(given, list):
        return labels
    order = class_order(names, [str(name) for name in given], str(source))
    if order is None:
        return labels
    logger.warning("data '%s' lists the classes in another order than the model; they are mapped by name", source)
    table = np.array(order, dtype=np.int64)
    return [replace(item, classes=table[item.classes]) for item in labels]


def find_images(source: Path, task: Task = Task.DETECT) -> list[Path]:
    """The images of a data set, by path; see ``measure``.

    Args:
        source: Folder or yaml.
        task: The model's task.

    Raises:
        DataError: There are none.
    """
    roots = _split_of_yaml(source) if source.suffix in {".yaml", ".yml"} else [_split_of_folder(source, task)]
    # By the text of the whole path: limit= and the fingerprint depend on the order, which must be the same everywhere.
    images = sorted((p for root in roots for p in _listed(root)), key=str)
    if not images:
        raise DataError(f"'{source}' holds no images: looked in {', '.join(map(str, roots))}")
    return images


def _split_of_folder(folder: Path, task: Task) -> Path:
    if not folder.is_dir():
        raise DataError(f"'{folder}' is not a folder; name one that holds images/ and labels/, or a data yaml")
    images = folder / "images" if (folder / "images").is_dir() else folder
    exact = spec_of(task).class_folders  # "valley" is a class then
    splits = sorted(
        p for p in images.iterdir() if p.is_dir() and (p.name in SPLITS if exact else p.name.startswith("val"))
    )
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
    except (*UNREADABLE, yaml.YAMLError, AttributeError, TypeError) as exc:  # a date that there is not, for instance
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
    # The last such folder, as Ultralytics' `img2label_paths`: a data set may lie below another folder 'images'.
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")
