"""Reading YOLO label files, with errors that name the file and the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError

TOLERANCE = 0.01
"""How far a coordinate may lie outside 0 to 1; Ultralytics allows the same."""


def read_labels(path: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read one label file: ``class x y w h`` or ``class x1 y1 x2 y2 ...`` (a polygon, of which the box is taken).

    Args:
        path: The file; a missing one means an image without objects, as for Ultralytics.
        classes: Number of classes.

    Returns:
        Classes int64 (n,) and boxes float32 (n, 4) as normalised xywh; exact duplicates removed.

    Raises:
        DataError: A line is malformed or out of range.
    """
    if not path.is_file():
        return np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"label file {path} cannot be read: {exc}; expected UTF-8 text") from exc
    rows = [
        _row(words, classes, f"{path}:{number}")
        for number, line in enumerate(text.splitlines(), start=1)
        if (words := line.split())
    ]
    if not rows:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32)
    table = np.array(rows, dtype=np.float32)
    _, first = np.unique(table, axis=0, return_index=True)
    table = table[np.sort(first)]
    return table[:, 0].astype(np.int64), table[:, 1:]


def _row(words: list[str], classes: int, where: str) -> tuple[float, ...]:
    try:
        values = [float(word) for word in words]
    except ValueError as exc:
        raise DataError(f"{where}: {exc}; a label line is 'class x y width height', normalised to 0..1") from exc
    polygon = len(values) > 5 and len(values) % 2 == 1
    if len(values) != 5 and not polygon:
        raise DataError(f"{where}: {len(values)} columns; a label line is 'class x y width height'")
    label, points = values[0], values[1:]
    if label % 1 != 0 or not 0 <= label < classes:
        raise DataError(
            f"{where}: class {words[0]} is out of range; the data yaml names the classes 0 to {classes - 1}"
        )
    if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in points):
        raise DataError(f"{where}: coordinates {words[1:5]} are outside 0 to 1; boxes are normalised by the image size")
    if polygon:
        x, y = points[0::2], points[1::2]
        points = [(min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)]
    elif min(points[2:]) < 0:
        raise DataError(f"{where}: negative width or height {words[3:5]}")
    return (label, *points)
