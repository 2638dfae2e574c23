from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

sys.path.append(str(Path(__file__).parent))

from device_fakes import install, qdq_model
from fake_tensorrt import RELEASES, Release

from yoloquant.runtime.tensorrt.options import Sources


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """The models of a bundle: Q/DQ, strongly typed, and plain with its cache."""
    from yoloquant.runtime.tensorrt.calibration_cache import dump
    from yoloquant.targets.tensorrt.half import to_half

    found = Sources.beside(tmp_path / "best.onnx")
    onnx.save(qdq_model(), found.onnx)
    onnx.save(to_half(qdq_model()), found.strongly_typed)
    onnx.save(qdq_model(quantized=False), found.plain)
    found.calibration.write_text(dump({"images": 0.05, "stem_out": 0.05, "last_out": 0.25}))
    return found


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Each release in turn, installed as the module ``tensorrt``."""
    return install(request.param, monkeypatch)
