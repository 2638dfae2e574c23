"""The images that models are scored on: an Ultralytics data set, or a folder of images without labels.

Nothing is downloaded, and nothing is written next to the images.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..bridge import val as host
from ..errors import DataError
from ..io import parse_yaml
from ..runtime.core.class_order import class_order
from ..runtime.core.folder_check import file_sha256
from ..runtime.core.model_info import ModelInfo, Task
from ..runtime.tasks import spec_of
from ..runtime.tasks.base import Labels, labels_bytes
from .class_folders import check_class_folders, class_names, split_folder
from .convert import Crowds, as_yolo, crowds_of, notes_of
from .image_check import check_images
from .image_files import list_images
from .manifest import check_manifest, read_manifest
from .trained_classes import TrainedClasses

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledImage:
    """One image with its labels.

    Attributes:
        path: The image file.
        classes: int64 (n,).
        boxes: float32 (n, 4), normalised xywh.
        parts: What the task labels besides: polygons, keypoints, corners; see the task's file.
    """

    path: Path
    classes: np.ndarray = field(repr=False)
    boxes: np.ndarray = field(repr=False)
    parts: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes."""
        return file_sha256(self.path)

    @property
    def labels(self) -> Labels:
        """The labels alone."""
        return Labels(self.classes, self.boxes, self.parts)


