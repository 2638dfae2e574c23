"""Results in COCO's format, which scorers of other projects read: https://cocodataset.org/#format-results."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..apps.pipeline import FrameResult
from ..errors import OutputError, UsageError
from ..tasks import TaskSpec
from .writers import Writer

FURTHER: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "masks": ("segmentation", lambda mask: mask),
    "keypoints": ("keypoints", lambda points: [value for point in points for value in point]),
    "rotated": ("rbox", lambda box: box),
    "corners": ("poly", lambda corners: [value for corner in corners for value in corner]),
}
"""What a task's record holds besides boxes, under COCO's name and in its form (as Ultralytics' ``save_json``)."""


class CocoResults(Writer):
    """A JSON list of results. It gets its name when it is finished, so that nobody scores half of it.

    A result's ``image_id`` is the image's name without its suffix, a number where it is one, and ``category_id`` counts
    classes from 1, as Ultralytics writes them; ``file_name`` and ``category_name`` say the same without a convention.

    Args:
        path: The file; replaced if it exists.
        names: Class names.
        task: The rules of the model's task.

    Raises:
        OutputError: It cannot be created.
        UsageError: The task has no boxes.
    """

    def __init__(self, path: Path, names: Sequence[str], task: TaskSpec) -> None:
        if task.class_folders:
            raise UsageError(f"output '{path}' cannot hold a {task.noun}'s results, which are no boxes; use .jsonl")
        self._path, self._names, self._task = path, names, task
        self._temporary = path.with_name(f".{path.name}.part")
        self._first = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[str] = self._temporary.open("w", encoding="utf-8")
            self._stream.write("[")
        except OSError as exc:
            raise OutputError(f"'{path}' cannot be written ({exc.strerror or exc}); choose another output=") from exc

    def write(self, result: FrameResult) -> None:
        """Append an image's results.

        Raises:
            OutputError: The disk is full.
        """
        found, frame = result.detections, result.frame
        name = frame.name or f"{frame.index:06d}"
        stem = Path(name).stem
        further = self._task.record(found, frame.image.shape[:2])
        try:
            for index in range(len(found)):
                x1, y1, x2, y2 = (float(v) for v in found.xyxy[index])
                kind = int(found.class_id[index])
                entry: dict[str, Any] = {
                    # isascii: `int` also takes the digits of other scripts, whose names would then no longer match.
                    "image_id": int(stem) if stem.isdecimal() and stem.isascii() else stem,
                    "file_name": name,
                    "category_id": kind + 1,
                    "category_name": self._names[kind] if kind < len(self._names) else str(kind),
                    "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "score": round(float(found.confidence[index]), 6),
                }
                for key, (called, form) in FURTHER.items():
                    if key in further:
                        entry[called] = form(further[key][index])
                # One by one: the results of a long video need no memory this way.
                self._stream.write(("\n" if self._first else ",\n") + json.dumps(entry, ensure_ascii=False))
                self._first = False
        except OSError as exc:
            raise self._failure(exc) from exc

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            OutputError: The disk is full.
        """
        if self._stream.closed:
            return
        try:
            self._stream.write("\n]\n")
            self._stream.close()
            os.replace(str(self._temporary), str(self._path))
        except OSError as exc:
            raise self._failure(exc) from exc

    def _failure(self, exc: OSError) -> OutputError:
        with contextlib.suppress(OSError):
            self._stream.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()
        return OutputError(f"'{self._path}' cannot be written ({exc.strerror or exc}); choose another output=")
