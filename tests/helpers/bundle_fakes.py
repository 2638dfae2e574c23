"""A small folder that is a bundle as far as its manifest goes; nothing in it runs."""

from __future__ import annotations

from pathlib import Path

from yoloquant.runtime.core.bundle_manifest import FILE_NAME, BundleManifest, ExportAccuracy, Requirement
from yoloquant.runtime.core.folder_check import FileEntry, file_sha256
from yoloquant.runtime.core.model_info import ModelInfo, Task

CONTENT = {
    "model/tiny.onnx": bytes(range(256)) * 3,
    "labels.txt": b"cone\nmug\n",
    "golden/0_bus.png": b"\x89PNG" + bytes(60),
    "yoloquant_runtime/__init__.py": b"VALUE = 1\n\n\ndef double(x):\n    return {x: 2 * x, 'both': (x, {1, 2})}\n",
    "yoloquant_runtime/backends/base.py": b"'''Nothing.'''\n",
}
INFO = ModelInfo(Task.DETECT, ("cone", "mug \u00e9"), (64, 96), strides=(8, 16), kpt_shape=None)


def fake_manifest(folder: Path) -> BundleManifest:
    """A manifest of what lies in a folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != FILE_NAME)
    entries = {p.relative_to(folder).as_posix(): FileEntry(file_sha256(p), p.stat().st_size) for p in files}
    return BundleManifest(
        target="onnxruntime",
        device="onnx",
        backend="onnxruntime",
        model="model/tiny.onnx",
        info=INFO,
        files=entries,
        requires=(Requirement("onnxruntime", "onnxruntime", "1.0"),),
        accuracy=ExportAccuracy({"map50_95": 0.123456789, "map50": 0.5}, 8, 20),
        expected_int8=("conv_1", "conv_2"),
        plan={"scheme": "portable", "points": 3},
        versions={"python": "3.11"},
    ).signed()


def write_fake_bundle(folder: Path) -> BundleManifest:
    """Write the files and their manifest."""
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return seal(folder, fake_manifest(folder))


def seal(folder: Path, manifest: BundleManifest) -> BundleManifest:
    """Write a manifest with its right id, whatever it says."""
    signed = manifest.signed()
    (folder / FILE_NAME).write_text(signed.text(), encoding="utf-8")
    return signed
