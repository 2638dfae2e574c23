"""Run lengths of masks are those that COCO's tools write."""

from __future__ import annotations

import numpy as np
import pytest

from yoloquant.runtime.core.rle import compress, decode, encode, expand, runs
from yoloquant.runtime.errors import DataError


def decoded(lengths: list[int], size: tuple[int, int]) -> np.ndarray:
    values = np.repeat(np.arange(len(lengths)) % 2, lengths)
    return values.reshape(size[1], size[0]).T


@pytest.mark.parametrize("seed", range(6))
def test_runs_give_the_mask_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(8, 30)), int(rng.integers(8, 30)))
    height, width = int(rng.integers(1, size[0])), int(rng.integers(1, size[1]))
    x, y = int(rng.integers(0, size[1] - width + 1)), int(rng.integers(0, size[0] - height + 1))
    mask = (rng.random((height, width)) < 0.6).astype(np.uint8)
    lengths = runs(mask, (x, y), size)
    full = np.zeros(size, np.int64)
    full[y : y + height, x : x + width] = mask
    assert sum(lengths) == size[0] * size[1] and all(n > 0 for n in lengths[1:])
    np.testing.assert_array_equal(decoded(lengths, size), full)
    assert expand(compress(lengths)) == lengths
    part, (left, top) = decode(encode(mask, (x, y), size))
    again = np.zeros(size, np.int64)
    again[top : top + part.shape[0], left : left + part.shape[1]] = part
    np.testing.assert_array_equal(again, full)


def test_an_empty_mask_comes_back_empty() -> None:
    assert decode(encode(np.zeros((2, 2), np.uint8), (1, 1), (5, 5)))[0].size == 0


@pytest.mark.parametrize(
    "rle",
    [
        None,
        {"size": [4, 4]},
        {"size": [4], "counts": [16]},
        {"size": [4, 4], "counts": [20]},
        {"size": [4, 4], "counts": [3, -1]},
        {"size": [4, 4], "counts": "6\x7f"},
        {"size": [4, 4], "counts": "P"},
        {"size": [1 << 40, 4], "counts": [3]},
    ],
)
def test_what_is_no_encoding_is_refused(rle: object) -> None:
    with pytest.raises(DataError):
        decode(rle)


def test_text_is_pycocotools() -> None:
    """Values that pycocotools 2.0 prints for these masks."""
    assert compress([0, 1]) == "01"
    assert compress([6, 1, 40, 4, 5, 4, 5, 4, 21]) == "61X13mN000`0"
    full = encode(np.ones((3, 3), np.uint8), (0, 0), (3, 3))
    assert full == {"size": [3, 3], "counts": "09"}
    assert encode(np.zeros((0, 0), np.uint8), (0, 0), (2, 3))["counts"] == "6"
