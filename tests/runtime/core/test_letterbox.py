"""Letterboxing equals Ultralytics' validation loader, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from yoloquant.data.dataset import ValidationSet
from yoloquant.runtime.core.letterbox import letterbox, place


@pytest.mark.parametrize("imgsz", [(64, 64), (96, 64), (160, 160)])
@pytest.mark.parametrize("size", [(48, 64), (37, 101), (101, 37), (64, 64), (200, 199), (11, 300)])
def test_pixels_and_boxes_equal_ultralytics(tmp_path: Path, size: tuple[int, int], imgsz: tuple[int, int]) -> None:
    from ultralytics.data import YOLODataset
    from ultralytics.utils.ops import xywh2xyxy
    from validation_fakes import write_dataset

    yaml = write_dataset(tmp_path / "set", count=2, size=size)
    ours = ValidationSet.from_yaml(yaml)
    folder = str(tmp_path / "set" / "images" / "val")
    size_for_host = imgsz[0] if imgsz[0] == imgsz[1] else imgsz
    try:
        theirs = YOLODataset(
            img_path=folder, imgsz=size_for_host, augment=False, data={"names": dict(enumerate(ours.names))}
        )
    except TypeError:
        pytest.skip("this release takes square sizes only")
    for index in range(2):
        image, where = letterbox(ours.read(index), imgsz)
        sample = theirs[index]
        np.testing.assert_array_equal(image[0], sample["img"].float().numpy() / 255)
        item = ours.images[index]
        expected = xywh2xyxy(sample["bboxes"]).numpy() * np.array([imgsz[1], imgsz[0]] * 2)
        np.testing.assert_allclose(where.to_input(item.boxes), expected, atol=1e-3)
        np.testing.assert_array_equal(item.classes, sample["cls"].flatten().numpy())


def test_boxes_return_to_the_original() -> None:
    where = place((37, 101), (64, 64))
    boxes = np.array([[0.5, 0.5, 0.25, 0.5], [0.2, 0.3, 0.1, 0.1]], dtype=np.float32)
    back = where.to_original(where.to_input(boxes))
    width, height = back[:, 2] - back[:, 0], back[:, 3] - back[:, 1]
    np.testing.assert_allclose(width, boxes[:, 2] * 101, rtol=1e-4)
    np.testing.assert_allclose(height, boxes[:, 3] * 37, rtol=1e-4)
    np.testing.assert_allclose((back[:, 0] + back[:, 2]) / 2, boxes[:, 0] * 101, rtol=1e-4)
    assert where.area_scale == pytest.approx((37 * 101) / (where.extent[0] * where.extent[1]))
