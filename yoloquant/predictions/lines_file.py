"""JSON lines, one image each, as ``predict output=found.jsonl`` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..runtime.core.class_order import plain_name
from ..runtime.core.model_info import ModelInfo
from .image_keys import ImageKeys


def read_lines(path: Path, images: ImageKeys, info: ModelInfo) -> dict[int, dict[str, Any]]:
    """Records by place of the image.

    Raises:
        DataError: A line is no such object, or about another image or class.
    """
    found: dict[int, dict[str, Any]] = {}
    foreign = []
    try:
        with path.open("rb") as stream:
            # line by line: a file with masks may be larger than memory
            for number, line in enumerate(stream, 1):
                record = _record(line, path, number)
                if record is None:
                    continue
                key = record["file"]
                place = images.find(key)
                if place is None:
                    foreign.append(key)
                    continue
                if place in found:
                    raise DataError(f"predictions '{path}', line {number}: image '{key}' is there twice")
                _check_classes(record, info, path, number)
                found[place] = record
    except OSError as exc:
        raise DataError(f"predictions '{path}' cannot be read ({exc.strerror or exc})") from exc
    images.refuse_foreign(foreign, path)
    return found


def _record(line: bytes, path: Path, number: int) -> dict[str, Any] | None:
    """One line; None for an empty one, or for the summary that ``predict`` says at the end."""
    if not line.strip():
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise DataError(f"predictions '{path}', line {number} is no JSON: {exc}") from exc
    # as ``predict`` itself ends its output
    if isinstance(record, dict) and set(record) == {"summary"}:
        return None
    if not isinstance(record, dict) or "xyxy" not in record:
        raise DataError(f"predictions '{path}', line {number} is no object with file, xyxy, confidence and class_id")
    if not record.get("file"):
        raise DataError(
            f"predictions '{path}', line {number} names no image ('file'); results of a video or camera cannot be "
            "scored: predict on the folder of images"
        )
    return record


def _check_classes(record: dict[str, Any], info: ModelInfo, path: Path, number: int) -> None:
    """Refuse classes that the model does not have, or that it calls otherwise."""
    try:
        classes = np.asarray(record["class_id"], dtype=np.int64).reshape(-1)
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise DataError(f"predictions '{path}', line {number}: class_id is no list of numbers ({exc!r})") from exc
    names = record.get("names")
    for index, kind in enumerate(classes.tolist()):
        if not 0 <= kind < len(info.names):
            raise DataError(
                f"predictions '{path}', line {number}: class {kind}, the model has {len(info.names)}; predictions of "
                "another model"
            )
        # names are optional; where they are, a model with other classes is seen
        name = names[index] if isinstance(names, list) and index < len(names) else info.names[kind]
        if plain_name(str(name)) != plain_name(info.names[kind]):
            raise DataError(
                f"predictions '{path}', line {number}: class {kind} is called '{name}', in the model "
                f"'{info.names[kind]}'; predictions of another model, or made with labels=: leave that out"
            )
