"""Reading YOLO label files, with errors that name the file and the line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np

from ..errors import DataError

TOLERANCE = 0.01
"""How far a coordinate may lie outside 0 to 1; Ultralytics allows the same."""


@dataclass(frozen=True)
class Row:
    """One line of a label file.

    Attributes:
        where: File and line, for messages.
        label: Class index.
        values: The numbers behind it, as they stand.
    """

    where: str
    label: int
    values: Tuple[float, ...]

    def check_inside(self, coordinates: Sequence[float]) -> None:
        """Raise DataError unless coordinates are normalised."""
        if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in coordinates):
            shown = " ".join(f"{value:g}" for value in coordinates[:4])
            raise DataError(
                f"{self.where}: coordinates {shown} are outside 0 to 1; they are normalised by the image size"
            )

    def check_size(self) -> None:
        """Raise DataError if the box at the start has a negative side."""
        if min(self.values[2:4]) < 0:
            raise DataError(f"{self.where}: negative width or height {self.values[2]:g} {self.values[3]:g}")


def read_rows(path: Path, classes: int, form: str) -> List[Row]:
    """Read the lines of a label file.

    Args:
        path: The file; a missing one means an image without objects, as for Ultralytics.
        classes: Number of classes.
        form: What a line holds, for messages.

    Raises:
        DataError: The file cannot be read, a word is no number, or a class is out of range.
    """
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"label file {path} cannot be read: {exc}; expected UTF-8 text") from exc
    lines = ((number, line.split()) for number, line in enumerate(text.splitlines(), start=1))
    return [_row(words, classes, f"{path}:{number}", form) for number, words in lines if words]


def _row(words: List[str], classes: int, where: str, form: str) -> Row:
    try:
        values = [float(word) for word in words]
    except ValueError as exc:
        raise DataError(f"{where}: {exc}; a label line is {form}") from exc
    label = values[0]
    # The remainder also catches nan and inf, which `float` reads without complaint.
    if label % 1 != 0 or not 0 <= label < classes:
        raise DataError(
            f"{where}: class {words[0]} is out of range; the data yaml names the classes 0 to {classes - 1}"
        )
    return Row(where, int(label), tuple(values[1:]))


def first_of_each(rows: Sequence[Row]) -> np.ndarray:
    """Indices (k,) of the rows that are no duplicate of an earlier one, in order.

    Rows are compared as they stand: two polygons of one box are two objects (so for Ultralytics 8.4.190), which a table
    of boxes would take for one.
    """
    first: Dict[Tuple[int, bytes], int] = {}
    for index, row in enumerate(rows):
        # In float32, in which Ultralytics compares: what differs beyond it is one label. Plus 0 makes -0 equal to 0.
        first.setdefault((row.label, (np.array(row.values, np.float32) + 0).tobytes()), index)
    return np.array(list(first.values()), dtype=np.int64)


def arrays(rows: Sequence[Row], boxes: Sequence[Sequence[float]]) -> Tuple[np.ndarray, np.ndarray]:
    """Classes int64 (n,) and boxes float32 (n, 4)."""
    return (
        np.array([row.label for row in rows], dtype=np.int64),
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
    )


BOX_FORM = "'class x y width height', normalised to 0..1"


def read_boxes(path: Path, classes: int) -> Tuple[np.ndarray, np.ndarray]:
    """Read one label file: ``class x y w h`` or ``class x1 y1 x2 y2 ...`` (a polygon, of which the box is taken).

    Args:
        path: The file; a missing one means an image without objects, as for Ultralytics.
        classes: Number of classes.

    Returns:
        Classes int64 (n,) and boxes float32 (n, 4) as normalised xywh; duplicate lines removed.

    Raises:
        DataError: A line is malformed or out of range.
    """
    rows = read_rows(path, classes, BOX_FORM)
    labels, boxes = arrays(rows, [_box(row) for row in rows])
    keep = first_of_each(rows)
    return labels[keep], boxes[keep]


def _box(row: Row) -> Sequence[float]:
    count = len(row.values)
    if count != 4 and (count < 6 or count % 2):
        raise DataError(
            f"{row.where}: {count + 1} columns; a label line is 'class x y width height'; are these labels of another "
            "task?"
        )
    row.check_inside(row.values)
    if count > 4:
        return polygon_box(row.values)
    row.check_size()
    return row.values


def polygon_box(values: Sequence[float]) -> Tuple[float, float, float, float]:
    """The box around a polygon x1 y1 x2 y2 ... as xywh."""
    x, y = values[0::2], values[1::2]
    return (min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)
