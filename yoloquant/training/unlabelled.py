"""Training on a folder of images without labels: a data yaml with a held-back part, written into the run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ..data.image_files import list_images
from ..errors import DataError

# of the images, by which the best epoch is chosen
HELD_BACK = 0.15
_FEWEST = 4  # of each part
_NAME = "unlabelled.yaml"


def is_written(path: Path) -> bool:
    """Whether a path is the yaml that ``write_data`` wrote."""
    # with its list, since a user's own file may have that name too
    return path.name == _NAME and (path.parent / "unlabelled_train.txt").is_file()


def data_of_run(folder: Path, data: str) -> str:
    """What a run in a folder was trained on: the yaml that ``write_data`` wrote there, else what the user named."""
    written = folder / _NAME
    return str(written) if is_written(written) else data


@contextmanager
def accepted() -> Iterator[None]:
    """While it lasts, Ultralytics makes data sets for training of images of which none has a label.

    It refuses them where it augments (8.4.190) and warns where it does not; nothing else depends on that as it scans.
    """
    from ultralytics.data.dataset import YOLODataset

    scan = YOLODataset.cache_labels

    def as_for_validation(dataset: Any, *args: Any, **keywords: Any) -> Any:
        augment, dataset.augment = dataset.augment, False
        try:
            return scan(dataset, *args, **keywords)
        finally:
            dataset.augment = augment

    YOLODataset.cache_labels = as_for_validation
    try:
        yield
    finally:
        YOLODataset.cache_labels = scan


def write_data(folder: Path, keys: Mapping[str, Any], out: Path, *, seed: int = 0) -> Path:
    """Split a folder's images by their names' hashes and write a data yaml for them.

    Args:
        folder: Images, also in folders below.
        keys: What the yaml says of the model: ``names``, and ``kpt_shape`` where it has keypoints.
        out: Where to write the yaml and its two lists.
        seed: Chooses the held-back part.

    Returns:
        The yaml.

    Raises:
        DataError: There are too few images.
    """
    images = list_images([folder.resolve()], str(folder))
    # by names and not by position: images that are added later hardly move others to the other part
    order = sorted(images, key=lambda p: hashlib.sha256(f"{seed}:{p.name}".encode()).digest())
    held = max(int(len(order) * HELD_BACK), _FEWEST)
    if len(order) - held < _FEWEST:
        raise DataError(
            f"'{folder}' has {len(order)} images; at least {2 * _FEWEST} are needed, some hundred are sensible"
        )
    parts = {"train": sorted(order[held:]), "val": sorted(order[:held])}
    for name, paths in parts.items():
        (out / f"unlabelled_{name}.txt").write_text("".join(f"{p}\n" for p in paths), encoding="utf-8")
    # lists beside the yaml and not links to images: the user's folder stays as it is
    content = {
        "path": str(out.resolve()),
        **{name: f"unlabelled_{name}.txt" for name in parts},
        **keys,
    }
    path = out / _NAME
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
