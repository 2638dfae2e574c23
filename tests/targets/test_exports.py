"""The list of artifacts in an export folder."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import tiny_yolo

from yoloquant.bridge.checkpoint import load_model
from yoloquant.errors import ArtifactError, OutputError
from yoloquant.graph.traced_model import TracedModel
from yoloquant.targets.exports import FILE_NAME, content_sha256, load_exports, locked, save_exports
from yoloquant.types import ExportedModel, HeadLayout, ModelInfo, Task

INFO = ModelInfo(Task.POSE, ("cat", "dög"), (64, 96), strides=(8, 16), kpt_shape=(17, 3), max_det=20)


def artifact(folder: Path, name: str = "model.onnx", target: str = "onnxruntime") -> ExportedModel:
    """A file that stands for an artifact."""
    path = folder / name
    path.write_bytes(name.encode() * 10)
    return ExportedModel(
        target, path, INFO, HeadLayout.DECODED, scheme="portable", size_bytes=path.stat().st_size,
        metadata={"points": ["a", "b"], "nested": {"x": 1.5}}, notes=("one", "two"),
    )  # fmt: skip


def folder_artifact(folder: Path) -> ExportedModel:
    """A folder that stands for an artifact, as OpenVINO's."""
    path = folder / "model_openvino_model"
    path.mkdir()
    (path / "model.xml").write_text("<net/>")
    (path / "model.bin").write_bytes(b"\0" * 100)
    info = replace(INFO, kpt_shape=None, task=Task.DETECT, end2end=True)
    return ExportedModel("openvino", path, info, HeadLayout.END2END, drop_in=False, precision="fp32")


def test_round_trip(tmp_path: Path) -> None:
    exports = artifact(tmp_path), folder_artifact(tmp_path)
    listing = save_exports(tmp_path, exports)
    assert listing == tmp_path / FILE_NAME
    for where in (tmp_path, listing, str(tmp_path)):
        assert load_exports(where) == exports
    for export in exports:
        assert load_exports(export.path) == (export,)


@pytest.mark.parametrize("task", [task.value for task in Task])
def test_models_of_every_task_are_read_again(tmp_path: Path, task: str) -> None:
    """A classifier detects nothing, so that its limit of detections is 0; its folder was called damaged."""
    info = TracedModel.of(load_model(tiny_yolo("yolo11", task)), 64).info
    export = replace(artifact(tmp_path), info=info)
    assert load_exports(save_exports(tmp_path, [export])) == (export,)


