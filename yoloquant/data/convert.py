"""Data sets of other formats as Ultralytics reads them: a copy of links and label files in a cache, made once.

Nothing is written beside the images. The copy is known by the data set's files (names, sizes, times), the task and the
class names, so that a change of any of them makes another one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..bridge import val as host
from ..errors import DataError
from ..io import atomic_path, cache_folder
from ..runtime.core.class_order import plain_name
from ..runtime.core.model_info import Task
from ..runtime.tasks import SPECS, spec_of
from ..runtime.tasks.base import Drawn, TaskSpec
from .formats import formats
from .formats.base import Contents, DataFormat, Found, Picture
from .image_check import plain_open

logger = logging.getLogger(__name__)

CROWDS = "crowds_{split}.json"  # beside the data yaml of a copy
Crowds = tuple[tuple[int, float, float, float, float], ...]
VERSION = 2  # of what is written; another one makes every copy anew
CONVERTED = "converted"  # key of a data yaml that this module wrote
SLACK = 0.01  # share of an image by which boxes may lie outside, as for label files
_MOST_OUTSIDE = 0.5  # if more boxes than that lie outside, they are in other units


def as_yolo(data: str | os.PathLike[str], *, task: Task | None = None, names: Sequence[str] = ()) -> str:
    """What Ultralytics reads of a data set: itself, or a converted copy if it is of another format.

    Args:
        data: A data yaml, a folder, COCO's JSON (``x.json``, ``x.json@images/``), Pascal VOC, a Hugging Face data set.
        task: What labels are for; None if images alone are asked for.
        names: The model's classes, in whose order labels are counted if it knows every class that is labelled.

    Returns:
        ``data`` itself, the data yaml of a copy, or its folder if whole images are labelled.

    Raises:
        DataError: It is of a known format, and an image, a class or a label is missing or wrong.
    """
    known = _known(os.fspath(data))
    return os.fspath(data) if known is None else str(_copy(*known, task, tuple(names)))


def is_foreign(data: str | os.PathLike[str] | None) -> bool:
    """Whether a data set is of another format than Ultralytics'.

    Raises:
        DataError: See ``as_yolo``.
    """
    return data is not None and _known(os.fspath(data)) is not None


def _known(data: str) -> tuple[DataFormat, Found] | None:
    # nothing is downloaded; the message comes from whoever reads the yaml
    if "://" in data:
        return None
    each = ((form, form.find(data)) for form in formats())
    return next(((form, found) for form, found in each if found is not None), None)


def notes_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """What a reader of scores must know of a copy, by its data yaml; nothing for any other."""
    converted = content.get(CONVERTED)
    found = converted.get("notes") if isinstance(converted, dict) else None
    return tuple(map(str, found)) if isinstance(found, list) else ()


def crowds_of(content: Mapping[str, Any], file: Path, split: str) -> dict[str, Crowds]:
    """Crowd regions of a copy's split by image name, as class, left, top, right and bottom in pixels."""
    place = file.parent / CROWDS.format(split=split)
    if CONVERTED not in content or not place.is_file():
        return {}
    found = json.loads(place.read_text(encoding="utf-8"))
    return {name: tuple((c, x, y, right, bottom) for c, x, y, right, bottom in rows) for name, rows in found.items()}


def _copy(form: DataFormat, found: Found, task: Task | None, names: tuple[str, ...]) -> Path:
    # for people who look into the cache
    stem = Path(found.source.rstrip("/")).name.partition(".")[0] or "data"
    folder = cache_folder() / "data" / f"{stem}-{_identity(form, found, task, names)}"
    if not _whole(folder):
        logger.info("reading %s '%s' once, into %s", form.title, found.source, folder)
        # whole or not at all: a copy that was cut short would be taken for the data set next time
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            _write(form, found, task, names, temporary, folder)
    yaml_file = folder / "data.yaml"
    return yaml_file if yaml_file.is_file() else folder


