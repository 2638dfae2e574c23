"""The verb build_engine on a bundle's folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from device_fakes import INFO, PLANNED, FakeCuda, install
from fake_tensorrt import Release

from yoloquant.runtime.core.bundle_manifest import FILE_NAME, BundleManifest, read
from yoloquant.runtime.core.folder_check import FileEntry
from yoloquant.runtime.tensorrt import build, main
from yoloquant.runtime.tensorrt.build_options import Sources


@pytest.fixture
def bundle(sources: Sources) -> Path:
    folder = sources.onnx.parent
    files = {p.name: FileEntry(hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_size) for p in folder.iterdir()}
    manifest = BundleManifest("tensorrt", "jetson", "tensorrt", "best.onnx", INFO, files, expected_int8=PLANNED)
    (folder / FILE_NAME).write_text(manifest.signed().text())
    return folder


def _run(release: Release, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> tuple[int, str]:
    monkeypatch.setattr(build, "open_cuda", lambda device: FakeCuda(release))
    said: list[str] = []
    code = main({k: str(v) for k, v in arguments.items()}, said.append)
    return code, "\n".join(said)


def test_engine_is_built_and_the_bundle_stays_whole(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    code, said = _run(release, monkeypatch, bundle=bundle, workspace=1, output=bundle / "copy.engine")
    assert code == 0 and "2 of 2 planned layers run in Int8" in said and "built: " in said
    assert (bundle / "copy.engine").is_file()
    read(bundle)  # engines beside the model do not make it a changed bundle
    code, said = _run(release, monkeypatch, bundle=bundle, workspace=1)
    assert code == 0 and "already there: " in said


def test_a_copy_of_the_engine_is_whole_or_not_there(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    copy, replace = bundle / "copy.engine", os.replace
    copy.write_bytes(b"an older engine")

    def killed(source: str, to: str) -> None:
        if to == str(copy):
            raise OSError(28, "No space left on device")
        replace(source, to)

    monkeypatch.setattr(os, "replace", killed)
    code, said = _run(release, monkeypatch, bundle=bundle, output=copy)
    assert code == 4 and f"'{copy}' cannot be written (No space left on device)" in said
    assert copy.read_bytes() == b"an older engine" and not list(bundle.glob("*.part"))


def test_dla_report_is_printed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = _run(install("10.3.0", monkeypatch), monkeypatch, bundle=bundle, dla=0)
    assert code == 0 and "on the GPU: view (RESHAPE)" in said


def test_layers_in_another_type_fail(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    release.float_layers = {"stem"}
    code, said = _run(release, monkeypatch, bundle=bundle)
    assert code == 1 and "in another type: stem" in said


def test_bad_input(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = install("10.3.0", monkeypatch)
    assert _run(release, monkeypatch, bundle=bundle, worksapce=1)[0] == 2
    (bundle / "best.onnx").write_bytes(b"tampered")
    code, said = _run(release, monkeypatch, bundle=bundle)
    assert code == 2 and "best.onnx" in said
    assert release.builders == []


def test_could_not_run(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = _run(install("11.0.0", monkeypatch), monkeypatch, bundle=bundle, dla=0)
    assert code == 4 and "does not support DLAs" in said


def test_bundle_of_another_device(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read(bundle)
    other = BundleManifest("litert", "raspberrypi", "litert", "best.onnx", INFO, manifest.files)
    (bundle / FILE_NAME).write_text(other.signed().text())
    code, said = _run(install("10.3.0", monkeypatch), monkeypatch, bundle=bundle)
    assert code == 2 and "this bundle is for raspberrypi" in said
