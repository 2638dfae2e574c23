from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from bundle_fakes import write_fake_bundle

from yoloquant.bundle.archive import pack
from yoloquant.errors import OutputError
from yoloquant.runtime.core.bundle_manifest import read


def test_unpacked_archive_is_the_bundle(tmp_path: Path) -> None:
    manifest = write_fake_bundle(tmp_path / "cones-onnx")
    path = pack(tmp_path / "cones-onnx")
    assert path == tmp_path / "cones-onnx.tar.gz"
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "device", filter="data")
    assert read(tmp_path / "device" / "cones-onnx") == manifest


def test_equal_bundles_give_equal_bytes(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_fake_bundle(tmp_path / place / "bundle")
    (tmp_path / "b" / "bundle" / "labels.txt").touch()
    (tmp_path / "b" / "bundle" / "yoloquant_runtime" / "__pycache__").mkdir()
    (tmp_path / "b" / "bundle" / "yoloquant_runtime" / "__pycache__" / "x.pyc").write_bytes(b"cache")
    first, second = (pack(tmp_path / place / "bundle").read_bytes() for place in ("a", "b"))
    assert first == second


def test_entries_are_plain_files_under_one_folder(tmp_path: Path) -> None:
    write_fake_bundle(tmp_path / "bundle")
    with tarfile.open(pack(tmp_path / "bundle", tmp_path / "other.tgz")) as archive:
        members = archive.getmembers()
    assert all(m.isfile() and m.name.startswith("bundle/") and m.mode == 0o644 and m.uid == 0 for m in members)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    write_fake_bundle(tmp_path / "bundle")
    (tmp_path / "bundle.tar.gz").mkdir()
    (tmp_path / "bundle.tar.gz" / "mine").touch()
    with pytest.raises(OutputError):
        pack(tmp_path / "bundle")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "bundle.tar.gz"]
    assert (tmp_path / "bundle.tar.gz" / "mine").exists()
