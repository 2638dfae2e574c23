"""Verification of a Jetson's bundle: the engine is built before anything is compared."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from device_fakes import INFO, PLANNED, FakeCuda, install
from fake_tensorrt import Release

from yoloquant.bundle.tolerances import TOLERANCES
from yoloquant.runtime import __main__ as command
from yoloquant.runtime.apps.golden import Golden
from yoloquant.runtime.apps.verify import Verification, VerifyResult, verify
from yoloquant.runtime.backends import tensorrt as backend
from yoloquant.runtime.core.bundle_manifest import FILE_NAME, BundleManifest
from yoloquant.runtime.core.folder_check import FileEntry
from yoloquant.runtime.tensorrt import build
from yoloquant.runtime.tensorrt.build_options import Sources


@pytest.fixture
def bundle(sources: Sources) -> Path:
    """A bundle without golden inputs, which the stand-in of TensorRT could not compute."""
    folder = sources.onnx.parent
    files = {p.name: FileEntry(hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_size) for p in folder.iterdir()}
    manifest = BundleManifest("tensorrt", "jetson", "tensorrt", "best.onnx", INFO, files, expected_int8=PLANNED)
    golden = Golden((), TOLERANCES).to_dict()
    (folder / FILE_NAME).write_text(replace(manifest, golden=golden).signed().text())
    return folder


def _release(monkeypatch: pytest.MonkeyPatch, name: str = "10.3.0") -> Release:
    release = install(name, monkeypatch)
    release.compute = lambda inputs: {"output0": np.zeros((1, 6, 64), np.float32)}
    for module in (build, backend):
        monkeypatch.setattr(module, "open_cuda", lambda device: FakeCuda(release))
    return release


def _engine_message(outcome: Verification) -> str:
    (check,) = (check for check in outcome.checks if check.name == "engine")
    return check.message


@pytest.mark.parametrize("name", ["8.6.1", "10.3.0", "11.0.0"])
def test_the_engine_is_built_once_and_then_found(name: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = _release(monkeypatch, name)
    first = verify(bundle)
    found = {check.name: check.result for check in first.checks}
    assert found["engine"] is found["runtime"] is VerifyResult.PASS
    assert first.result is VerifyResult.INCONCLUSIVE  # nothing was compared
    assert "built here: best" in _engine_message(first)
    assert "2 of 2 planned layers run in Int8" in _engine_message(first)
    assert [check.name for check in first.checks][:3] == ["files", "engine", "runtime"]
    assert "already there: best" in _engine_message(verify(bundle))
    assert len(release.builders) == 1


def test_an_engine_with_other_options_is_not_built_again(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = _release(monkeypatch)
    assert command.main(["build_engine", f"bundle={bundle}", "workspace=1"]) == 0
    assert "already there" in _engine_message(verify(bundle)) and len(release.builders) == 1


def test_a_damaged_engine_is_built_again(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = _release(monkeypatch)
    verify(bundle)
    (engine,) = (bundle / build.FOLDER).glob("*.engine")
    engine.write_bytes(engine.read_bytes()[:-1])
    assert "built here" in _engine_message(verify(bundle)) and len(release.builders) == 2


def test_layers_in_another_type_fail_with_their_names(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _release(monkeypatch).float_layers = {"stem"}
    assert command.main(["verify", f"bundle={bundle}"]) == 1
    assert "fail         engine:" in (said := capsys.readouterr().out) and "in another type: stem" in said
