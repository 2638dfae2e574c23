"""The check of bundles: a faulty exporter's file has the same integers on another grid, and is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from core_models import checkpoint, tiny_artifact, write_images
from onnx import numpy_helper

from tools import check_bundles as tool
from yoloquant import targets
from yoloquant.errors import UsageError
from yoloquant.targets.export import export


def _constants(path: Path) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def test_spoiled_files_have_the_same_integers(tmp_path: Path) -> None:
    artifact, target = tiny_artifact(), targets.get("onnxruntime")
    name, faulty = tool.spoiled(artifact, target, 1, 0.25)
    files = [export(a, [target], folder=tmp_path / str(i)).exports[0].path for i, a in enumerate((artifact, faulty))]
    healthy, wrong = (_constants(path) for path in files)
    scale = f"{name}:weight/scale"
    assert healthy.keys() == wrong.keys()
    assert np.allclose(wrong[scale], healthy[scale] * 1.25)
    assert healthy[scale].size, "one scale for each channel"
    integers = [k for k, v in healthy.items() if v.dtype == np.int8]
    assert integers
    assert all(np.array_equal(healthy[k], wrong[k]) for k in integers)
    others = [k for k, v in healthy.items() if k != scale and v.dtype == np.float32]
    assert all(np.array_equal(healthy[k], wrong[k]) for k in others), "one layer alone"


def test_a_bundle_verifies_and_a_spoiled_one_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_images(tmp_path / "set", train=8, val=2)
    options = {
        **tool.DEFAULTS, "models": str(checkpoint(tmp_path / "m.pt")), "data": str(data), "devices": "onnx",
        "imgsz": "64", "images": "8", "layers": "1", "off": "80",
    }  # fmt: skip
    healthy, spoiled = tool.run(options).strip().splitlines()[2:]
    assert "| healthy | native | pass |" in healthy
    assert "off by 80% | native | fail |" in spoiled
    assert "healthy" in capsys.readouterr().err, "each row is seen as it comes"


def test_models_without_data() -> None:
    with pytest.raises(UsageError, match="give one for each"):
        tool.run({**tool.DEFAULTS, "models": "a.pt,b.pt"})
