"""Images that golden inputs are chosen from."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import YoloquantError
from ..runtime.io.images import decode_image

if TYPE_CHECKING:
    from ..data.dataset import ValidationSet

logger = logging.getLogger(__name__)

CANDIDATES = 16
"""Images of a data set among which golden inputs are chosen."""
_SCENES = 4
_SHARE = 0.75  # of the input's side: small files, and the letterbox still has to resize and pad


def candidates(data: str | os.PathLike[str] | None, imgsz: tuple[int, int]) -> list[tuple[str, np.ndarray]]:
    """Images with their names: the data set's first, else those that are at hand.

    Args:
        data: Data yaml, or folder of images; None for the pictures inside the ultralytics package and drawn scenes.
        imgsz: The network's input; larger images are shrunk to three quarters of it.

    Returns:
        Names without suffix and BGR uint8 (height, width, 3).

    Raises:
        DataError: The data are not usable.
    """
    # a few: reading a whole set to choose three images from it would take minutes
    found = _at_hand(imgsz) if data is None else islice(_of_data(data), CANDIDATES)
    return [(name, _shrunk(image, max(imgsz))) for name, image in found]


def _of_data(data: str | os.PathLike[str]) -> Iterator[tuple[str, np.ndarray]]:
    images = data_set(data)
    for index in range(len(images)):
        yield images.images[index].path.stem, images.read(index)


def data_set(data: str | os.PathLike[str]) -> ValidationSet:
    """The val split of a data yaml or of what stands for one, or a folder of images.

    Raises:
        DataError: It is not usable.
    """
    from ..data.class_folders import is_split_root, split_folder
    from ..data.convert import as_yolo
    from ..data.dataset import ValidationSet
    from ..data.image_files import is_without_yaml

    known = as_yolo(data)
    folder = Path(known)
    if not is_without_yaml(folder):
        return ValidationSet.from_yaml(known)
    # a classifier's: its val split, as for a yaml
    return ValidationSet.from_folder(split_folder(folder, "val") if is_split_root(folder) else folder)


def _at_hand(imgsz: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    for path in host_pictures():
        image = decode_image(path)
        if image is not None:
            yield path.stem, image
    yield from _scenes(max(imgsz))


def host_pictures() -> list[Path]:
    """The photos inside the installed ultralytics package; found without importing it."""
    # found and not imported: that takes seconds
    spec = importlib.util.find_spec("ultralytics")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return sorted(path for place in places for path in Path(place, "assets").glob("*.jpg"))


def _scenes(side: int) -> Iterator[tuple[str, np.ndarray]]:
    """Scenes as the demonstration draws them, cut to another shape than the network's."""
    from ..data.demo import generator

    try:
        draw = generator().draw_scene
    except (YoloquantError, ImportError) as exc:  # an installation without the drawing code still has photos
        logger.warning("no scenes are drawn for golden inputs: %s", exc)
        return
    # what the generator takes: multiples of 32
    side = max(64, round(side / 32) * 32)
    for index in range(_SCENES):
        scene = draw(0, "val", index, side)
        yield f"scene_{index}", np.ascontiguousarray(scene.image[: side * 7 // 8])


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    import cv2

    gain = side * _SHARE / max(image.shape[:2])
    # enlarging would add nothing but bytes
    if gain >= 1:
        return image
    height, width = (max(1, round(length * gain)) for length in image.shape[:2])
    # by area, which keeps small objects
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