def test_a_folder_can_move(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    export = artifact(tmp_path / "a")
    save_exports(tmp_path / "a", [export])
    (tmp_path / "a").rename(tmp_path / "b")
    (found,) = load_exports(tmp_path / "b")
    assert found == replace(export, path=tmp_path / "b" / "model.onnx")


def test_a_later_export_keeps_the_others_and_drops_what_is_gone(tmp_path: Path) -> None:
    first, second = artifact(tmp_path, "a.onnx"), artifact(tmp_path, "b.onnx", "tensorrt")
    save_exports(tmp_path, [first, second])
    second.path.unlink()
    anew = replace(artifact(tmp_path, "c.onnx"), notes=("new",))
    save_exports(tmp_path, [anew])
    assert load_exports(tmp_path) == (first, anew)
    first.path.write_bytes(b"again")
    save_exports(tmp_path, [replace(first, notes=("again",))])
    assert {e.notes for e in load_exports(tmp_path)} == {("again",), ("new",)}


@pytest.mark.parametrize("kind", ["file", "folder", "added", "renamed"])
def test_changed_artifacts_are_refused(tmp_path: Path, kind: str) -> None:
    export = artifact(tmp_path) if kind == "file" else folder_artifact(tmp_path)
    save_exports(tmp_path, [export])
    if kind == "file":
        export.path.write_bytes(b"other bytes")
    elif kind == "folder":
        (export.path / "model.bin").write_bytes(b"\1" * 100)
    elif kind == "added":
        (export.path / "extra").touch()
    else:
        (export.path / "model.bin").rename(export.path / "weights.bin")
    for where in (tmp_path, export.path):
        with pytest.raises(ArtifactError, match="has changed since"):
            load_exports(where)


def test_missing_artifact(tmp_path: Path) -> None:
    export = artifact(tmp_path)
    save_exports(tmp_path, [export])
    export.path.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        load_exports(tmp_path)
    with pytest.raises(ArtifactError, match="does not exist"):
        load_exports(export.path)


def test_unlisted_artifact_and_folder_without_a_list(tmp_path: Path) -> None:
    export = artifact(tmp_path)
    with pytest.raises(ArtifactError, match="not on the list"):
        load_exports(export.path)
    with pytest.raises(ArtifactError, match="not on the list"):
        load_exports(tmp_path)
    save_exports(tmp_path, [export])
    (tmp_path / "other.onnx").touch()
    with pytest.raises(ArtifactError, match="not on the list"):
        load_exports(tmp_path / "other.onnx")


DAMAGE = {
    "empty": lambda text: "",
    "truncated": lambda text: text[: len(text) // 2],
    "binary": lambda text: "\ufffd\x00",
    "list": lambda text: "[]",
    "null": lambda text: "null",
    "format": lambda text: text.replace('"format": 1', '"format": 99'),
    "entries": lambda text: '{"format": 1, "exports": [1, 2]}',
    "entry": lambda text: '{"format": 1, "exports": [{}]}',
    "exports": lambda text: '{"format": 1, "exports": 5}',
    "info": lambda text: text.replace('"imgsz"', '"imgzs"'),
    "task": lambda text: text.replace('"pose"', '"juggle"'),
    "layout": lambda text: text.replace('"decoded"', '"encoded"'),
    "numbers": lambda text: re.sub(r'"max_det": \d+', '"max_det": 1e300', text),
    "types": lambda text: re.sub(r'"metadata": {', '"metadata": [], "old": {', text),
    "names": lambda text: re.sub(r'"reg_max": \d+', '"reg_max": "many"', text),
    "extra": lambda text: text.replace('"target"', '"new_key": 1, "target"'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_list(tmp_path: Path, damage: str) -> None:
    export = artifact(tmp_path)
    listing = save_exports(tmp_path, [export])
    listing.write_text(DAMAGE[damage](listing.read_text()))
    for where in (tmp_path, listing, export.path):
        with pytest.raises(ArtifactError):
            load_exports(where)
    save_exports(tmp_path, [export])  # exporting again is the fix that the message names, so it must work
    assert load_exports(tmp_path) == (export,)


def test_an_entry_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    inside = tmp_path / "exports"
    inside.mkdir()
    export = artifact(inside)
    listing = save_exports(inside, [export])
    (tmp_path / "secret").write_bytes(export.path.read_bytes())
    content = json.loads(listing.read_text())
    content["exports"][0]["path"] = "../secret"
    listing.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="missing"):
        load_exports(inside)


def test_content(tmp_path: Path) -> None:
    export = folder_artifact(tmp_path)
    assert content_sha256(export.path) != content_sha256(export.path / "model.bin")


def _export_one(folder: Path, index: int, killed: bool) -> None:
    with locked(folder):
        save_exports(folder, [artifact(folder, f"{index}.onnx")])
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_exports_at_once_and_killed_ones_are_all_listed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_export_one, args=(tmp_path, i, i % 3 == 0)) for i in range(6)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [-signal.SIGKILL if i % 3 == 0 else 0 for i in range(6)]
    assert {e.path.name for e in load_exports(tmp_path)} == {f"{i}.onnx" for i in range(6)}


def test_a_held_folder_is_waited_for_and_then_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refused = pytest.raises(OutputError, match="another process has been exporting into")
    with locked(tmp_path), refused, locked(tmp_path, timeout_s=0.2):
        raise AssertionError("it is held")
    assert "waiting for another export" in caplog.text
    with locked(tmp_path, timeout_s=0.0):
        pass
