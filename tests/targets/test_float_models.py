"""The float model beside artifacts: made once, kept while nothing changes, and never a reason to stop."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from yoloquant.errors import TargetError
from yoloquant.targets import registry
from yoloquant.targets.float_models import FOLDER, float_model
from yoloquant.types import ExportedModel, HeadLayout, ModelInfo, Task

INFO = ModelInfo(Task.DETECT, ("a",), (64, 64), 32, (8, 16, 32))


def artifact(weights: str = "w") -> Any:
    metadata = {"weights_sha256": weights, "versions": {"torch": "1"}, "yoloquant": "0"}
    return SimpleNamespace(
        stem="m", info=INFO, model=SimpleNamespace(sha256=weights * 12), metadata=lambda: dict(metadata)
    )


class Runtime:
    def __init__(self) -> None:
        self.made: list[Path] = []
        self.fails = False

    def export_float(self, model: Any, folder: Path, stem: str) -> ExportedModel:
        if self.fails:
            raise TargetError("it cannot hold the model")
        path = folder / f"{stem}.bin"
        path.write_bytes(b"float")
        self.made.append(path)
        return ExportedModel("any", path, INFO, HeadLayout.DECODED, precision="fp32", metadata=model.metadata())


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    found = Runtime()
    monkeypatch.setattr(registry, "get", lambda name: found)
    return found


def test_it_is_made_once_for_the_same_weights(runtime: Runtime, tmp_path: Path) -> None:
    exported = ExportedModel("any", tmp_path / "m.bin", INFO, HeadLayout.DECODED)
    first, second = (float_model(artifact(), exported) for _ in range(2))
    assert first is not None and second is not None
    assert first.path == second.path == tmp_path / FOLDER / f"m_{'w' * 12}.bin"
    assert len(runtime.made) == 1
    other = float_model(artifact("v"), exported)
    assert other is not None and other.path != first.path and len(runtime.made) == 2


def test_one_that_was_changed_is_made_anew(runtime: Runtime, tmp_path: Path) -> None:
    exported = ExportedModel("any", tmp_path / "m.bin", INFO, HeadLayout.DECODED)
    first = float_model(artifact(), exported)
    assert first is not None and len(runtime.made) == 1
    first.path.write_bytes(b"another")
    assert float_model(artifact(), exported) is not None and len(runtime.made) == 2


def test_a_runtime_that_cannot_hold_it_is_logged(
    runtime: Runtime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.fails = True
    assert float_model(artifact(), ExportedModel("any", tmp_path / "m.bin", INFO, HeadLayout.DECODED)) is None
    assert "no float model to time any against: it cannot hold the model" in caplog.text
