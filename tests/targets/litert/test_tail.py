"""The torch decode tail against the numpy decode."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from yoloquant.runtime.core.decode import decode_levels  # noqa: E402
from yoloquant.targets.litert.tail import DecodeTail  # noqa: E402
from yoloquant.types import ModelInfo, Task  # noqa: E402

IMGSZ = (64, 96)
STRIDES = (8, 16, 32)


def levels(info: ModelInfo, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random raw head outputs, NHWC."""
    rng = np.random.default_rng(seed)
    maps = [(IMGSZ[0] // s, IMGSZ[1] // s) for s in STRIDES]
    boxes = [rng.normal(2, 2, (1, h, w, 4 * info.reg_max)).astype(np.float32) for h, w in maps]
    scores = [rng.normal(-1, 3, (1, h, w, len(info.names))).astype(np.float32) for h, w in maps]
    return boxes, scores


@pytest.mark.parametrize("end2end", [False, True])
@pytest.mark.parametrize("reg_max", [1, 8, 16])
@pytest.mark.parametrize("classes", [1, 7])
def test_tail_equals_numpy_decode(reg_max: int, end2end: bool, classes: int) -> None:
    names = tuple(str(i) for i in range(classes))
    info = ModelInfo(Task.DETECT, names, IMGSZ, strides=STRIDES, reg_max=reg_max, end2end=end2end, max_det=25)
    boxes, scores = levels(info, seed=classes)
    expected = decode_levels(boxes, scores, info)
    nchw = [[torch.from_numpy(x).permute(0, 3, 1, 2) for x in kind] for kind in (boxes, scores)]
    with torch.no_grad():
        decoded = DecodeTail(info, normalize=False)(*nchw).numpy()
    np.testing.assert_allclose(decoded, expected, rtol=1e-4, atol=1e-3)


def test_normalized_boxes_are_fractions_of_width_and_height() -> None:
    info = ModelInfo(Task.DETECT, ("a", "b"), IMGSZ, strides=STRIDES)
    boxes, scores = ([torch.from_numpy(x).permute(0, 3, 1, 2) for x in kind] for kind in levels(info, seed=3))
    with torch.no_grad():
        pixels, fractions = (DecodeTail(info, normalize=n)(boxes, scores).numpy() for n in (False, True))
    size = np.array([IMGSZ[1], IMGSZ[0], IMGSZ[1], IMGSZ[0]])[None, :, None]
    np.testing.assert_allclose(fractions[:, :4] * size, pixels[:, :4], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(fractions[:, 4:], pixels[:, 4:])
