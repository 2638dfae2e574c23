"""An export is copied where model, plan and target are the same, bit by bit, and built where anything differs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core_models import tiny_artifact
from full_disk import largest_file

from yoloquant import targets
from yoloquant.cache import Store
from yoloquant.errors import OutputError, TargetError
from yoloquant.io import atomic_path
from yoloquant.quantization.artifact import Artifact
from yoloquant.targets.export import export
from yoloquant.targets.exports import FILE_NAME, content_sha256, load_exports
from yoloquant.targets.float_models import FOLDER, float_model
from yoloquant.targets.graph_form import GraphForm
from yoloquant.targets.kept_exports import KIND, _key
from yoloquant.targets.onnxruntime import OnnxRuntimeTarget
from yoloquant.targets.openvino import OpenVinoTarget

NAMES = ("onnxruntime", "openvino")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was built, and not copied."""
    done: list[str] = []
    for kind in (OnnxRuntimeTarget, OpenVinoTarget):
        write = kind._write

        def counted(self: Any, artifact: Any, precision: str, *rest: Any, write: Any = write) -> Any:
            done.append(f"{self.name}:{precision}")
            return write(self, artifact, precision, *rest)

        monkeypatch.setattr(kind, "_write", counted)
    yield done


def files(folder: Path) -> dict[str, str]:
    return {p.name: content_sha256(p) for p in folder.iterdir() if p.name != ".exports.json.lock"}


@pytest.mark.usefixtures("every_time")
def test_the_second_export_is_the_first_bit_by_bit(tmp_path: Path, built: list[str]) -> None:
    artifact, chosen, store = tiny_artifact(), targets.resolve(NAMES), str(tmp_path / "store")
    plain = export(artifact, chosen, folder=tmp_path / "none")
    first = export(artifact, chosen, folder=tmp_path / "a", cache=store)
    assert built == ["onnxruntime:int8", "openvino:int8"] * 2
    second = export(artifact, chosen, folder=tmp_path / "b", cache=store)
    assert len(built) == 4, "copied"
    assert files(tmp_path / "none") == files(tmp_path / "a") == files(tmp_path / "b")
    assert sorted(files(tmp_path / "b")) == sorted([FILE_NAME, *(e.path.name for e in plain.exports)]), (
        "nothing besides"
    )
    for result, folder in ((first, tmp_path / "a"), (second, tmp_path / "b")):
        assert [e.path.parent for e in result.exports] == [folder, folder]
        listed = [replace(e, path=p.path) for e, p in zip(load_exports(folder), plain.exports, strict=True)]
        assert listed == list(load_exports(tmp_path / "none"))


def test_a_changed_file_of_the_store_is_built_anew(tmp_path: Path, built: list[str]) -> None:
    artifact, chosen, store = tiny_artifact(), targets.resolve("onnxruntime"), tmp_path / "store"
    (first,) = export(artifact, chosen, folder=tmp_path / "a", cache=str(store)).exports
    (kept,) = store.glob("*/*.onnx")
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    (second,) = export(artifact, chosen, folder=tmp_path / "b", cache=str(store)).exports
    assert len(built) == 2 and second.path.read_bytes() == first.path.read_bytes()
    first.path.write_bytes(b"of the user")  # a copy: what happens to an export is no matter of the store
    (third,) = export(artifact, chosen, folder=tmp_path / "c", cache=str(store)).exports
    assert len(built) == 2 and third.path.read_bytes() == second.path.read_bytes()


def test_an_entry_of_something_else_is_built_anew(tmp_path: Path, built: list[str]) -> None:
    artifact, (target,), store = tiny_artifact(), targets.resolve("onnxruntime"), Store(tmp_path / "store")
    key = _key(target, artifact, artifact.stem, False)
    assert key is not None
    for content in ("{}", '{"format": 1, "exports": []}', '{"format": 1, "exports": [{"path": "../../x"}]}'):
        store.write(KIND, key, lambda entry, text=content: _other(entry, text))  # type: ignore[misc]
        (exported,) = export(artifact, [target], folder=tmp_path / "out", cache=str(store.folder)).exports
        assert sorted(files(tmp_path / "out")) == sorted([FILE_NAME, exported.path.name]), "nothing of it is left"
        for kept in store.folder.glob(f"{KIND}-*"):
            shutil.rmtree(kept)
    assert len(built) == 3


def _other(entry: Path, listing: str) -> None:
    (entry / FILE_NAME).write_text(listing)
    (entry / "foreign.onnx").write_text("foreign")


