"""The examples run as they are."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import yoloquant
from yoloquant import api
from yoloquant.data import demo
from yoloquant.quantization.artifact import Artifact

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
IMAGES = 64  # of either split: what the examples score at most, and half of what they would draw
NEEDS = {"run_an_export.py": "openvino", "quantize_and_export.py": "onnxruntime", "release_gate.py": "onnxruntime"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo set, which every example would draw anew; its images are the first of the usual one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "IMAGES", IMAGES)
        return Path(demo.prepare(tmp_path_factory.mktemp("demo"))["data"]).parent


@pytest.fixture(scope="module")
def quantize() -> Callable[..., Artifact]:
    """The library's function, called once for all examples that ask for the same."""
    made: dict[str, Artifact] = {}

    def remembered(model: str, *, data: str, **keywords: Any) -> Artifact:
        manifest = (Path(data).parent / "manifest.json").read_text()
        key = json.dumps([model, manifest, keywords])
        if key not in made:
            made[key] = api.quantize(model, data=data, **keywords)
        return made[key]

    return remembered


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples keep exports and predictions, which most of them ask for alike; empty at first."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def shared_work(
    drawn: Path, store: Path, quantize: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Call it with the example's own folder, before the example."""

    def share(folder: Path) -> None:
        shutil.copytree(drawn, folder / "data")
        monkeypatch.setattr(demo, "IMAGES", IMAGES)
        monkeypatch.setenv("YOLOQUANT_CACHE", str(store))
        monkeypatch.setattr(yoloquant, "quantize", quantize)

    return share


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_a_script_runs(
    name: str,
    shared_work: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(NEEDS.get(name, "onnx"))
    shared_work(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLES / name), str(tmp_path / "out")])
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    except SystemExit as left:
        assert not left.code
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_the_notebook_runs(shared_work: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells one after another, as a notebook would, without needing Jupyter."""
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    shared_work(tmp_path / "runs" / "examples" / "notebook")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, "quickstart.ipynb", "exec"), found)
    assert "PASS" in str(found["result"].verdict)


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"`{p.name}`" in listed for p in EXAMPLES.iterdir() if p.name != "README.md")
