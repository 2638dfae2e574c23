"""Two checkouts' artifacts: what counts as equal, and what is said of the others."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from core_models import tiny_artifact
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import compare_builds as tool  # noqa: E402
from yoloquant.targets.exports import save_exports  # noqa: E402
from yoloquant.targets.onnxruntime import OnnxRuntimeTarget  # noqa: E402
from yoloquant.types import ExportedModel  # noqa: E402


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return OnnxRuntimeTarget().export(tiny_artifact(), tmp_path_factory.mktemp("new"), "tiny")


@pytest.fixture
def before(exported: ExportedModel, tmp_path: Path) -> Path:
    """The other checkout's file, equal so far."""
    shutil.copy(exported.path, tmp_path / exported.path.name)
    return tmp_path / exported.path.name


def test_equal_files_are_equal(exported: ExportedModel, before: Path) -> None:
    found = tool.compare(before.parent, exported, 1)
    assert found == tool.Comparison(exported.path.name, "bytes") and found.equal


def test_another_comment_leaves_scales_and_outputs_equal(exported: ExportedModel, before: Path) -> None:
    model = onnx.load(before)
    model.doc_string = "written by an older release"
    onnx.save(model, before)
    found = tool.compare(before.parent, exported, 1)
    assert found.how == "scales and outputs" and found.equal


@pytest.mark.parametrize(("suffix", "how"), [("/scale", "nothing: 1 scales differ"), ("/int8", "scales alone")])
def test_another_number_is_found(exported: ExportedModel, before: Path, suffix: str, how: str) -> None:
    model = onnx.load(before)
    tensor = next(i for i in model.graph.initializer if i.name.endswith(suffix))
    value = numpy_helper.to_array(tensor)
    other = np.nextafter(value, np.inf, dtype=value.dtype) if suffix == "/scale" else value // 2
    tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
    onnx.save(model, before)
    found = tool.compare(before.parent, exported, 1)
    assert found.how.startswith(how) and not found.equal


def test_what_the_other_lacks_is_said(exported: ExportedModel, tmp_path: Path) -> None:
    assert tool.compare(tmp_path, exported, 1).how == "nothing: the old checkout did not write it"


def test_the_other_checkout_must_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([f"old={tmp_path}"]) == 2
    assert "is no checkout of this project" in capsys.readouterr().out


def test_what_is_there_is_not_exported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def run(line: list[str], **_: object) -> SimpleNamespace:
        started.append(next(a for a in line if a.startswith("targets=")))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(tool.subprocess, "run", run)
    folder = tmp_path / "old"
    folder.mkdir()
    listed = {"format": 1, "exports": [{"target": "openvino", "precision": "int8"}]}
    (folder / "exports.json").write_text(json.dumps(listed))
    settings = {**tool.DEFAULTS, "targets": "openvino,onnxruntime,openvino:fp16"}
    tool.export(tmp_path, settings, folder)
    assert started == ["targets=onnxruntime", "targets=openvino:fp16"]


def test_both_export_the_plans_of_the_old_one(
    exported: ExportedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[tuple[str, list[str]]] = []

    def run(line: list[str], env: dict[str, str], **_: object) -> SimpleNamespace:
        verb, *arguments = line[line.index(next(a for a in line if a.endswith("pyproject.toml"))) + 1 :]
        given = dict(a.split("=", 1) for a in arguments)
        lines.append((f"{Path(env['PYTHONPATH']).name} {verb}", sorted(given)))
        folder = Path(given["output"])
        folder.mkdir(exist_ok=True)
        if verb == "quantize":
            (folder / "tiny_int8.pt").write_text("plans")
        else:
            assert given["model"] == str(tmp_path / "out" / "plans" / "tiny_int8.pt")
            shutil.copy(exported.path, folder)
            save_exports(folder, [replace(exported, path=folder / exported.path.name)])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(tool.subprocess, "run", run)
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").touch()
    given = {"old": tmp_path / "before", "new": tmp_path / "after", "model": "tiny.pt", "data": "d.yaml"}
    arguments = [*(f"{k}={v}" for k, v in given.items()), "targets=onnxruntime", f"output={tmp_path / 'out'}"]
    assert tool.main([*arguments, "plans=old"]) == 0
    assert "1 of 1 artifacts are equal" in capsys.readouterr().out
    made, *exports = lines
    assert made == ("before quantize", ["data", "images", "imgsz", "model", "output"])
    assert exports == [(f"{name} export", ["model", "output", "targets"]) for name in ("before", "after")]
    assert tool.main([*arguments, "plans=new"]) == 2 and "allowed are each and old" in capsys.readouterr().out
