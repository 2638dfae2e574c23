"""Training images that trials do not learn from and are scored on, so that the scored split stays untouched."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..bridge.checkpoint import load_model
from ..data.calibration import MIN_IMAGES, CalibrationOptions, calibration_set
from ..data.class_folders import is_split_root, split_folder
from ..data.convert import as_yolo, is_foreign
from ..data.dataset import load_yaml, split_paths
from ..data.image_files import is_without_yaml, list_images
from ..errors import CalibrationError, DataError, OutputError
from ..io import write_text
from ..recipe import Recipe
from .studied import HeldBack

SEED = 20_000
"""Of which images are held back; far from the seeds that choose calibration images."""


def hold_back(recipe: Recipe, count: int, folder: Path) -> HeldBack:
    """Split the training images of a recipe's data.

    Args:
        recipe: What is tuned.
        count: So many are held back; half of them all if there are fewer than twice as many.
        folder: Where the description of the split goes; images stay where they are.

    Raises:
        DataError: The data are missing.
        CalibrationError: There are too few training images for both.
        OutputError: The folder cannot be written.
    """
    split = recipe.calibration.split
    named = recipe.data
    if is_foreign(named):  # trials may train, and are scored, by labels of the model's task
        model = load_model(recipe.model, allow_unsafe=recipe.allow_unsafe)
        named = as_yolo(named, task=model.task, names=model.names)
    pool, write = _pool(named, split)
    # never more than half: what is left must calibrate and train
    most = min(count, len(pool) // 2)
    if most < MIN_IMAGES:
        raise CalibrationError(
            f"'{recipe.data}' has {len(pool)} training images; a study needs {2 * MIN_IMAGES} at least: as many to "
            "score trials on as to calibrate"
        )
    drawn = calibration_set(
        named,
        # ``scored_split`` keeps out copies of images that the chosen recipe is scored on at the end
        CalibrationOptions(images=most, seed=SEED, split=split, scored_split=recipe.validation.split),
    )
    held = set(drawn.paths)
    rest = [path for path in pool if path not in held]
    # the count of the others too: with more training images the same recipe gives other results
    digest = hashlib.sha256(f"{drawn.sha256} {len(rest)}".encode()).hexdigest()
    try:
        data, own = write(named, folder, rest, list(drawn.paths))
    except OSError as exc:
        raise OutputError(f"'{folder}' cannot be written ({exc.strerror or exc}); choose another output=") from exc
    return HeldBack(str(data), own, len(held), digest)


def _pool(data: str, split: str) -> tuple[list[Path], Any]:
    """Training images of a data set, and what writes a split of it."""
    path = Path(data)
    if is_without_yaml(path):
        if is_split_root(path):
            return list_images([split_folder(path, split)], data), _class_folders
        return list_images([path.resolve()], data), _plain_folders
    file, content = load_yaml(data)
    return list_images(split_paths(content, file, split), data), _lists


def _lists(data: str, folder: Path, rest: Sequence[Path], held: Sequence[Path]) -> tuple[Path, None]:
    """Two lists of images, and a data yaml that names them."""
    _, content = load_yaml(data)
    # no test split, which a study must not see; no manifest, which would miss the images that are not in these lists
    kept = {key: value for key, value in content.items() if key not in ("test", "minival", "manifest", "download")}
    lists = {"train": rest, "val": held}
    for name, images in lists.items():
        # absolute, links not followed: Ultralytics finds a label by its image's path, and the link's target may have
        # none
        _write(folder / f"{name}.txt", "".join(f"{path.absolute()}\n" for path in images))
    own = {"path": str(folder.resolve()), **{name: f"{name}.txt" for name in lists}}
    _write(folder / "data.yaml", yaml.safe_dump({**kept, **own}, allow_unicode=True, sort_keys=False))
    return folder / "data.yaml", None


def _class_folders(data: str, folder: Path, rest: Sequence[Path], held: Sequence[Path]) -> tuple[Path, None]:
    """Folders of classes, with links to the images."""
    # every class in both parts, drawn or not: Ultralytics counts classes by their folders
    classes = [p.name for p in split_folder(data, "train").iterdir() if p.is_dir()]
    for name, images in (("train", rest), ("val", held)):
        for each in classes:
            (folder / "data" / name / each).mkdir(parents=True, exist_ok=True)
            (folder / "data" / name / each / ".gitkeep").touch()  # a class of which no image was drawn
        for image in images:
            _link(image, folder / "data" / name / image.parent.name / image.name)
    return folder / "data", None


def _plain_folders(data: str, folder: Path, rest: Sequence[Path], held: Sequence[Path]) -> tuple[Path, Path]:
    """Two folders of links."""
    for name, images in (("train", rest), ("val", held)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            # numbered, since images of different folders may share a name
            _link(image, folder / name / f"{i:06d}_{image.name}")
    return folder / "train", folder / "val"


# links, so that a study of a large set takes no room
def _link(image: Path, place: Path) -> None:
    if not place.is_symlink():
        os.symlink(image.resolve(), place)


def _write(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return  # another process of the study reads it
    if path.is_file():
        raise DataError(
            f"'{path}' belongs to a study of other data; choose another output=, or remove the folder '{path.parent}'"
        )
    write_text(path, text)
