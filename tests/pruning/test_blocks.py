"""Whole residual blocks: the model without them is the model with them skipped."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_models import tiny_images, tiny_yolo

from yoloquant.errors import PruneError
from yoloquant.pruning.blocks import rank, residual_blocks, without_blocks
from yoloquant.pruning.metadata import RECORD

SIZE = (64, 64)


def first(value: Any) -> torch.Tensor:
    return value[0] if isinstance(value, (tuple, list)) else value


@pytest.mark.parametrize("family", ["yolov5", "yolov8", "yolo11", "yolo12", "yolo26"])
def test_taking_blocks_out_equals_skipping_them(family: str) -> None:
    module = tiny_yolo(family).model.float().eval()
    images = list(tiny_images(2))
    count = len(list(residual_blocks(module))) // 2
    smaller, gone = without_blocks(module, count, images, SIZE)
    skipping = copy.deepcopy(module)
    for block in gone:
        skipping.get_submodule(block.path).forward = lambda x: x
    with torch.no_grad():
        expected, found = (first(m.eval()(torch.from_numpy(images[0]))) for m in (skipping, smaller))
    assert count > 0 and torch.allclose(expected, found, atol=1e-3 * float(expected.abs().max()))
    before, after = getattr(smaller, RECORD)[-1]["macs"]
    assert after < before
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in module.parameters())


def test_blocks_go_in_the_order_of_how_little_they_change() -> None:
    module = tiny_yolo("yolo11").model.float().eval()
    ranked = rank(module, tiny_images(1))
    assert [b.change for b in ranked] == sorted(b.change for b in ranked)
    path = next(b.path for b in reversed(ranked) if hasattr(module.get_submodule(b.path), "cv2"))
    last = module.get_submodule(path)
    for p in (last.cv2.bn.weight, last.cv2.bn.bias):
        p.data.zero_()  # SiLU(0) is 0: the block adds nothing any more
    assert rank(module, tiny_images(1))[0].path == path


def test_more_blocks_than_there_are_is_an_error_that_says_how_many() -> None:
    module = tiny_yolo("yolov8").model.float().eval()
    count = len(list(residual_blocks(module)))
    with pytest.raises(PruneError, match=f"has {count} residual blocks"):
        without_blocks(module, count + 1, list(tiny_images(1)), SIZE)
