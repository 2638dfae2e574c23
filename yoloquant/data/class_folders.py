"""A classifier's data set: one folder for each split, with one folder for each class, as Ultralytics reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..bridge import val as host
from ..errors import DataError

NAMES = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
"""Names of each split's folder, the first that exists is taken; without a val split the test split is."""
_PARTS = frozenset({"images", "labels"})  # of a split of a detector's data set, which may have others beside them


def is_split_root(folder: Path) -> bool:
    """Whether a folder holds the splits of a classifier's data set: a folder ``train``, or ``val``, of class folders.

    One with ``val`` alone is none to calibrate on, which ``split_folder`` says then: as one heap of images it would
    calibrate on those that are scored.
    """
    folders = {name: _folders(folder / name) for names in (NAMES["train"], NAMES["val"]) for name in names}
    # deeper images, or none, are told about where a train split is read; folders in val alone may be anything
    if any(found and not found & _PARTS for name, found in folders.items() if name in NAMES["train"]):
        return True
    return any(_holds_images(folder / name / child) for name, found in folders.items() for child in found - _PARTS)


def _folders(split: Path) -> set[str]:
    """Names of the folders in a split; none if there is no such split."""
    if not split.is_dir():
        return set()
    return {child.name for child in split.iterdir() if child.is_dir() and not child.name.startswith(".")}


def _holds_images(folder: Path) -> bool:
    suffixes = host.image_suffixes()
    return any(child.suffix[1:].lower() in suffixes for child in folder.iterdir())


def split_folder(data: str | Path, split: str) -> Path:
    """The folder of one split.

    Args:
        data: The folder of the splits, or its name in Ultralytics' data set folder.
        split: ``train``, ``val`` or ``test``.

    Raises:
        DataError: There is none.
    """
    root = Path(data)
    # as Ultralytics finds ``data=imagenet10``
    if not root.is_dir() and not root.is_absolute() and (host.datasets_folder() / root).is_dir():
        root = host.datasets_folder() / root
    if not root.is_dir():
        raise DataError(
            f"data '{data}' is not a folder; a classifier's data set is a folder with train/<class>/*.jpg and val/..."
        )
    for names in (NAMES.get(split, (split,)), NAMES["test"] if split == "val" else ()):
        for name in names:
            if (root / name).is_dir():
                return (root / name).resolve()
    there = sorted(child.name for child in root.iterdir() if child.is_dir())
    raise DataError(
        f"data '{data}' has no split '{split}' (a folder {' or '.join(NAMES.get(split, (split,)))}); "
        f"it has {', '.join(there[:5]) or 'no folders'}"
    )


def class_names(folder: Path) -> list[str]:
    """Names of a split's class folders, sorted."""
    # sorted, as torchvision's ImageFolder counts classes, which Ultralytics reads them by
    return sorted(child.name for child in folder.iterdir() if child.is_dir())


def check_class_folders(folder: Path, images: Sequence[Path]) -> None:
    """Raise DataError if images lie beside the class folders, or the only thing that a class folder holds is nothing.

    A folder that is kept for its name alone may hold hidden files, for instance ``.gitkeep``, and no others.
    """
    # deeper or flatter images would count as a class that no folder names, or be skipped without a word
    stray = next((image for image in images if image.parent.parent != folder), None)
    if stray is not None:
        raise DataError(
            f"image {stray} is not in a class folder directly under {folder}; put it into {folder.name}/<class>/"
        )
    filled = {image.parent.name for image in images}
    for name in class_names(folder):
        if name in filled:
            continue
        others = [child.name for child in (folder / name).iterdir()]
        if not others or any(not other.startswith(".") for other in others):
            raise DataError(f"class folder {folder / name} holds no image; add some, or remove the folder")
