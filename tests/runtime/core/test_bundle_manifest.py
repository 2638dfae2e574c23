from __future__ import annotations

import importlib.util
import json
import marshal
import os
import py_compile
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_fakes import CONTENT, fake_manifest, seal, write_fake_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from yoloquant.runtime.backends import backend_class
from yoloquant.runtime.core.bundle_manifest import FILE_NAME, BundleManifest, model_path, read
from yoloquant.runtime.core.folder_check import FileEntry, check_relative
from yoloquant.runtime.errors import ArtifactError, BundleError

FILES = (*CONTENT, FILE_NAME)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_fake_bundle(folder)
    return folder


def test_reading_gives_what_was_written(bundle: Path) -> None:
    assert read(bundle) == fake_manifest(bundle)
    assert set(read(bundle).files) == set(CONTENT)


def test_text_is_the_same_for_equal_manifests_and_ascii(bundle: Path) -> None:
    manifest = read(bundle)
    assert manifest.text() == fake_manifest(bundle).text() == (bundle / FILE_NAME).read_text()
    assert manifest.text().isascii()
    assert json.loads(manifest.text())["info"]["names"] == ["cone", "mug \u00e9"]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    write_fake_bundle(folder)
    path = folder / data.draw(st.sampled_from(FILES))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=path.name):
        read(folder)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_truncated_file_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    write_fake_bundle(folder)
    path = folder / data.draw(st.sampled_from(FILES))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(BundleError, match=path.name):
        read(folder)


def test_truncation_is_told_from_change(bundle: Path) -> None:
    path = bundle / "labels.txt"
    path.write_bytes(b"cone\n")
    with pytest.raises(BundleError, match=r"'labels.txt' is cut short: it has 5 bytes, exported were 9"):
        read(bundle)
    path.write_bytes(b"cone\ncup\n")
    with pytest.raises(BundleError, match=r"'labels.txt' was changed"):
        read(bundle)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=Path(name).name):
        read(bundle)


@pytest.mark.parametrize(
    "path",
    ["../outside.txt", "model/../../outside.txt", "/etc/hostname", "C:/x", "a\\b", "", ".", "a//b", "a/./b", "a\nb"],
)
def test_path_out_of_the_bundle_is_refused_even_with_a_right_id(bundle: Path, path: str) -> None:
    (bundle.parent / "outside.txt").write_bytes(b"secret")
    manifest = fake_manifest(bundle)
    seal(bundle, replace(manifest, files={**manifest.files, path: FileEntry("0" * 64, 6)}))
    with pytest.raises(BundleError, match="no path inside the bundle"):
        read(bundle, check=False)


@settings(max_examples=200)
@given(st.text(max_size=30))
def test_accepted_paths_never_leave_the_folder(path: str) -> None:
    try:
        check_relative(path)
    except BundleError:
        return
    assert os.path.normpath(f"/bundle/{path}") == f"/bundle/{path}"


def test_model_must_be_one_of_the_files(bundle: Path) -> None:
    seal(bundle, replace(fake_manifest(bundle), model="model/other.onnx"))
    with pytest.raises(BundleError, match=r"model/other.onnx.*does not list"):
        read(bundle)
    seal(bundle, replace(fake_manifest(bundle), model="model"))
    assert read(bundle).model == "model"  # a folder of listed files


@pytest.mark.parametrize("name", ["model/tiny.onnx", "yoloquant_runtime"])
def test_links_are_refused(bundle: Path, name: str) -> None:
    real = bundle.parent / "real"
    (bundle / name).rename(real)
    (bundle / name).symlink_to(real)
    with pytest.raises(BundleError, match=r"is a link or lies behind one"):
        read(bundle)


def test_a_further_link_is_refused(bundle: Path) -> None:
    (bundle / "numpy").symlink_to(bundle.parent)
    with pytest.raises(BundleError, match="'numpy' is a link"):
        read(bundle)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("numpy.py", b""),
        ("cv2/__init__.py", b"print('mine')"),
        ("yoloquant_runtime/extra.PY", b""),
        ("yoloquant_runtime/_speed.cpython-311-x86_64-linux-gnu.so", b"\x7fELF"),
        ("libcuda.so.1", b"data"),
        ("run.sh", b"true"),
        ("readme", b"#!/bin/sh\n"),
        ("notes.txt", b"\x7fELF\x02"),
        ("setup.dat", b"MZ\x90"),
    ],
)
def test_executable_files_that_are_not_listed_are_refused(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=Path(name).name):
        read(bundle)


def test_results_and_engines_may_lie_in_the_bundle(bundle: Path) -> None:
    for name in ("result.json", "engines/tiny.engine", "out.mp4", "timing.cache"):
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_bytes(b"\x00\x01results")
        (bundle / name).chmod(0o777)  # what every file on a USB stick has
    assert read(bundle).id


