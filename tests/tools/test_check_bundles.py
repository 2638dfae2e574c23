"""The check of bundles: a faulty exporter's file has the same integers on another grid, and is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from core_models import checkpoint, write_images
from onnx import numpy_helper

from tools import check_bundles as tool
from yoloquant.errors import UsageError


def _constants(folder: Path) -> dict[str, np.ndarray]:
    (path,) = folder.glob("*.onnx")
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def test_a_bundle_verifies_and_a_spoiled_one_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_images(tmp_path / "set", train=8, val=2)
    options = {
        **tool.DEFAULTS, "models": str(checkpoint(tmp_path / "m.pt")), "data": str(data), "devices": "onnx",
        "imgsz": "64", "images": "8", "layers": "1", "off": "80", "output": str(tmp_path / "made"),
    }  # fmt: skip
    healthy, bundled, spoiled = tool.run(options).strip().splitlines()[2:]
    assert "| healthy | native | pass |" in healthy
    assert "off by 80% | native | fail |" in spoiled
    assert "off by 80% | at export | refused: 1 of " in bundled and "another range in 'm-onnxruntime.onnx'" in bundled
    assert not (tmp_path / "made" / "m-onnx-refused").exists()
    assert "healthy" in capsys.readouterr().err, "each row is seen as it comes"
    right, wrong = (_constants(tmp_path / "made" / name) for name in ("exports", "spoiled"))
    assert right.keys() == wrong.keys()
    integers = [k for k, v in right.items() if v.dtype == np.int8]
    assert integers
    assert all(np.array_equal(right[k], wrong[k]) for k in integers), "the integers are the same"
    scales = [k for k in right if k.endswith("/scale") and not k.endswith(":bias/scale")]
    assert len([k for k in scales if np.allclose(wrong[k], right[k] * 1.8)]) == 1, "of one layer"
    assert len([k for k in scales if np.array_equal(wrong[k], right[k])]) == len(scales) - 1, "and of no other"


def test_models_without_data() -> None:
    with pytest.raises(UsageError, match="give one for each"):
        tool.run({**tool.DEFAULTS, "models": "a.pt,b.pt"})
