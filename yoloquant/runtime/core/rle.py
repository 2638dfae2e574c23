"""COCO's compressed run-length encoding of masks, as ``pycocotools.mask`` reads it."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import numpy as np


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
    full = np.zeros(mask.shape[1] * size[0], dtype=np.int8).reshape(mask.shape[1], size[0])  # columns as rows
    full[:, corner[1] : corner[1] + mask.shape[0]] = mask.T != 0
    flat = full.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=np.int8(0), append=np.int8(0))) + corner[0] * size[0]
    ends = np.concatenate([[0], changes, [size[0] * size[1]]])
    lengths = np.diff(ends)
    return [int(n) for n in (lengths[:-1] if len(lengths) > 1 and lengths[-1] == 0 else lengths)]


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