def compiled(bundle: Path, optimize: int = -1) -> Path:
    """What Python itself writes when it imports the bundle's package."""
    source = bundle / "yoloquant_runtime" / "__init__.py"
    return Path(str(py_compile.compile(str(source), optimize=optimize, doraise=True)))


@pytest.mark.parametrize("optimize", [-1, 1, 2])
def test_python_may_keep_its_own_cache(bundle: Path, optimize: int) -> None:
    assert compiled(bundle, optimize).is_file()
    read(bundle)


def test_cache_of_a_real_import_is_accepted(bundle: Path) -> None:
    command = [sys.executable, "-c", "import yoloquant_runtime"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, cwd=bundle, check=True, env=environment)
    assert list(bundle.rglob("*.pyc"))
    read(bundle)


def test_planted_cache_is_refused(bundle: Path) -> None:
    path = compiled(bundle)
    content = path.read_bytes()
    evil = compile("import os", str(bundle / "yoloquant_runtime" / "__init__.py"), "exec")
    path.write_bytes(content[:16] + marshal.dumps(evil))  # the header fits the source, so Python would run it
    with pytest.raises(BundleError, match=r"__init__\.cpython.*can be executed"):
        read(bundle)
    path.write_bytes(content[:40])
    with pytest.raises(BundleError, match=path.name):
        read(bundle)


def test_cache_without_a_listed_source_is_refused(bundle: Path) -> None:
    path = bundle / "yoloquant_runtime" / "__pycache__" / f"other.{sys.implementation.cache_tag}.pyc"
    path.parent.mkdir()
    path.write_bytes(importlib.util.MAGIC_NUMBER + bytes(12))
    with pytest.raises(BundleError, match=r"other\..*pyc"):
        read(bundle)


def test_expected_id(bundle: Path) -> None:
    manifest = read(bundle)
    assert read(bundle, expect=manifest.id.upper() + " ") == manifest
    with pytest.raises(BundleError, match="expected was 00"):
        read(bundle, expect="00")


def test_a_consistent_forgery_has_another_id(bundle: Path) -> None:
    before = read(bundle).id
    (bundle / "labels.txt").write_bytes(b"mug\ncone\n")
    seal(bundle, fake_manifest(bundle))
    assert read(bundle).id != before
    with pytest.raises(BundleError, match="expected was"):
        read(bundle, expect=before)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "null", '{"format": 2}', '{"format": NaN}', "[" * 100_000, '{"format": 1}', "\u00ff"],
    ids=["empty", "list", "cut", "null", "format", "nan", "deep", "bare", "binary"],
)
def test_what_is_no_manifest_is_refused(bundle: Path, text: str) -> None:
    (bundle / FILE_NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=FILE_NAME):
        read(bundle)


def mistyped(bundle: Path, key: str, value: object) -> None:
    seal(bundle, replace(fake_manifest(bundle), **{key: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value"),
    [("model", 3), ("files", {"a": {"size": 1}}), ("files", []), ("accuracy", {"map": 1}), ("requires", [3])],
)
def test_mistyped_fields_are_refused(bundle: Path, key: str, value: object) -> None:
    mistyped(bundle, key, value)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read(bundle)


def test_unknown_keys_are_refused(bundle: Path) -> None:
    from yoloquant.runtime.core import bundle_manifest as module

    data = json.loads((bundle / FILE_NAME).read_text())
    data["extra"] = 1
    data["id"] = module._fingerprint(data)
    (bundle / FILE_NAME).write_text(module._canonical(data))
    with pytest.raises(BundleError, match="unknown keys: extra"):
        read(bundle)


def test_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no bundle"):
        read(tmp_path)
    with pytest.raises(ArtifactError, match="is no bundle"):
        read(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("device", "compiled"), [("", False), ("cpu", False), ("tpu", True), ("usb:0", True), ("PCI", True), ("GPU", False)]
)
def test_an_edge_tpu_runs_the_compiled_form(bundle: Path, device: str, compiled: bool) -> None:
    manifest = replace(read(bundle), backend="litert", model="model/tiny.tflite")
    plain, other = bundle / "model" / "tiny.tflite", bundle / "model" / "tiny_edgetpu.tflite"
    assert model_path(bundle, manifest) == plain
    assert backend_class("litert").form(plain, device) == plain  # nobody has compiled it yet
    other.write_bytes(b"compiled")
    assert backend_class("litert").form(plain, device) == (other if compiled else plain)
    assert backend_class("openvino").form(plain, device) == plain


def test_unchecked_reading_looks_at_the_manifest_only(bundle: Path) -> None:
    (bundle / "labels.txt").unlink()
    assert isinstance(read(bundle, check=False), BundleManifest)
