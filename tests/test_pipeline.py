"""The whole job a second time: nothing is computed again, and everything that it writes is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core_models import checkpoint, write_images

from yoloquant import api, pipeline
from yoloquant.bridge.checkpoint import load_model
from yoloquant.errors import MissingExtraError
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.graph import traced_model
from yoloquant.quantization import ptq
from yoloquant.runtime.backends.base import Backend
from yoloquant.targets import get

OWN = {"seconds", "peak_memory_bytes"}
"""What a report says of the run itself."""


def report(folder: Path) -> Any:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k not in OWN}
        return [without(each) for each in value] if isinstance(value, list) else value

    return without(json.loads((folder / "report" / "report.json").read_text()))


def test_a_second_run_is_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[str, Any] = {
        "model": str(checkpoint(tmp_path / "m.pt")),
        "data": str(write_images(tmp_path / "set")),
        "targets": "onnxruntime",
        "scheme": "onnxruntime",
        "images": 8,
        "threads": 1,
        "bootstrap": 100,
        "latency": False,
        "memory": False,
        "cache": str(tmp_path / "store"),
    }
    read: list[Any] = []
    monkeypatch.setattr(
        ptq, "load_model", lambda model, **options: (read.append(model), load_model(model, **options))[1]
    )
    first = api.run(**keys, output=str(tmp_path / "a"))
    assert len(read) == 1, "a checkpoint is read once"
    for owner, name in ((traced_model, "trace"), (TorchRunner, "infer"), (Backend, "infer")):
        monkeypatch.setattr(owner, name, lambda *args, name=name: pytest.fail(f"{name} again"))
    second = api.run(**keys, output=str(tmp_path / "b"))
    assert second.artifact.to_dict() == first.artifact.to_dict()
    for name in ("m_int8.pt", "m-onnxruntime.onnx", "exports.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    found = [np.load(tmp_path / name / "report" / "results.npz") for name in ("a", "b")]
    assert set(found[0].files) == set(found[1].files) and len(found[0].files) > 4
    for name in set(found[0].files) - {"header"}:  # which holds the run's own memory
        np.testing.assert_array_equal(found[0][name], found[1][name])
    assert report(tmp_path / "a") == report(tmp_path / "b")


def test_missing_packages_are_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Begun(Exception):
        """The model would be read now."""

    def begin(*args: Any) -> None:
        raise Begun

    monkeypatch.setattr(pipeline, "traced_once", begin)
    monkeypatch.setattr(type(get("tensorrt")), "requires", ("a_module_that_nobody_has",))
    keys: dict[str, Any] = {"model": "m.pt", "data": "d.yaml", "output": str(tmp_path / "out")}
    with pytest.raises(MissingExtraError, match="'tensorrt' needs the Python module 'a_module_that_nobody_has'"):
        api.run(**keys, targets="tensorrt")
    assert not list(tmp_path.iterdir())
    with pytest.raises(Begun):
        api.run(**keys, targets="onnxruntime,tensorrt")
    assert [r.getMessage() for r in caplog.records if "a_module_that_nobody_has" in r.getMessage()] == [
        "target 'tensorrt' needs the Python module 'a_module_that_nobody_has', which is not installed; install it "
        'with: pip install "yoloquant[tensorrt]"; the others are built without it'
    ]