@dataclass(frozen=True)
class ValidationSet:
    """An ordered, checked set of images.

    Attributes:
        images: The images, by path.
        names: Class names, index by index; empty for an unlabelled source.
        source: What the user named.
        split: ``train``, ``val`` or ``test``; empty for a folder of images.
        notes: What a reader of scores must know, for instance that classes were reordered.
        crowds: Regions that are no labels by image name, for scorers that know such; in the labels' classes.
    """

    images: tuple[LabelledImage, ...]
    names: tuple[str, ...]
    source: str
    split: str = "val"
    notes: tuple[str, ...] = ()
    crowds: Mapping[str, Crowds] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def boxes(self) -> int:
        """Number of labelled objects; of labelled images for a classifier."""
        return sum(len(image.classes) for image in self.images)

    @property
    def labelled(self) -> bool:
        """Whether there is anything to score against besides the FP32 model."""
        # a set of images without one object is scored like one without label files
        return any(len(image.classes) for image in self.images)

    @cached_property
    def data_hash(self) -> str:
        """Hash of every image's bytes, name and labels; independent of where the data lie."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        for image in self.images:
            # a zero byte between: no name holds one, so no two pairs run together to the same bytes
            digest.update(image.path.name.encode() + b"\0" + image.sha256.encode())
            digest.update(labels_bytes(image.labels))
        return digest.hexdigest()

    def take(self, count: int | None) -> ValidationSet:
        """The first images in order; all of them for None."""
        return self if count is None else replace(self, images=self.images[:count])

    def for_classes(self, names: Sequence[str]) -> ValidationSet:
        """The same images with class indices of a model, mapped by name.

        Args:
            names: The model's class names, by index.

        Returns:
            This set itself where the indices are the same, or where there are no labels.

        Raises:
            DataError: The model has other classes.
        """
        # unlabelled sources have no classes that could disagree
        order = class_order(names, self.names, self.source) if self.labelled else None
        if order is None:
            return self
        moved = sum(i != k for i, k in enumerate(order))
        note = f"data '{self.source}' lists the classes in another order than the model; {moved} were mapped by name"
        logger.warning(note)
        table = np.array(order, dtype=np.int64)
        # indices alone: boxes and parts are shared with the original
        images = tuple(replace(image, classes=table[image.classes]) for image in self.images)
        return replace(self, images=images, names=tuple(names), notes=(*self.notes, note))

    def require_labels(self) -> ValidationSet:
        """This set, once it is proven to hold labels.

        Raises:
            DataError: No image has a label.
        """
        if self.labelled:
            return self
        labels = host.label_paths([image.path for image in self.images])
        present = sum(label.is_file() for label in labels)
        looked = f"looked for {labels[0]}" + (f" and {len(labels) - 1} more" if len(labels) > 1 else "")
        # two mistakes that look alike: labels in the wrong place, and label files with nothing in them
        reason = f"{present} label files hold no box" if present else "there is not one label file"
        raise DataError(
            f"data '{self.source}' has no labels in split '{self.split}': {reason} ({looked}); put the labels "
            "there, or judge on images without labels with source=<folder of images>"
        )

    def read(self, index: int) -> np.ndarray:
        """Decode one image: BGR uint8 (height, width, 3).

        Raises:
            DataError: The file cannot be decoded.
        """
        path = self.images[index].path
        image = host.read_image(path)
        if image is None or image.ndim != 3:
            raise DataError(f"image {path} cannot be decoded; replace or remove it")
        return image

    @classmethod
    def open(
        cls,
        data: str | Path,
        info: ModelInfo,
        *,
        split: str = "val",
        manifest: str | Path | None = None,
        trained: TrainedClasses | None = None,
    ) -> ValidationSet:
        """Open a data set of a model's task: a data yaml, or for a classifier the folder of its splits.

        Args:
            data: The yaml or folder, or a data set of another format; see ``convert.as_yolo``.
            info: The model.
            split: Which split to score on.
            manifest: See ``from_yaml``.
            trained: Which of its classes the model was trained on; all if None.

        Raises:
            DataError: See ``from_yaml`` and ``class_folders.split_folder``.
        """
        found: ValidationSet
        if spec_of(info.task).class_folders:
            found = cls.from_class_folders(as_yolo(data, task=info.task, names=info.names), info, split=split)
            # what the user named, not the cache's copy
            return replace(found, source=str(data))
        found = cls.from_yaml(data, split=split, manifest=manifest, info=info)
        return found if trained is None else found.as_trained(trained, info.names)

    def as_trained(self, trained: TrainedClasses, names: Sequence[str]) -> ValidationSet:
        """The same images with the labels that training saw.

        Args:
            trained: Which classes it saw.
            names: Class names of the model.
        """
        # a model with several classes cannot have been trained so; its stored argument is stale
        single = trained.single and len(names) == 1
        if not single and not trained.only:
            return self
        trained = replace(trained, single=single)
        # classes are named by the model's indices, which the data may count otherwise
        ordered = self if single else self.for_classes(names)
        changed = [trained.labels(image.labels) for image in ordered.images]
        images = tuple(
            LabelledImage(i.path, n.classes, n.boxes, n.parts) for i, n in zip(self.images, changed, strict=True)
        )
        what = (
            "all objects as one class (single_cls)" if single else f"classes {', '.join(map(str, trained.only))} only"
        )
        note = f"the model was trained on {what}, and labels of '{self.source}' are read like that"
        logger.warning(note)
        known = tuple(names) if single else ordered.names
        return replace(self, images=images, names=known, notes=(*ordered.notes, note))

    @classmethod
    def from_class_folders(cls, data: str | Path, info: ModelInfo, *, split: str = "val") -> ValidationSet:
        """Open a classifier's data set, ``<split>/<class>/*.jpg``.

        Args:
            data: The folder of the splits.
            info: The model, whose class names folders are matched with.
            split: Which split to score on.

        Raises:
            DataError: A split is missing, a class folder holds nothing, or folders do not fit the model's classes.
        """
        folder = split_folder(data, split)
        images = list_images([folder], str(data))
        check_class_folders(folder, images)
        # a classifier's label is its image's folder, so the label's place is the image's own path
        labels = spec_of(info.task).labels_of(images, info, Path, host.renamed_classes(class_names(folder)))
        known = [LabelledImage(i, n.classes, n.boxes) for i, n in zip(images, labels, strict=True) if len(n.classes)]
        if len(known) < len(images):
            logger.warning("%d images of '%s' are in folders of no class of the model", len(images) - len(known), data)
        check_images([image.path for image in known])
        return cls(tuple(known), info.names, str(data), split)

    @classmethod
    def from_yaml(
        cls,
        data: str | Path,
        *,
        split: str = "val",
        manifest: str | Path | None = None,
        info: ModelInfo | None = None,
    ) -> ValidationSet:
        """Open a data set as Ultralytics describes it.

        Args:
            data: Path of a data yaml, or the name of one that ships with Ultralytics (``coco8.yaml``).
            split: Which split to score on.
            manifest: Manifest to hold the images against; by default the one that the yaml's own ``manifest:`` names.
            info: The model, whose task says how a label line reads; boxes are read if None.

        Raises:
            DataError: The yaml, the images or the labels are missing or malformed, or differ from the manifest.
        """
        file, content = load_yaml(data if info is None else as_yolo(data, task=info.task, names=info.names))
        names = class_names_of(content, file)
        paths = split_paths(content, file, split)
        images = list_images(paths, str(data))
        described = replace(info, names=names) if info is not None else ModelInfo(Task.DETECT, names, (0, 0))
        task = spec_of(described.task)
        # before label files are read: a wrong kpt_shape would make every line look malformed
        task.check_data(content, str(file), described)
        places = dict(zip(images, host.label_paths(images), strict=True))
        labels = task.labels_of(images, described, places.__getitem__)
        items = tuple(LabelledImage(i, n.classes, n.boxes, n.parts) for i, n in zip(images, labels, strict=True))
        check_images(images)
        named = manifest if manifest is not None else content.get("manifest")
        if named is not None:
            # one that a yaml names lies beside it, one that a user names beside him
            location = Path(manifest) if manifest is not None else file.parent / str(named)
            check_manifest(read_manifest(location), [(item.path, len(item.classes)) for item in items])
        return cls(items, names, str(data), split, notes_of(content), crowds_of(content, file, split))

    @classmethod
    def from_folder(cls, folder: str | Path, names: Sequence[str] = ()) -> ValidationSet:
        """Open a folder of images without labels; subfolders included.

        Args:
            folder: The folder.
            names: Class names of the model, for the report.

        Raises:
            DataError: The folder is missing, or holds no readable image.
        """
        path = Path(folder)
        if not path.is_dir():
            raise DataError(f"source '{folder}' is not a folder; name a folder of images, or a data yaml with data=")
        images = list_images([path.resolve()], str(folder))
        check_images(images)
        # one pair for all images: nothing writes into labels
        empty = np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32)
        return cls(tuple(LabelledImage(image, *empty) for image in images), tuple(names), str(folder), "")


def load_yaml(data: str | Path) -> tuple[Path, dict[str, Any]]:
    """Find and read a data yaml; its path and its content.

    Raises:
        DataError: It does not exist or holds no keys.
    """
    name = as_yolo(data)
    if "://" in name:
        raise DataError(f"data '{name}' is a URL; nothing is downloaded: fetch the data set and name its yaml")
    file = Path(name)
    if file.is_dir():
        # a folder stands for its yaml, as in Ultralytics; of several nobody could tell which
        candidates = sorted(p for p in file.iterdir() if p.suffix in {".yaml", ".yml"})
        if len(candidates) != 1:
            raise DataError(f"data '{name}' is a folder with {len(candidates)} yaml files; name the yaml itself")
        file = candidates[0]
    found = host.find_data_file(str(file))
    if found is None:
        raise DataError(f"data yaml '{name}' does not exist, neither as a path nor among Ultralytics' own")
    try:
        # replace: a comment in another encoding is no reason to refuse a data set; Ultralytics reads past it, too
        content = parse_yaml(found.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError) as exc:
        raise DataError(f"data yaml {found} cannot be read: {exc}") from exc
    if not isinstance(content, dict):
        raise DataError(f"data yaml {found} holds no keys; it needs at least train, val and names")
    return found, content


def class_names_of(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    """Class names of a data yaml, index by index.

    Raises:
        DataError: It lists none, or not every index.
    """
    names = content.get("names")
    if names is None and isinstance(content.get("nc"), int):
        # as Ultralytics names them
        names = [f"class_{i}" for i in range(content["nc"])]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise DataError(f"data yaml {file}: 'names' must list the classes, for instance 'names: [cat, dog]'")
    try:
        by_index = {int(key): str(value) for key, value in names.items()}
    except (TypeError, ValueError, OverflowError) as exc:
        raise DataError(f"data yaml {file}: the keys of 'names' must be the class indices 0, 1, ...") from exc
    if sorted(by_index) != list(range(len(by_index))):
        raise DataError(f"data yaml {file}: 'names' must use every index from 0 to {len(by_index) - 1}")
    if "nc" in content and content["nc"] != len(by_index):
        raise DataError(f"data yaml {file}: nc is {content['nc']}, but 'names' lists {len(by_index)} classes")
    return tuple(by_index[i] for i in range(len(by_index)))


def split_paths(content: dict[str, Any], file: Path, split: str) -> list[Path]:
    """Resolve a split's paths by Ultralytics' rules: ``path:`` in the working or its data folder, else by the yaml."""
    # ``validation`` is an older word for it, which Ultralytics still takes
    value = content.get(split) or (content.get("validation") if split == "val" else None)
    if not value:
        known = [key for key in ("train", "val", "test", "minival") if content.get(key)]
        raise DataError(f"data yaml {file} has no split '{split}'; it has {', '.join(known) or 'none at all'}")
    try:
        return _resolved(content, file, split, value if isinstance(value, list) else [value])
    except (OSError, ValueError) as exc:  # a name that no file can have: too long, or with a zero byte
        raise DataError(f"data yaml {file}: a path of split '{split}' is not usable ({exc})") from exc


def _resolved(content: dict[str, Any], file: Path, split: str, entries: list[Any]) -> list[Path]:
    root = Path(str(content.get("path") or file.parent))
    if not root.exists() and not root.is_absolute():
        stored = host.datasets_folder() / root
        root = stored if stored.exists() or not (file.parent / root).exists() else file.parent / root
    paths = []
    for entry in map(str, entries):
        path = (root / entry).resolve()
        # Ultralytics' rule
        if not path.exists() and entry.startswith("../"):
            path = (root / entry[3:]).resolve()
        if not path.exists():
            raise DataError(
                f"data yaml {file}: split '{split}' points to {path}, which does not exist; nothing is downloaded: "
                f"put the images there, correct 'path:' or '{split}:', or set Ultralytics' datasets_dir"
            )
        paths.append(path)
    return paths