def _identity(form: DataFormat, found: Found, task: Task | None, names: Sequence[str]) -> str:
    # by name, size and time: hashing gigabytes of annotations at every call would cost more than reading them once
    files = sorted({file for files in found.splits.values() for file in files})
    parts = [str(VERSION), form.title, "" if task is None else task.value, *names]
    parts += sorted(f"{split} {folder.resolve()}" for split, folder in found.images.items())
    parts += [f"{split} {[str(f) for f in files]}" for split, files in sorted(found.splits.items())]
    for file in files:
        stat = file.stat()
        parts.append(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _whole(folder: Path) -> bool:
    """Whether a copy is there and every link in it still leads to an image."""
    # images that were moved since leave links to nothing
    return folder.is_dir() and all(p.exists() for p in folder.rglob("*") if p.is_symlink())


def _write(form: DataFormat, found: Found, asked: Task | None, names: tuple[str, ...], out: Path, final: Path) -> None:
    contents = form.read(found, keypoints=asked is not None and spec_of(asked).keypointed)
    # nobody asked for labels, only for images: any task's will do
    task = _suiting(contents) if asked is None else spec_of(asked)
    if contents.classifies != task.class_folders:
        has, wants = ("whole images", "objects") if contents.classifies else ("objects", "whole images")
        raise DataError(
            f"data '{found.source}' labels {has}, and a {task.noun} needs labels of {wants}; use the data set that "
            "the model was trained for"
        )
    order, used = _classes(contents, names)
    for split, pictures in contents.splits.items():
        if contents.classifies:
            _write_class_folders(out / split, pictures, [used[i] for i in order], found, split)
        else:
            _write_labels(_Split(out, split, task, order, found, contents), pictures)
    # after the splits: their iterators count while they are read
    for text, count in contents.notes.items():
        logger.warning("data '%s': %d %s", found.source, count, text)
    if contents.classifies:
        return
    content: dict[str, Any] = {
        # the place that the copy moves to, not the temporary one that it is written in
        "path": str(final.resolve()),
        **{split: f"images/{split}" for split in contents.splits},
        "names": dict(enumerate(used)),
        **_keypoint_keys(contents.keypoints if task.keypointed else ()),
        CONVERTED: {
            "format": form.title,
            "source": found.source,
            "files": {split: [str(f.resolve()) for f in files[:8]] for split, files in found.splits.items()},
            "notes": [f"data '{found.source}': {count} {text}" for text, count in contents.notes.items()],
        },
    }
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    (out / "data.yaml").write_text(text, encoding="utf-8")


def _suiting(contents: Contents) -> TaskSpec:
    """The simplest task that the labels serve."""
    return next(spec for spec in map(spec_of, SPECS) if spec.class_folders == contents.classifies)


def _classes(contents: Contents, names: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
    """The index that each class of the data gets, and the names by index.

    A model that knows every labelled class lends its order; classes that nothing is labelled as, such as the
    super-category that some tools list, do not count then.
    """
    # as everywhere that classes are matched: case and separators do not count
    plain = [plain_name(name) for name in names]
    theirs = [plain_name(name) for name in contents.names]
    if names and len(set(plain)) == len(plain) and all(theirs[i] in plain for i in contents.used):
        # -1 never reaches a label: such a class is labelled nowhere
        return [plain.index(name) if name in plain else -1 for name in theirs], names
    return list(range(len(theirs))), contents.names


def _keypoint_keys(keypoints: Sequence[str]) -> dict[str, Any]:
    """``kpt_shape``, and ``flip_idx`` where names say which keypoint is the other side's."""
    if not keypoints:
        return {}
    pairs = {"left": "right", "right": "left"}
    # flipped images swap left and right; without flip_idx Ultralytics does not flip pose images at all
    other = ["".join(pairs.get(w, w) for w in _sides(name)) for name in keypoints]
    flip = {"flip_idx": [keypoints.index(name) for name in other]} if set(other) <= set(keypoints) else {}
    # 3: x, y and visibility
    return {"kpt_shape": [len(keypoints), 3], **flip}


def _sides(name: str) -> list[str]:
    for word in ("left", "right"):
        before, found, after = name.partition(word)
        if found:
            return [before, found, after]
    return [name]


class _Split:
    """Where one split's images and labels go."""

    def __init__(
        self, out: Path, split: str, task: TaskSpec, order: Sequence[int], found: Found, contents: Contents
    ) -> None:
        self.images, self.labels = out / "images" / split, out / "labels" / split
        self.images.mkdir(parents=True)
        self.labels.mkdir(parents=True)
        self.task, self.order, self.found, self.contents = task, order, found, contents
        self.boxes = self.outside = 0
        self.crowds: dict[str, list[list[float]]] = {}

    def line(self, picture: Picture, size: tuple[int, int], index: int) -> str:
        """A label line; empty for an object of which nothing is in the image."""
        thing = picture.things[index]
        drawn = _merged(self._inside(thing.drawn, size))
        if drawn.box[2] <= drawn.box[0] or drawn.box[3] <= drawn.box[1]:
            self.contents.note("boxes without an area are left out, as Ultralytics does")
            return ""
        try:
            values = self.task.label_line(drawn, size)
        except DataError as exc:
            raise DataError(f"{thing.where} {exc}") from exc
        # nine digits hold every float32
        return " ".join([str(self.order[thing.label]), *(f"{v:.9g}" for v in values)])

    def _inside(self, drawn: Drawn, size: tuple[int, int]) -> Drawn:
        """An object clipped to its image; what lies further outside than rounding explains is counted."""
        height, width = size
        left, top, right, bottom = drawn.box
        # of the image's side: half a pixel out is rounding at any size
        far = max(-left / width, -top / height, right / width - 1, bottom / height - 1) > SLACK
        self.boxes, self.outside = self.boxes + 1, self.outside + far
        if far:
            self.contents.note("boxes reach out of their image and were clipped")
        box = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
        polygons = tuple(np.clip(polygon, 0, (width, height)) for polygon in drawn.polygons)
        points = drawn.keypoints
        if points is not None:
            points = np.concatenate([np.clip(points[:, :2], 0, (width, height)), points[:, 2:]], axis=1)
        return Drawn(box, polygons, points)


def _merged(drawn: Drawn) -> Drawn:
    """An object whose outline is one polygon: its parts joined by lines, as Ultralytics joins them."""
    if len(drawn.polygons) < 2:
        return drawn
    # the host's own, so that the outline is the one that it would have trained on
    merge = host.attribute("ultralytics.data.converter:merge_multi_segment")
    whole = np.concatenate(merge([part.ravel().tolist() for part in drawn.polygons]), axis=0)
    return replace(drawn, polygons=(whole,))


def _write_labels(into: _Split, pictures: Iterator[Picture]) -> None:
    taken: Counter[str] = Counter()
    for picture in pictures:
        name = _name(picture.name, taken)
        _put(picture, into.images / name)
        # of the decoded file: a label divided by another size would be wrong without a word
        size = _size(picture, into.images / name, into.found.source)
        lines = [into.line(picture, size, index) for index in range(len(picture.things))]
        if picture.crowds:
            into.crowds[name] = [[into.order[each.label], *each.drawn.box] for each in picture.crowds]
        text = "".join(f"{line}\n" for line in lines if line)
        # also an empty one: it says that the image was looked at and holds nothing
        (into.labels / name).with_suffix(".txt").write_text(text, encoding="utf-8")
    if into.crowds:
        place = into.labels.parents[1] / CROWDS.format(split=into.labels.name)
        place.write_text(json.dumps(into.crowds), encoding="utf-8")
    # the iterator has been read to its end by now
    if not taken:
        raise DataError(f"data '{into.found.source}' lists no image in split '{into.images.name}'")
    if into.outside > _MOST_OUTSIDE * into.boxes:
        raise DataError(
            f"data '{into.found.source}': {into.outside} of {into.boxes} boxes in split '{into.images.name}' reach out "
            "of their images; boxes must be x, y, width, height in pixels of the image: are these corners, or pixels "
            "of another size?"
        )


def _name(name: str, taken: Counter[str]) -> str:
    """A file name of its own for an image: labels are found by it without its suffix."""
    plain = Path(name).name
    taken[Path(plain).stem] += 1
    if taken[Path(plain).stem] == 1:
        return plain
    # its folders tell it from its namesake; a number where even these are the same
    longer = name.strip("/").replace("/", "__")
    if taken[Path(longer).stem]:
        longer = f"{Path(plain).stem}__{taken[Path(plain).stem]}{Path(plain).suffix}"
    taken[Path(longer).stem] += 1
    return longer


def _put(picture: Picture, place: Path) -> None:
    if picture.file is None:
        place.write_bytes(picture.content)
        return
    try:
        # a link, since a data set may be larger than the disk that the cache is on
        os.symlink(picture.file.resolve(), place)
    except OSError:  # a system without links, or where they need a permission
        shutil.copyfile(picture.file, place)


def _size(picture: Picture, place: Path, source: str) -> tuple[int, int]:
    """Height and width of an image as it is decoded, which labels that state another size do not fit."""
    size = _decoded_size(place)
    if size is None and picture.size is None:
        raise DataError(f"image {picture.file or picture.name} of '{source}' cannot be read; replace or remove it")
    if size is not None and picture.size is not None and size != picture.size:
        raise DataError(
            f"'{source}' says that {picture.name} is {picture.size[1]} x {picture.size[0]} pixels, the file is "
            f"{size[1]} x {size[0]}{', turned by its EXIF tag' if size == picture.size[::-1] else ''}; labels of "
            "another size do not fit it: restore the image, or correct width and height"
        )
    return size or picture.size or (0, 0)


def _decoded_size(place: Path) -> tuple[int, int] | None:
    try:
        with plain_open()(place) as image:
            width, height = image.size
            # 5 to 8 are the quarter turns, with which decoders swap width and height
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:  # Pillow raises many types; what checks images names the file
        return None
    return (width, height) if turned else (height, width)


def _write_class_folders(
    folder: Path, pictures: Iterator[Picture], names: Sequence[str], found: Found, split: str
) -> None:
    taken: Counter[str] = Counter()
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / ".gitkeep").touch()  # a class of which this split has no image
    for picture in pictures:
        # datasets writes -1 where a split has no labels, as test splits often do
        if picture.label is None or not 0 <= picture.label < len(names):
            raise DataError(f"data '{found.source}': '{picture.name}' in split '{split}' has no class")
        _put(picture, folder / names[picture.label] / _name(picture.name, taken))
