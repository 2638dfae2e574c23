from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import pytest
from device_fakes import install, qdq_model
from fake_tensorrt import RELEASES, Release

from yoloquant.runtime.tensorrt.build_options import Sources
from yoloquant.runtime.tensorrt.calibration_cache import dump
from yoloquant.targets.tensorrt.half import to_half


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a disk holds what it was given is not tested here, and asking takes long."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@lru_cache(maxsize=1)
def _models() -> tuple[bytes, bytes, bytes]:
    made = (qdq_model(), to_half(qdq_model()), qdq_model(quantized=False))
    return tuple(model.SerializeToString() for model in made)  # type: ignore[return-value]


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """The models of a bundle: Q/DQ, strongly typed, and plain with its cache."""
    found = Sources.beside(tmp_path / "best.onnx")
    for path, content in zip((found.onnx, found.strongly_typed, found.plain), _models(), strict=True):
        path.write_bytes(content)
    found.calibration.write_text(dump({"images": 0.05, "stem_out": 0.05, "last_out": 0.25}))
    return found


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Each release in turn, installed as the module ``tensorrt``."""
    return install(request.param, monkeypatch)
