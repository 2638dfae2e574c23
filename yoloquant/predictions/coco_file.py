"""COCO results JSON (https://cocodataset.org/#format-results) as records of images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..runtime.core.model_info import ModelInfo
from .categories import ClassIds, class_table
from .image_keys import ImageKeys

LARGEST = 4 << 30
"""Bytes of a file that is read: COCO's 5,000 images with 300 results each take a tenth of it."""


@dataclass(frozen=True)
class CocoNames:
    """What a COCO annotation file says about ids.

    Attributes:
        images: File name by image id.
        categories: Class name by category id.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> CocoNames:
        """Read an annotation file; nothing is known without one.

        Raises:
            DataError: It is no such file.
        """
        if path is None:
            return cls()
        data = read_json(path, "annotations")
        try:
            # as texts: a result may hold the same id as a number or as a text
            images = {str(item["id"]): str(item["file_name"]) for item in data["images"]}
            return cls(images, {int(item["id"]): str(item["name"]) for item in data["categories"]})
        except (TypeError, KeyError, ValueError) as exc:
            raise DataError(
                f"annotations '{path}' have no list of images (id, file_name) and categories (id, name): {exc!r}"
            ) from exc


def read_json(path: Path, what: str) -> Any:
    """Parse a JSON file that anybody may have written.

    Raises:
        DataError: It cannot be read, is too large, or is no JSON.
    """
    try:
        # asked before reading: json.loads holds a file several times over in memory
        if path.stat().st_size > LARGEST:
            raise DataError(f"{what} '{path}' are larger than {LARGEST >> 30} GB; score fewer images")
        # bytes: json finds out the encoding, which on Windows is often UTF-16
        return json.loads(path.read_bytes())
    except OSError as exc:
        raise DataError(f"{what} '{path}' cannot be read ({exc.strerror or exc})") from exc
    except (ValueError, RecursionError) as exc:
        raise DataError(f"{what} '{path}' are no JSON: {exc}") from exc


def read_coco(
    path: Path, images: ImageKeys, info: ModelInfo, ids_are: ClassIds, names: CocoNames
) -> tuple[dict[int, dict[str, Any]], str]:
    """Records by place of the image, and how categories were read.

    Raises:
        DataError: It is no such list, or about other images or classes.
    """
    entries = read_json(path, "predictions")
    if isinstance(entries, dict) and isinstance(entries.get("annotations"), list):
        entries = entries["annotations"]  # results inside an annotation file, as labelling tools write them
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(
            f"predictions '{path}' are no COCO results: a JSON list of objects with image_id, category_id, bbox (x, y, "
            "width, height in pixels) and score"
        )
    try:
        numbers = np.array([int(entry["category_id"]) for entry in entries], dtype=np.int64)
        boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
        scores = np.array([float(entry["score"]) for entry in entries], dtype=np.float64)
        # the file's name where there is one: ids mean something only beside their annotation file
        keys = [entry.get("file_name", entry["image_id"]) for entry in entries]
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise DataError(
            f"predictions '{path}': a result lacks image_id, category_id, bbox or score, or it is no number ({exc!r})"
        ) from exc
    table, how = class_table(numbers, info.names, ids_are, path, _categories(entries, names))
    # to corners, in float64: large coordinates lose less there
    boxes[:, 2:] += boxes[:, :2]
    found: dict[int, dict[str, Any]] = {}
    places: dict[Any, int | None] = {}
    foreign = []
    for index, key in enumerate(keys):
        # once for each image and not for each result, of which there are hundreds
        if str(key) not in places:
            places[str(key)] = images.find(key)
        place = places[str(key)]
        if place is None:
            foreign.append(key)
            continue
        record = found.setdefault(place, {"xyxy": [], "confidence": [], "class_id": []})
        record["xyxy"].append(boxes[index])
        record["confidence"].append(scores[index])
        record["class_id"].append(table[int(numbers[index])])
        for name, value in _further(entries[index], info).items():
            record.setdefault(name, []).append(value)
    # all of them together, so that the message can say how many
    images.refuse_foreign(foreign, path)
    return found, how


def _categories(entries: list[dict[str, Any]], names: CocoNames) -> Mapping[int, str]:
    if names.categories:
        return names.categories
    stated = {int(e["category_id"]): str(e["category_name"]) for e in entries if "category_name" in e}
    # all or none: half of them by name would leave the others to guessing
    return stated if all("category_name" in e for e in entries) else {}


def _further(entry: Mapping[str, Any], info: ModelInfo) -> dict[str, Any]:
    """What a result has besides its box, as ``predict`` records it."""
    found: dict[str, Any] = {}
    if "segmentation" in entry:
        found["masks"] = entry["segmentation"]
    if "keypoints" in entry and info.kpt_shape is not None:
        found["keypoints"] = _points(entry["keypoints"], info.kpt_shape)
    if "rbox" in entry:
        found["rotated"] = entry["rbox"]
    return found


def _points(flat: Any, shape: tuple[int, int]) -> Any:
    """Keypoints as rows; COCO always has three numbers each."""
    if not isinstance(flat, list) or len(flat) % 3 or len(flat) != 3 * shape[0]:
        return flat  # which is refused where its shape is checked
    return [flat[i : i + shape[1]] for i in range(0, len(flat), 3)]
