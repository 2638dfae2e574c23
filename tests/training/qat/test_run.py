"""``yoloquant.train`` and what follows from it: every target gets the learned ranges, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from core_models import checkpoint, write_images

import yoloquant
from yoloquant import QuantizeOptions, TrainResult, api
from yoloquant.cli import main as cli
from yoloquant.errors import PlanError, UsageError
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.plan import Plan, Role
from yoloquant.targets import get
from yoloquant.targets.export import complete
from yoloquant.training.qat.qat_options import Preset, QATOptions

QUICK = {"epochs": 1, "imgsz": 64, "batch": 4, "device": "cpu", "plots": False, "workers": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> TrainResult:
    """A run that learned TensorRT's plan, in which LiteRT lacks points."""
    folder = tmp_path_factory.mktemp("train")
    model = checkpoint(folder / "m.pt")
    qat = {"preset": "fast", "images": 8, "scheme": "tensorrt", "range_lr": 0.01, "select": "fitness"}
    result = yoloquant.train(model, data=data, qat=qat, project=str(folder), name="run", **QUICK)
    # a random model may not get better, and then holds the calibrated plan: mark ranges as learned all the same
    artifact = result.artifact
    plan = artifact.plans["tensorrt"]
    learned = tuple(replace(p, algorithm="learned") if not p.fixed else p for p in plan.points)
    replace(artifact, plans={"tensorrt": Plan(plan.scheme, plan.imgsz, learned, plan.notes)}).save(result.best)
    return result


def test_the_result_says_what_happened(trained: TrainResult) -> None:
    assert trained.best.is_file() and trained.best.name == "best.pt"
    assert trained.improved == (trained.score > trained.score_calibrated)
    assert set(trained.artifact.plans) == {"tensorrt"}
    assert (trained.folder / "results.csv").is_file()


def test_a_target_that_lacks_points_says_so_before_any_work(trained: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="give data="):
        api.export(trained.artifact, targets="litert", output=tmp_path)
    assert not list(tmp_path.glob("*.tflite"))


def test_what_was_not_trained_is_calibrated_and_listed(trained: TrainResult, data: Path, tmp_path: Path) -> None:
    before = trained.artifact.plans["tensorrt"]
    target = get("onnxruntime")
    options = QuantizeOptions(calibration=yoloquant.CalibrationOptions(images=8))
    artifact = complete(trained.artifact, [target, get("tensorrt")], data=data, options=options)
    assert artifact.plans["tensorrt"].to_json() == before.to_json()
    plan = artifact.plan_for(target.scheme)
    added = artifact.provenance["calibrated_after_training"]["onnxruntime"]
    assert added and all(plan.by_name[n].algorithm != "learned" for n in added)
    known = [p for p in plan.points if p.name in before.by_name]
    # weights that kernels without VNNI would saturate give way: TensorRT, which was trained for, has no such kernels
    safe = [p for p in known if p.spec.half_range or p.spec.safe_pairs]
    assert [p.role for p in safe if p.spec.half_range] == [Role.WEIGHT]
    assert not any(p.spec.half_range or p.spec.safe_pairs for p in before.points)
    kept = [p for p in known if p not in safe]
    assert len(kept) > len(known) / 2 and all(p.params == before.by_name[p.name].params for p in kept)
    assert {p.name for p in plan.points if not p.fixed} == {p.name for p in known if not p.fixed} | set(added)
    exported = api.export(artifact, targets="onnxruntime", output=tmp_path).exports[0]
    assert any(f"{len(added)} points were not trained" in note for note in plan.notes)
    scales = target.read_scales(exported)
    for p in kept:
        if p.name in scales and p.params is not None:
            assert np.array_equal(np.ravel(scales[p.name][0]), np.ravel(p.params.scale))


def test_nothing_is_calibrated_where_nothing_is_missing(trained: TrainResult) -> None:
    artifact = trained.artifact
    assert complete(artifact, [get("tensorrt")], data="does-not-exist.yaml") is artifact


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"trainer": None}, "unknown training argument 'trainer'"),
        ({"qat": "quick"}, "allowed are fast, standard, long"),
        ({"qat": {"presets": "fast"}}, "'qat' has no option 'presets'; did you mean 'preset'?"),
        ({"qat": {"loss": "distil"}}, "allowed are distill, detect, both"),
        ({"data": None}, "needs data="),
    ],
)
def test_wrong_arguments_stop_before_the_model_is_read(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        yoloquant.train("does-not-exist.pt", **{"data": "d.yaml", **arguments})  # type: ignore[arg-type]


def test_the_command_hands_arguments_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("m.pt", "d.yaml"):  # looked for before anything is imported
        (tmp_path / name).touch()
    seen: dict[str, object] = {}

    def train(model: str, **arguments: object) -> TrainResult:
        seen.update(arguments, model=model)
        return TrainResult(Path("w/best.pt"), Path("w"), 0.9, 0.9, scheme="portable")

    monkeypatch.setattr(api, "train", train)
    code = cli.main(["train", "m.pt".join(["model=", ""]), "data=d.yaml", "preset=fast", "epochs=3", "lr0=1e-4",
                     "amp=false", "name=a", "--range-lr", "0.01", "--cos-lr=true"])  # fmt: skip
    assert code == 0
    assert {k: seen[k] for k in ("epochs", "lr0", "amp", "name", "cos_lr")} == {
        "epochs": 3, "lr0": 1e-4, "amp": False, "name": "a", "cos_lr": True,
    }  # fmt: skip
    qat = seen["qat"]
    assert isinstance(qat, QATOptions) and qat.preset == "fast" and qat.range_lr == 0.01
    shown = capsys.readouterr().out
    assert "a runtime's own plan may beat it by calibration alone" in shown
    assert TrainResult(Path(), Path(), 0.9, 0.8, scheme="openvino").advice == ""
    assert "training did not help" in shown and "yoloquant export w/best.pt" in shown


def test_a_recipe_trains_before_it_exports(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: Path, trained: TrainResult
) -> None:
    """``run`` with ``train`` validates against the checkpoint that it was given, not against the trained weights."""
    seen: dict[str, object] = {}
    monkeypatch.setattr("yoloquant.training.train.train", lambda model, **kw: (seen.update(train=kw), trained)[1])

    def validate(model: object, *args: object, **kwargs: object) -> None:
        seen["validated"] = model
        raise UsageError("enough")

    monkeypatch.setattr("yoloquant.pipeline.validate", validate)
    model = checkpoint(tmp_path / "m.pt")
    code = cli.main(["run", f"model={model}", f"data={data}", "train=fast", "targets=tensorrt", "imgsz=64", "images=8",
                     f"output={tmp_path / 'out'}"])  # fmt: skip
    assert code == 2 and seen["validated"] == str(model)
    arguments = seen["train"]
    assert isinstance(arguments, dict) and arguments["imgsz"] == 64
    assert (arguments["qat"].preset, arguments["qat"].scheme) == (Preset.FAST, "tensorrt")
    assert list((tmp_path / "out").glob("*tensorrt*.onnx"))


def test_the_trained_checkpoint_is_an_artifact(trained: TrainResult) -> None:
    artifact = Artifact.load(trained.best)
    assert artifact.provenance["qat"]["preset"] == "fast" and len(artifact.provenance["qat"]["data_sha256"]) == 64
