"""Classifiers' images equal those of torchvision's transforms, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from yoloquant.runtime.core.crop import CropCanvas, place_crop


@pytest.mark.parametrize("size", [(480, 640), (300, 257), (224, 400), (100, 150), (1000, 224), (37, 61), (64, 64)])
@pytest.mark.parametrize("imgsz", [(224, 224), (64, 64), (96, 64)])
def test_equals_torchvision(size: tuple[int, int], imgsz: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    canvas = CropCanvas(size, imgsz)
    canvas.fill(image)
    resize = transforms.Resize(imgsz[0] if imgsz[0] == imgsz[1] else imgsz)
    wanted = np.array(transforms.Compose([resize, transforms.CenterCrop(imgsz)])(Image.fromarray(image)))
    np.testing.assert_array_equal(canvas.pixels, wanted)


def test_says_where_the_image_lies() -> None:
    where = place_crop((100, 200), (50, 50))
    assert (where.resized, where.left, where.top) == ((50, 100), -25, 0)
    corners = where.points_to_original(np.array([[0, 0], [50, 50]], np.float32))
    np.testing.assert_allclose(corners, [[50, 0], [150, 100]])
