"""COCO's JSON: instances with boxes, polygons or run-length encoded masks, and keypoints."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...errors import DataError
from ...io import parse_yaml
from ...runtime.core.rle import decode
from ...runtime.tasks.base import Drawn
from ..image_files import is_without_yaml
from .base import Contents, DataFormat, Found, Picture, Thing, split_of, stated_size, undivided

AT = "@"  # between a JSON file and the folder of its images
KEYPOINTS = "person_keypoints"
OTHERS = ("captions", "panoptic", "stuff", "image_info", KEYPOINTS)
"""What else COCO's annotation folders hold; keypoints are asked for by their task."""


class CocoJson(DataFormat):
    """``x.json``, ``x.json@images/``, a folder with ``annotations/*.json``, or a yaml that names them."""

    title: ClassVar[str] = "COCO JSON"

    def find(self, data: str) -> Found | None:
        """See ``DataFormat.find``."""
        # with the suffix before it: an @ may be part of any folder's name
        name, _, images = data.partition(f".json{AT}")
        if images:
            return _of_file(Path(f"{name}.json"), data, Path(images))
        path = Path(data)
        if path.suffix.lower() == ".json":
            return _of_file(path, data, None)
        if is_without_yaml(path):
            return _of_folder(path, data)
        return _of_yaml(path, data) if path.suffix in {".yaml", ".yml"} and path.is_file() else None

    def read(self, found: Found, *, keypoints: bool) -> Contents:
        """See ``DataFormat.read``."""
        splits = {
            split: [_Annotations(_for_task(f, keypoints)) for f in files] for split, files in found.splits.items()
        }
        every = [part for parts in splits.values() for part in parts]
        # over all splits: a class that only training has must not move the others' indices
        known = _categories(every)
        contents = Contents(
            tuple(known.values()),
            # an unknown category is reported with its annotation, when that is read
            frozenset(list(known).index(i) for part in every for i in part.used if i in known),
            {},
            _keypoints(every),
        )
        contents.splits = {s: _pictures(parts, known, found, s, contents) for s, parts in splits.items()}
        return contents


# -- where files are


def _of_file(path: Path, source: str, images: Path | None) -> Found:
    if not path.is_file():
        raise DataError(f"data '{path}' does not exist; name COCO's annotations, for instance instances_val.json")
    split = split_of(path.stem)
    # a name that says nothing: the same images train and are scored
    if split is None:
        return Found(
            source, path.parent, undivided((path,)), {} if images is None else {"train": images, "val": images}
        )
    splits, word = {split: (path,)}, next(w for w in _words(path.stem) if split_of(w) == split)
    # with a folder that was named only this file is meant: that folder is of one split
    if images is None:
        for other in ("train", "val", "valid", "test"):
            twin = path.with_name(path.name.replace(word, other))
            if split_of(other) != split and twin.is_file():
                splits[str(split_of(other))] = (twin,)
    return Found(source, path.parent, splits, {} if images is None else {split: images})


def _words(name: str) -> list[str]:
    return "".join(c if c.isalpha() else " " for c in name).split()


def _of_folder(root: Path, source: str) -> Found | None:
    """COCO's own layout, and the one with ``_annotations.coco.json`` in each split's folder."""
    inside = {f: split_of(f.stem) for f in sorted((root / "annotations").glob("*.json")) if f.is_file()}
    beside = {f: split_of(f.parent.name) for f in sorted(root.glob("*/*.json")) if "coco" in f.name.casefold()}
    # one layout or the other: files of both would list the same images twice
    files = {f: split for f, split in (inside or beside).items() if not f.name.startswith(OTHERS)}
    # a data set of keypoints alone has no other annotations
    files = files or {f: split for f, split in inside.items() if f.name.startswith(KEYPOINTS)}
    if not files:
        return None
    splits: dict[str, list[Path]] = defaultdict(list)
    for file, split in files.items():
        if split is not None:
            splits[split].append(file)
    if not splits:
        if len(files) > 1:
            raise DataError(
                f"data '{root}': which split is in {', '.join(f.name for f in list(files)[:3])}? Write a yaml with "
                "train: and val:, each the path of a JSON file"
            )
        return Found(source, root, undivided(tuple(files)))
    return Found(source, root, {split: tuple(each) for split, each in splits.items()})


