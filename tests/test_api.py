"""The public verbs from end to end, on a tiny model."""

from __future__ import annotations

import copy
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from core_models import checkpoint, tiny_artifact, tiny_host, write_images

import yoloquant
from yoloquant import ExportResult, QuantizeOptions, ValidateOptions, api, targets
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.errors import (
    ArtifactError,
    DataError,
    ModelError,
    OutputError,
    TargetError,
    UsageError,
    YoloquantError,
)
from yoloquant.targets import get
from yoloquant.types import Verdict

OPTIONS = QuantizeOptions(imgsz=64, calibration=CalibrationOptions(images=8))
QUICK = ValidateOptions(threads=1, latency=False, memory=False, bootstrap=100)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The yaml of ten training and five validation images."""
    return write_images(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """The tiny artifact for ONNX Runtime."""
    return api.export(tiny_artifact(), targets="onnxruntime", output=tmp_path_factory.mktemp("exports"))


@pytest.mark.slow
def test_from_checkpoint_to_report(tmp_path: Path, data: Path) -> None:
    model = checkpoint(tmp_path / "best.pt")
    steps: list[tuple[int, int]] = []
    made = yoloquant.quantize(
        model, data=data, scheme="onnxruntime", options=OPTIONS, progress=lambda d, t, w: steps.append((d, t))
    )
    once = [(i, 8) for i in range(1, 9)]  # the images are looked at again to put scores back in place
    assert steps == once * 2 and list(made.plans) == ["onnxruntime"]
    saved = made.save(tmp_path / "best_int8.pt")
    outcome = yoloquant.export(saved, targets=["onnx"])
    assert outcome.folder == tmp_path / "best_exports" and not outcome.errors
    (export,) = outcome.exports
    assert export.path == outcome.folder / "best-onnxruntime.onnx" and export.size_bytes == export.path.stat().st_size
    assert export.metadata["calibration"]["images"] == 8 and export.metadata["model"] == "best_int8.pt"
    plan = yoloquant.Artifact.load(saved).plans["onnxruntime"]
    for name, (scale, zero) in get("onnxruntime").read_scales(export).items():
        params = plan.by_name[name].params
        assert params is not None
        np.testing.assert_array_equal(scale, params.scale)
        np.testing.assert_array_equal(zero, params.zero_point)
    result = yoloquant.validate(
        saved, outcome.folder, data=data, options=replace(QUICK, report=tmp_path / "report", latency=True)
    )
    assert result.images == 5 and result.labels > 0 and result.imgsz == (64, 64)
    (target,) = result.targets
    assert target.target == "onnxruntime" and not target.error and target.comparison is not None
    assert target.comparison.latency_ratio is not None and 0 <= target.comparison.fidelity.value <= 1
    assert result.verdict in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)
    names = {p.suffix for p in (tmp_path / "report").iterdir()}
    assert {".json", ".xml", ".md", ".html"} <= names
    again = yoloquant.validate(saved, export.path, data=data, options=QUICK)
    assert again.targets[0].accuracy == target.accuracy, "the same artifact scores the same"


@pytest.mark.usefixtures("every_time")
def test_the_same_input_gives_the_same_plan(data: Path, tmp_path: Path) -> None:
    live = copy.deepcopy(tiny_host().module)
    first = api.quantize(live, data=data, scheme="portable", options=OPTIONS)
    moved = tmp_path / "elsewhere"
    shutil.copytree(data.parent, moved)
    text = data.read_text().replace(str(data.parent), str(moved))
    (moved / "data.yaml").write_text(text)
    second = api.quantize(live, data=moved / "data.yaml", scheme=["portable"], options=OPTIONS)
    assert first.plans["portable"].digest() == second.plans["portable"].digest()
    assert first.provenance["calibration"]["sha256"] == second.provenance["calibration"]["sha256"]
    assert first.provenance["calibration"]["data"] == "data.yaml", "no path of this machine in the artifact"


def test_auto_makes_a_plan_for_every_runtime(data: Path) -> None:
    made = api.quantize(tiny_host().module, data=data, options=OPTIONS)
    from yoloquant.targets import names

    assert set(made.plans) == {"portable", *(get(n).scheme.name for n in names())}
    assert all(p.calibrated for p in made.plans.values())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scheme": "tensort"}, UsageError, "scheme 'tensort' is unknown .*'tensorrt'.* allowed are auto, portable"),
        ({"scheme": []}, UsageError, "unknown"),
        ({"model": "missing.pt"}, ModelError, "does not exist"),
        ({"data": "missing.yaml"}, DataError, "does not exist"),
        ({"options": QuantizeOptions(imgsz=65)}, UsageError, "multiple of 16"),
        (
            {"options": QuantizeOptions(imgsz=64, calibration=CalibrationOptions(images=8, split="val"))},
            DataError,
            "flatter",
        ),
    ],
)
def test_bad_input_is_refused(data: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"model": tiny_host().module, "data": data, "options": OPTIONS, **change}
    with pytest.raises(error, match=message):
        api.quantize(arguments.pop("model"), **arguments)


def test_too_few_images_are_refused_where_they_are_asked_for() -> None:
    with pytest.raises(UsageError, match="images=3 is not supported; allowed is a whole number from 8"):
        QuantizeOptions(imgsz=64, calibration=CalibrationOptions(images=3))


def test_plan_of_a_plain_and_of_a_quantized_checkpoint(tmp_path: Path) -> None:
    plain = api.plan(checkpoint(tmp_path / "a.pt"), scheme="litert", imgsz=64)
    assert not plain.calibrated and plain.scheme == "litert"
    saved = tiny_artifact().save(tmp_path / "a_int8.pt")
    assert api.plan(saved, scheme="litert") == tiny_artifact().plans["litert"]
    with pytest.raises(UsageError, match="leave imgsz out"):
        api.plan(saved, scheme="litert", imgsz=tiny_artifact().info.imgsz[0] + 32)
    with pytest.raises(UsageError, match="unknown"):
        api.plan(saved, scheme="none")


def test_portable_serves_every_target_with_one_set_of_ranges(tmp_path: Path) -> None:
    alone = replace(tiny_artifact(), plans={"portable": tiny_artifact().plans["portable"]})
    outcome = api.export(alone, targets="onnxruntime,tensorrt", output=tmp_path)
    for export in outcome.exports:
        found = get(export.target).read_scales(export)
        assert found
        for name, (scale, zero) in found.items():
            params = alone.plans["portable"].by_name[name].params
            assert params is not None
            np.testing.assert_array_equal(scale, params.scale)
            np.testing.assert_array_equal(zero, params.zero_point)


def _failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, target: str = "tensorrt") -> None:
    def fail(self: Any, artifact: Any, folder: Path, stem: str) -> Any:
        raise error

    monkeypatch.setattr(type(get(target)), "export", fail)


@pytest.mark.parametrize("error", [TargetError("no luck"), RuntimeError("no luck"), MemoryError("no luck")])
def test_a_failing_target_does_not_stop_the_others(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    _failing(monkeypatch, error)
    outcome = api.export(tiny_artifact(), targets="tensorrt,onnxruntime", output=tmp_path, keep_going=True)
    assert [e.target for e in outcome.exports] == ["onnxruntime"] and "no luck" in outcome.errors["tensorrt"]
    if not isinstance(error, TargetError):
        return
    result = api.validate(tiny_artifact(), outcome, data=data, options=QUICK)
    assert result.verdict is Verdict.ERROR
    failed = next(t for t in result.targets if t.target == "tensorrt")
    assert failed.verdict is Verdict.ERROR and "no luck" in failed.error
    good = next(t for t in result.targets if t.target == "onnxruntime")
    assert good.accuracy is not None and not good.error


@pytest.mark.parametrize("error", [TargetError("no luck"), RuntimeError("no luck"), KeyboardInterrupt()])
def test_what_was_built_before_an_error_stays_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    _failing(monkeypatch, error)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else TargetError):
        api.export(tiny_artifact(), targets="onnxruntime,tensorrt", output=tmp_path)
    from yoloquant.targets.exports import load_exports

    assert [e.target for e in load_exports(tmp_path)] == ["onnxruntime"]


def test_a_missing_package_is_found_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(get("tensorrt")), "requires", ("a_module_that_nobody_has",))
    with pytest.raises(TargetError, match="a_module_that_nobody_has"):
        api.export(tiny_artifact(), targets="onnxruntime,tensorrt", output=tmp_path)
    assert not list(tmp_path.iterdir())
    everything = {t.name for t in targets.resolve("all")}
    assert "tensorrt" not in everything and "onnxruntime" in everything


def test_progress_of_an_export_names_a_target_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    api.export(tiny_artifact(), targets="onnxruntime", output=tmp_path, progress=lambda *step: seen.append(step))
    assert seen == [(0, 1, "onnxruntime"), (1, 1, "")]


def test_targets_by_name_and_device() -> None:
    assert [t.name for t in targets.resolve("onnx, onnxruntime,tensorrt")] == ["onnxruntime", "tensorrt"]
    for wrong in ("", [], "nothing", " , "):
        with pytest.raises(UsageError):
            targets.resolve(wrong)


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match="is a file"):
        api.export(tiny_artifact(), targets="onnxruntime", output=tmp_path / "taken")


def test_unlabelled_images(data: Path, exported: ExportResult) -> None:
    result = api.validate(
        tiny_artifact(), exported, source=data.parent / "images" / "val", options=replace(QUICK, gate="unlabelled")
    )
    (target,) = result.targets
    assert result.labels == 0 and target.accuracy is None and target.comparison is not None
    assert target.comparison.map_drop is None and 0 <= target.comparison.fidelity.value <= 1
    assert result.baseline.accuracy is None


def test_a_changed_or_broken_artifact(tmp_path: Path, data: Path, exported: ExportResult) -> None:
    shutil.copytree(exported.folder, tmp_path / "e")
    path = tmp_path / "e" / exported.exports[0].path.name
    path.write_bytes(b"not onnx")
    with pytest.raises(ArtifactError, match="has changed"):
        api.validate(tiny_artifact(), tmp_path / "e", data=data, options=QUICK)
    broken = replace(exported.exports[0], path=path)
    result = api.validate(tiny_artifact(), [broken], data=data, options=QUICK)
    assert result.verdict is Verdict.ERROR and result.targets[0].error and result.targets[0].verdict is Verdict.ERROR


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"data": None}, UsageError),
        ({"source": "photos"}, UsageError),
        ({"options": replace(QUICK, gate="nothing")}, UsageError),
        ({"options": replace(QUICK, split="trian")}, DataError),
        ({"options": replace(QUICK, manifest="missing.json")}, DataError),
        ({"exports": []}, UsageError),
        ({"exports": "nowhere"}, ArtifactError),
        ({"model": "missing.pt"}, ModelError),
    ],
)
def test_wrong_validations(data: Path, exported: ExportResult, change: dict[str, Any], error: type[Exception]) -> None:
    arguments = {"model": tiny_artifact(), "exports": exported, "data": data, "options": QUICK, **change}
    with pytest.raises(error):
        api.validate(arguments.pop("model"), arguments.pop("exports"), **arguments)


def test_a_model_of_another_task_is_refused(data: Path, exported: ExportResult) -> None:
    from yoloquant.types import Task

    other = replace(
        tiny_artifact(), traced=replace(tiny_artifact().traced, info=replace(tiny_artifact().info, task=Task.POSE))
    )
    with pytest.raises(YoloquantError, match="pose model"):
        api.validate(other, exported, data=data, options=QUICK)


def test_what_is_scored_is_looked_at_before_anything_is_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yoloquant.pipeline.quantize", lambda *a, **k: pytest.fail("work began"))
    model, data = checkpoint(tmp_path / "m.pt"), write_images(tmp_path / "set")
    image = min((tmp_path / "set" / "images" / "val").iterdir())
    label = tmp_path / "set" / "labels" / "val" / f"{image.stem}.txt"
    keep = image.read_bytes()
    run = {"model": str(model), "data": str(data), "targets": "onnxruntime", "output": str(tmp_path / "out")}
    image.write_bytes(keep[:60])
    with pytest.raises(DataError, match=f"{image.name} is (unreadable|corrupt)"):
        api.run(**run)
    image.write_bytes(keep)
    label.write_text("9 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match="class 9 is out of range"):
        api.run(**run)


def test_keywords_have_the_commands_names(tmp_path: Path, data: Path, exported: ExportResult) -> None:
    live = tiny_host().module
    one = api.quantize(live, data=data, scheme="onnxruntime", imgsz=64, images=8, seed=1)
    options = QuantizeOptions(imgsz=64, calibration=CalibrationOptions(images=8, seed=1))
    other = api.quantize(live, data=data, scheme="onnxruntime", options=options)
    assert one.plans["onnxruntime"].digest() == other.plans["onnxruntime"].digest()
    result = api.validate(
        tiny_artifact(), exported, data=data, threads=1, latency=False, memory=False, bootstrap=100, limit=2,
        output=tmp_path / "report",
    )  # fmt: skip
    assert result.images == 2 and (tmp_path / "report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: api.quantize("a.pt", data="d", imges=3), "'quantize' has no option 'imges'; did you mean 'images'"),
        (lambda: api.export("a.pt", half=True), "openvino:fp16"),
        (lambda: api.export(tiny_artifact(), targets="onnx", images=9), "quantized already, so nothing is calibrated"),
        (lambda: api.validate("a.pt", "e", data="d", gat="x"), "did you mean 'gate'"),
        (lambda: api.prune("a.pt", amont=0.2), "did you mean 'amount'"),
        (lambda: api.analyze("a.pt", data="d", metrc="map"), "did you mean 'metric'"),
        (lambda: api.run(model="a.pt", data="d", images=3), "calibration.images=3 is not supported"),
        (lambda: api.predict("a", 0, confidence=0.5), "unknown argument 'confidence' of 'predict'"),
        (lambda: api.bench(["a"], round=2), "did you mean 'rounds'"),
        (lambda: api.train("a.pt", data="d", weight_bits=1), "weight_bits=1 is not supported; .* from 2 to 8"),
    ],
)
def test_wrong_keywords_are_named_before_any_work(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_results_print_a_summary(exported: ExportResult, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = tiny_artifact()
    assert len(repr(artifact)) < 1000 and "portable" in str(artifact)
    assert set(artifact.to_dict()) == {"model", "model_sha256", "info", "plans", "provenance"}
    assert "onnxruntime" in repr(exported) and exported.exports[0].path.name in repr(exported)
    assert exported.to_dict()["exports"][0]["target"] == "onnxruntime"
    result = api.validate(artifact, exported, data=data, options=QUICK)
    assert repr(result) == result.summary() and result.summary().splitlines()[-1].startswith("verdict: ")
    assert result.to_dict()["verdict"] == result.verdict.value
    pandas = ModuleType("pandas")  # a stand-in: the real one is optional
    pandas.DataFrame = list  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert [row["target"] for row in exported.to_df()] == ["onnxruntime"]
    assert [row["target"] for row in result.to_df()] == ["fp32", "onnxruntime"]