def test_whatever_decides_a_file_makes_another_key() -> None:
    artifact = tiny_artifact()
    plan = artifact.plans["onnxruntime"]
    point = next(p for p in plan.points if p.params is not None)
    assert point.params is not None
    moved = replace(point, params=replace(point.params, scale=point.params.scale * 2))
    other_plan = replace(plan, points=tuple(moved if p is point else p for p in plan.points))
    changed: dict[str, Artifact] = {
        "plan": replace(artifact, plans={**artifact.plans, "onnxruntime": other_plan}),
        "bias": replace(artifact, bias={"onnxruntime": {"x": point.params.scale}}),
        "provenance": replace(artifact, provenance={"calibration": {"sha256": "other"}}),
        "info": replace(artifact, traced=replace(artifact.traced, info=replace(artifact.info, max_det=5))),
    }
    target = targets.get("onnxruntime")
    known = _key(target, artifact, "m", False)
    assert known is not None and known == _key(targets.get("onnxruntime"), artifact, "m", False)
    for what, other in changed.items():
        assert _key(target, other, "m", False) != known, what
    (graph,) = targets.with_graph([targets.get("onnxruntime")], GraphForm(nms=True))
    for what, key in {
        "target": _key(targets.get("openvino"), artifact, "m", False),
        "precision": _key(targets.get("onnxruntime:fp32"), artifact, "m", False),
        "graph": _key(graph, artifact, "m", False),
        "name": _key(target, artifact, "n", False),
    }.items():
        assert key is not None and key != known, what
    baseline = _key(target, artifact, "m", True)
    assert baseline == _key(target, changed["plan"], "m", True) == _key(target, changed["provenance"], "m", True)
    assert baseline not in (known, _key(target, changed["info"], "m", True)), "no calibration changes the float model"


def test_every_target_has_a_key_of_plain_data(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in targets.names():
        for variant in targets.get(name).variants:
            key = _key(targets.get(f"{name}:{variant}"), tiny_artifact(), "m", False)
            assert key is not None and store.read("export", key, lambda entry: 1) is None


def test_a_target_of_somebody_else_is_never_kept(tmp_path: Path) -> None:
    class Theirs(OnnxRuntimeTarget):
        pass

    for folder in ("a", "b"):
        assert export(tiny_artifact(), [Theirs()], folder=tmp_path / folder, cache=str(tmp_path / "store")).exports
    assert not (tmp_path / "store").exists()


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, artifact: Any, folder: Path, stem: str) -> Any:
        (folder / "half.onnx").write_text("half")
        raise TargetError("no")

    monkeypatch.setattr(OnnxRuntimeTarget, "export", fails)
    out = export(
        tiny_artifact(), targets.resolve("onnxruntime"), folder=tmp_path / "a", keep_going=True,
        cache=str(tmp_path / "store"),
    )  # fmt: skip
    assert out.errors == {"onnxruntime": "no"} and not (tmp_path / "store").exists()
    assert not files(tmp_path / "a")


def test_float_models_are_shared_between_folders_and_calibrations(tmp_path: Path, built: list[str]) -> None:
    artifact, store = tiny_artifact(), Store(tmp_path / "store")
    other = replace(artifact, plans={}, provenance={"calibration": {"sha256": "other"}})
    found = []
    for folder, model in (("a", artifact), ("b", other)):
        (exported,) = export(artifact, targets.resolve("onnxruntime"), folder=tmp_path / folder).exports
        found.append(float_model(model, exported, store))
        assert found[-1] is not None and found[-1].path.parent == tmp_path / folder / FOLDER
    assert built.count("onnxruntime:fp32") == 1
    assert found[0].path.read_bytes() == found[1].path.read_bytes()  # type: ignore[union-attr]


@pytest.mark.parametrize("cache", [True, False])
def test_a_full_disk_is_told_of_the_folder_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: bool
) -> None:
    def write(self: Any, artifact: Any, precision: str, folder: Path, stem: str) -> Any:
        with largest_file(16), atomic_path(folder / f"{stem}.onnx") as temporary:
            temporary.write_bytes(b"x" * 1000)

    monkeypatch.setattr(OnnxRuntimeTarget, "_write", write)
    store, out = str(tmp_path / "store") if cache else False, tmp_path / "out"
    with pytest.raises(OutputError) as told:
        export(tiny_artifact(), [targets.get("onnxruntime")], folder=out, cache=store)
    assert str(told.value).startswith(f"'{out / tiny_artifact().stem}.onnx' cannot be written")