def _of_yaml(path: Path, source: str) -> Found | None:
    """A data yaml whose splits are JSON files; ``images:`` names their folder, or one for each split."""
    try:
        content = parse_yaml(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return None  # what reads data yamls says what is wrong
    # ``convert.CONVERTED``, which cannot be imported here, since that module imports this one
    if not isinstance(content, dict) or "converted" in content:
        return None
    root = Path(str(content.get("path") or path.parent))
    root = root if root.is_absolute() else (path.parent / root if (path.parent / root).exists() else root)
    splits = {}
    for split in ("train", "val", "test"):
        value = content.get(split)
        entries = [str(v) for v in (value if isinstance(value, list) else [value]) if v]
        # all or none: a split of both would be half a COCO data set
        if entries and all(entry.lower().endswith(".json") for entry in entries):
            splits[split] = tuple(root / entry for entry in entries)
    if not splits:
        return None
    missing = next((f for files in splits.values() for f in files if not f.is_file()), None)
    if missing is not None:
        raise DataError(f"data yaml {path} names {missing}, which does not exist")
    given = content.get("images")
    folders = given if isinstance(given, dict) else {split: given for split in splits if given}
    return Found(source, root, splits, {split: root / str(folder) for split, folder in folders.items()})


def _for_task(file: Path, keypoints: bool) -> Path:
    twin = file.with_name(file.name.replace("instances", KEYPOINTS, 1))
    return twin if keypoints and file.name.startswith("instances") and twin.is_file() else file


def _place(name: str, file: Path, folder: Path | None, root: Path) -> Path | None:
    """Where an image lies: in the folder that was named, or where such files lie beside their annotations."""
    plain = Path(name).name
    if folder is not None:
        # file_name may hold folders, of the annotations' machine or below the folder that is named
        tried = [folder / name, folder / plain]
    else:
        split = split_of(file.stem) or ""
        year = file.stem.rpartition("_")[2]  # instances_val2017 -> val2017
        # from the annotations outwards: the nearest image of that name is meant
        near = [file.parent, file.parent / "images", file.parent.parent, file.parent.parent / "images", root]
        subs = ["", year, split, f"images/{year}", f"images/{split}"]
        tried = [place / sub / n for n in dict.fromkeys((name, plain)) for place in near for sub in subs]
    return next((path for path in tried if path.is_file()), None)


# -- what they say


class _Annotations:
    """One JSON file, read and checked for its outer form."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise DataError(f"{path} cannot be read as JSON: {exc}") from exc
        if isinstance(content, list):
            raise DataError(
                f"{path} is a list: are these results? Labels hold 'images', 'annotations' and 'categories'; judge "
                "results with predictions="
            )
        lists = (
            {k: content.get(k) for k in ("images", "annotations", "categories")} if isinstance(content, dict) else {}
        )
        wrong = [key for key in ("images", "annotations", "categories") if not _dicts(lists.get(key))]
        if wrong:
            raise DataError(
                f"{path} is no COCO JSON: {', '.join(wrong)} must be lists of objects; it needs images, annotations "
                "and categories"
            )
        self.images: list[dict[str, Any]] = lists["images"] or []
        self.categories: list[dict[str, Any]] = lists["categories"] or []
        self.of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        # as they are: a number and the same number as a text are two ids, also to pycocotools
        ids = {image.get("id") for image in self.images}
        for annotation in lists["annotations"] or []:
            if annotation.get("image_id") not in ids:
                raise DataError(
                    f"{path}: annotation {annotation.get('id')} is of image {annotation.get('image_id')}, which "
                    "'images' does not list"
                )
            self.of_image[annotation["image_id"]].append(annotation)
        if len(ids) < len(self.images):
            raise DataError(f"{path}: two images share one id; every image needs its own")

    @property
    def used(self) -> set[Any]:
        """Categories of annotations."""
        return {a.get("category_id") for each in self.of_image.values() for a in each}


def _dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _categories(parts: Sequence[_Annotations]) -> dict[Any, str]:
    """Names by category id, by rising id: the class is the place in that order."""
    known: dict[Any, str] = {}
    for part in parts:
        for category in part.categories:
            number, name = category.get("id"), category.get("name")
            if not isinstance(number, int) or not isinstance(name, str):
                raise DataError(f"{part.path}: category {category} needs a whole number 'id' and a 'name'")
            # two files of one data set share their categories, or one class would be two
            if known.setdefault(number, name) != name:
                raise DataError(
                    f"{part.path}: category {number} is '{name}', but '{known[number]}' in another file of this data "
                    "set; give both files the same categories"
                )
    if not known:
        raise DataError(f"{parts[0].path} lists no categories")
    # by rising id, as Ultralytics' and pycocotools' results count them
    return {number: known[number] for number in sorted(known)}


def _keypoints(parts: Sequence[_Annotations]) -> tuple[str, ...]:
    found = {tuple(map(str, c["keypoints"])) for p in parts for c in p.categories if c.get("keypoints")}
    if len(found) > 1:
        raise DataError(f"{parts[0].path}: categories have different keypoints; a pose model has one kind")
    return found.pop() if found else ()


def _pictures(
    parts: Sequence[_Annotations], known: Mapping[Any, str], found: Found, split: str, contents: Contents
) -> Iterator[Picture]:
    index = {number: place for place, number in enumerate(known)}
    for part in parts:
        # counted to the end of the file: one missing image is a gap, all of them a wrong folder
        missing: list[str] = []
        for image in part.images:
            name = image.get("file_name")
            if not isinstance(name, str) or not name:
                raise DataError(f"{part.path}: image {image.get('id')} has no 'file_name'")
            file = _place(name, part.path, found.images.get(split), found.root)
            if file is None:
                missing.append(name)
                continue
            if missing:
                continue  # counted to the end, for the message
            reader = _Reader(part.path, index)
            labelled = part.of_image.get(image.get("id"), ())
            crowds = tuple(reader.thing(a) for a in labelled if a.get("iscrowd"))
            for _ in crowds:
                contents.note("crowd regions are left out, as Ultralytics does")
            yield Picture(
                name,
                file,
                size=stated_size(image.get("height"), image.get("width")),
                things=tuple(reader.thing(a) for a in labelled if not a.get("iscrowd")),
                crowds=crowds,
            )
        if missing:
            looked = found.images.get(split) or f"{part.path.parent} and beside it"
            raise DataError(
                f"{part.path}: {len(missing)} of {len(part.images)} images are missing, the first is '{missing[0]}' "
                f"(looked in {looked}); name their folder: data={part.path.name}{AT}<folder>"
            )


@dataclass(frozen=True)
class _Reader:
    path: Path
    index: Mapping[Any, int]

    def thing(self, annotation: Mapping[str, Any]) -> Thing:
        """One annotation."""
        where = f"{self.path}: annotation {annotation.get('id')}"
        if annotation.get("category_id") not in self.index:
            raise DataError(f"{where} has category {annotation.get('category_id')}, which 'categories' does not list")
        outline = self._polygons(annotation.get("segmentation"), where)
        box = annotation.get("bbox")
        try:
            # some tools write the outline alone
            if box is None and outline:
                points = np.concatenate(outline)
                box = [*points.min(axis=0), *(points.max(axis=0) - points.min(axis=0))]
            x, y, width, height = (float(v) for v in box)  # type: ignore[union-attr]
            marked = annotation.get("keypoints")
            keypoints = None if marked is None else np.array(marked, dtype=np.float64).reshape(-1, 3)
        except (TypeError, ValueError) as exc:
            raise DataError(f"{where}: 'bbox' must be x, y, width, height in pixels, and 'keypoints' triples") from exc
        drawn = Drawn((x, y, x + width, y + height), tuple(outline), keypoints)
        return Thing(self.index[annotation["category_id"]], drawn, where)

    def _polygons(self, segmentation: Any, where: str) -> list[np.ndarray]:
        if not segmentation:
            return []
        if isinstance(segmentation, dict):
            return _outlines(segmentation)
        try:
            found = [np.array(part, dtype=np.float64).reshape(-1, 2) for part in segmentation]
        except (TypeError, ValueError) as exc:
            raise DataError(f"{where}: 'segmentation' must be polygons x1, y1, x2, y2 ..., or run lengths") from exc
        # fewer points enclose nothing
        return [polygon for polygon in found if len(polygon) >= 3]


def _outlines(rle: Mapping[str, Any]) -> list[np.ndarray]:
    """Outlines of an encoded mask, the outer ones."""
    import cv2

    # cropped to what is set, and where that lies
    mask, corner = decode(rle)
    if not mask.size:
        return []
    # the outer ones alone: label files cannot hold holes
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = [np.asarray(c).reshape(-1, 2).astype(np.float64) + np.array(corner) for c in found if len(c) >= 3]
    if parts:
        return parts
    (left, top), (height, width) = corner, mask.shape  # a line of pixels has no outline of three points
    return [np.array([[left, top], [left + width, top], [left + width, top + height], [left, top + height]], float)]
