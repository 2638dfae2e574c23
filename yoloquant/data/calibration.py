"""Calibration images: a deterministic sample that never contains an image the model will be scored on."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bridge import val as host_val
from ..errors import CalibrationError, DataError
from ..runtime.core.folder_check import file_sha256
from ..runtime.core.model_info import Task
from ..runtime.tasks import spec_of
from .calibration_options import MIN_IMAGES, CalibrationOptions
from .class_folders import check_class_folders, is_split_root, split_folder
from .convert import as_yolo
from .dataset import load_yaml, split_paths
from .image_check import check_images
from .image_files import is_without_yaml, list_images

__all__ = ["MIN_IMAGES", "CalibrationOptions", "CalibrationSet", "calibration_set"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibrationSet:
    """A fixed list of images.

    Attributes:
        paths: The images, in order.
        source: What the user named.
        split: The split they were drawn from; empty for a folder.
        sha256: Hash over the images' hashes.
        hashes: Start of each image's hash (``short_hash``), so that nobody scores on what calibrated.
    """

    paths: tuple[Path, ...]
    source: str
    split: str
    sha256: str
    hashes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def tensors(self, imgsz: tuple[int, int], task: Task = Task.DETECT) -> Iterator[np.ndarray]:
        """Images one by one as inference sees them: float32 (1, 3, height, width), RGB, 0 to 1.

        Args:
            imgsz: Height and width of the model's input.
            task: Its task: images are letterboxed, or cropped for a classifier.

        Raises:
            DataError: An image cannot be decoded.
        """
        prepare = spec_of(task).prepare
        # read one by one and never kept: 512 float images of 640 pixels take 2.5 GB
        for path in self.paths:
            image = host_val.read_image(path)
            if image is None or image.ndim != 3:
                raise DataError(f"calibration image {path} cannot be decoded; replace or remove it")
            yield prepare(image, imgsz)[0]


def calibration_set(data: str | os.PathLike[str], options: CalibrationOptions | None = None) -> CalibrationSet:
    """Draw the calibration images.

    The sample depends on file names and the seed alone, so it is the same on every machine and in every order of the
    file system.

    Args:
        data: An Ultralytics data yaml (a path, or a name such as ``coco8.yaml``), the folder of a classifier's splits
            (``train/<class>/*.jpg``), a folder of images, or a data set of another format (see ``convert.as_yolo``).
        options: How to draw.

    Returns:
        The sample.

    Raises:
        DataError: The data are missing, an image of the sample is broken, or they are the data to be scored on.
        CalibrationError: There are too few images.
    """
    options = options or CalibrationOptions()
    # without task and names: only the images count here
    path = Path(as_yolo(data))
    if is_without_yaml(path):
        if is_split_root(path):
            _refuse_scored_split(options, str(data))
            split, folder = options.split, split_folder(path, options.split)
            pool, scored = list_images([folder], str(data)), _scored_folder(path, options)
            check_class_folders(folder, pool)
        else:
            pool, scored, split = list_images([path.resolve()], str(data)), [], ""
    else:
        file, content = load_yaml(path)
        _refuse_scored_split(options, str(data))
        split = options.split
        pool = list_images(split_paths(content, file, split), str(data))
        scored = _scored_images(content, file, options, str(data))
    sample = _draw(pool, scored, options, str(data))
    # the sample alone and not the pool, which may be a hundred thousand images
    check_images(sample)  # before a model runs on them
    hashes = [file_sha256(p) for p in sample]
    digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
    return CalibrationSet(tuple(sample), str(data), split, digest, tuple(map(short_hash, hashes)))


def short_hash(sha256: str) -> str:
    """Enough of an image's hash to know it again among millions, and short enough to travel in every artifact."""
    # 64 bits: among a million images two share them once in forty million data sets
    return sha256[:16]


def _refuse_scored_split(options: CalibrationOptions, source: str) -> None:
    if options.split == options.scored_split and not options.allow_scored:
        raise DataError(
            f"calibration would use split '{options.split}' of '{source}', on which the exports are scored; the scores "
            "would flatter them. Use split=train, or pass allow_scored=true if that is what you want"
        )


def _scored_images(content: dict[str, object], file: Path, options: CalibrationOptions, source: str) -> list[Path]:
    if options.allow_scored:
        return []
    try:
        return list_images(split_paths(content, file, options.scored_split), source)
    except DataError:
        return []  # nothing to score there, so nothing to keep apart


def _scored_folder(root: Path, options: CalibrationOptions) -> list[Path]:
    if options.allow_scored:
        return []
    try:
        return list_images([split_folder(root, options.scored_split)], str(root))
    except DataError:
        return []  # nothing to score there, so nothing to keep apart


def _draw(pool: Sequence[Path], scored: Sequence[Path], options: CalibrationOptions, source: str) -> list[Path]:
    # by size first: only files of one length can be the same, and hashing a whole split would take minutes
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in scored:
        if path.is_file():
            by_size[path.stat().st_size].append(path)
    # by a hash of seed and name: the order of a random generator would depend on how many images there are
    order = sorted(pool, key=lambda p: hashlib.sha256(f"{options.seed}:{p.name}".encode()).digest())
    sample: list[Path] = []
    refused: list[Path] = []
    for path in order:
        # before the next one is looked at: what is not drawn need not be whole
        if len(sample) == options.images:
            break
        if not path.is_file() or path.stat().st_size == 0:
            raise DataError(f"calibration image {path} is missing or empty; replace it or remove it from the list")
        if _same_file(path, by_size[path.stat().st_size]):
            refused.append(path)
            continue
        sample.append(path)
    # two messages: too few because of the split is another mistake than too few at all
    if refused and len(sample) < MIN_IMAGES:
        check_images(refused[:1])  # files of one error page are the same, too, and that is not what is wrong with them
        raise DataError(
            f"{len(refused)} of {len(pool)} images in split '{options.split}' of '{source}' are also in the split that "
            f"is scored ('{options.scored_split}'), and {len(sample)} remain; calibrating on scored images flatters "
            "the scores. Point data= to a set with separate splits, or pass allow_scored=true"
        )
    if len(sample) < MIN_IMAGES:
        raise CalibrationError(
            f"'{source}' has {len(sample)} calibration images; at least {MIN_IMAGES} are needed and 64 to 256 are usual"
        )
    if refused:
        logger.warning("%d calibration images are also in the scored split and were left out", len(refused))
    return sample


def _same_file(path: Path, candidates: Sequence[Path]) -> bool:
    if not candidates:
        return False
    digest = file_sha256(path)
    return any(file_sha256(c) == digest for c in candidates)
