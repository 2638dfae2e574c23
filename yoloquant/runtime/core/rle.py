"""COCO's compressed run-length encoding of masks, as ``pycocotools.mask`` reads it."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import numpy as np

from ..errors import DataError

SIDE = 1 << 15
"""Longest side of an image whose masks are decoded: a file that states more wants memory, not a mask."""


def encode(mask: np.ndarray, corner: Tuple[int, int], size: Tuple[int, int]) -> Dict[str, Any]:
    """Encode a mask.

    Args:
        mask: uint8 or bool (height, width), a part of an image.
        corner: x and y of its first pixel in the image.
        size: Height and width of the image.

    Returns:
        ``size`` and ``counts``, the runs of zeros and ones in turn, column by column.
    """
    return {"size": [int(size[0]), int(size[1])], "counts": compress(runs(mask, corner, size))}


def runs(mask: np.ndarray, corner: Tuple[int, int], size: Tuple[int, int]) -> List[int]:
    """Lengths of the runs of zeros and ones in turn, column by column; see ``encode``."""
    # Whole columns of the image, but only those of the mask: runs go column by column (COCO).
    full = np.zeros(mask.shape[1] * size[0], dtype=np.int8).reshape(mask.shape[1], size[0])  # columns as rows
    full[:, corner[1] : corner[1] + mask.shape[0]] = mask.T != 0
    flat = full.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=np.int8(0), append=np.int8(0))) + corner[0] * size[0]
    ends = np.concatenate([[0], changes, [size[0] * size[1]]])
    # The first run is of zeros even where it has none, which the leading 0 in `ends` gives.
    lengths = np.diff(ends)
    return [int(n) for n in (lengths[:-1] if len(lengths) > 1 and lengths[-1] == 0 else lengths)]


def decode(rle: Any) -> Tuple[np.ndarray, Tuple[int, int]]:
    """Decode a mask.

    Args:
        rle: ``size`` and ``counts`` as ``encode`` gives them, or counts as a list of run lengths; from any source.

    Returns:
        The part of the image that holds the mask, uint8 (height, width), and x and y of its first pixel.

    Raises:
        DataError: It is no such encoding.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        lengths = np.array(expand(counts) if isinstance(counts, (str, bytes)) else counts, dtype=np.int64)
    except (TypeError, ValueError, KeyError, IndexError) as exc:
        raise DataError(f"a mask is no COCO run-length encoding ({exc!r}); it holds 'size' and 'counts'") from exc
    fits = 0 < height <= SIDE and 0 < width <= SIDE and lengths.ndim == 1 and bool((lengths >= 0).all())
    # The largest one as well: a sum of int64 from a hostile file may wrap around.
    if not fits or lengths.sum() > height * width or lengths.max(initial=0) > height * width:
        raise DataError(f"a mask's run lengths do not fill its size {height} x {width}")
    ends = np.cumsum(lengths)
    # Every second run is of ones: from the end of a run of zeros to its own.
    starts, stops = ends[:-1:2], ends[1::2]
    # A list of odd length ends with zeros, which nothing follows.
    starts = starts[: len(stops)]
    keep = stops > starts
    starts, stops = starts[keep], stops[keep]
    if not len(starts):
        return np.zeros((0, 0), np.uint8), (0, 0)
    left, right = int(starts[0] // height), int((stops[-1] - 1) // height) + 1
    flat = np.zeros((right - left) * height, np.uint8)
    for start, stop in zip((starts - left * height).tolist(), (stops - left * height).tolist()):
        flat[start:stop] = 1
    columns = flat.reshape(right - left, height)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return np.ascontiguousarray(columns[:, top:bottom].T), (left, top)


def expand(text: str | bytes) -> List[int]:
    """Run lengths of their text: the inverse of ``compress``.

    Raises:
        ValueError: It is cut off, or a number is too large.
    """
    data = text.encode("ascii") if isinstance(text, str) else text
    lengths: List[int] = []
    value, shift = 0, 0
    for byte in data:
        bits = byte - 48
        # Python's integers have no end, so a hostile text could grow one without limit; 40 bits hold any run.
        if not 0 <= bits < 64 or shift > 35:
            raise ValueError("counts hold what is no run length")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value |= -1 << shift
        # From the fourth on, as in pycocotools: the first three are stored as they are.
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value, shift = 0, 0
    # A group that says "more follows" was the last one.
    if shift:
        raise ValueError("counts are cut off")
    return lengths


def compress(lengths: List[int]) -> str:
    """Runs as text: differences to the run before the last, in groups of five bits (``rleToString`` of pycocotools)."""
    text: List[str] = []
    for index, length in enumerate(lengths):
        value = length - lengths[index - 2] if index > 2 else length
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(text)
