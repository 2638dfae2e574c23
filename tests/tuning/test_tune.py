"""Studies of a tiny model from end to end: what trials share, what they are scored on, what is left behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from core_models import checkpoint, write_images

import yoloquant
from yoloquant.cli.main import main
from yoloquant.data.calibration import CalibrationOptions, calibration_set
from yoloquant.errors import CalibrationError, DataError, ModelError, UsageError
from yoloquant.pipeline import make_artifact
from yoloquant.recipe import Recipe, load_recipe, make_recipe
from yoloquant.targets import resolve
from yoloquant.tuning import trial_recipes
from yoloquant.tuning.held_back import hold_back
from yoloquant.tuning.search import Attempt
from yoloquant.tuning.trial_recipes import TrialRecipes
from yoloquant.tuning.tune import set_up, tune
from yoloquant.tuning.tune_options import Stopper, TuneOptions

pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny detector and forty training images."""
    folder = tmp_path_factory.mktemp("base")
    model = checkpoint(folder / "best.pt")
    data = write_images(folder / "set", train=40, val=8)
    return {"model": str(model), "data": str(data), "imgsz": 64, "targets": "onnxruntime"}


def quiet(epoch: int, score: float) -> None:
    """Watches nothing."""


def test_held_back_images_are_training_images_that_nothing_learns_from(base: dict[str, Any], tmp_path: Path) -> None:
    held = hold_back(make_recipe(base), 16, tmp_path)
    assert hold_back(make_recipe(base), 16, tmp_path) == held, "the same again, for other processes of the study"
    fit, kept = ((tmp_path / f"{name}.txt").read_text().split() for name in ("train", "val"))
    assert len(fit) == 24 and len(kept) == 16 == held.images and not set(fit) & set(kept)
    assert all("/train/" in line for line in (*fit, *kept)), "none of the scored split"
    content = yaml.safe_load(Path(held.data).read_text())
    assert content["names"] and "test" not in content
    calibrates = calibration_set(held.data, CalibrationOptions(images=99))
    assert {str(p) for p in calibrates.paths} <= set(fit)
    with pytest.raises(DataError, match="belongs to a study of other data"):
        hold_back(make_recipe(base), 12, tmp_path)


def test_too_few_images_for_both_are_refused(base: dict[str, Any], tmp_path: Path) -> None:
    data = write_images(tmp_path / "few", train=15, val=4)
    with pytest.raises(CalibrationError, match="has 15 training images; a study needs 16 at least"):
        hold_back(make_recipe({**base, "data": str(data)}), 16, tmp_path / "held")


def test_folders_without_labels_and_class_folders_are_split_by_links(base: dict[str, Any], tmp_path: Path) -> None:
    images = Path(base["data"]).parent / "images" / "train"
    held = hold_back(make_recipe({**base, "data": str(images)}), 16, tmp_path / "plain")
    assert held.folder is not None and len(list(held.folder.iterdir())) == 16
    assert len(list(Path(held.data).iterdir())) == 24
    root = tmp_path / "classes"
    for i, image in enumerate(sorted(images.iterdir())):
        place = root / "train" / f"class {i % 2}" / image.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(image)
    held = hold_back(make_recipe({**base, "data": str(root)}), 16, tmp_path / "held")
    found = {name: list((Path(held.data) / name).rglob("*.png")) for name in ("train", "val")}
    assert (len(found["train"]), len(found["val"])) == (24, 16)
    assert sorted(p.name for p in (Path(held.data) / "val").iterdir()) == ["class 0", "class 1"]


@pytest.mark.slow
def test_trials_share_what_they_compute_and_find_what_a_run_finds(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yoloquant.quantization import ptq

    passes: list[int] = []

    def counted(look: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            passes.append(1)
            return look(*args, **options)

        return run

    for name in ("observe", "describe"):
        monkeypatch.setattr(ptq, name, counted(getattr(ptq, name)))
    given = {
        **base,
        "output": str(tmp_path),
        "images": 12,
        "range_pre_activation": "mse_silu|minmax",
        "percentile": "99..99.9",
    }
    told = TuneOptions(objective="fidelity,map_drop,size,multiplications", held_back=16)  # type: ignore[arg-type]
    _, trials = set_up(None, given, told)
    values = {"ranges.pre_activation": "mse_silu", "ranges.percentile": 99.5}
    first = trials(Attempt(values, 1.0, quiet))
    wide = trials(Attempt({**values, "ranges.pre_activation": "minmax"}, 1.0, quiet))
    assert len(passes) == 2, "one over the calibration images and one for the audit, for both"
    assert trials(Attempt(values, 1.0, quiet)) == first and wide["fidelity"] != first["fidelity"]
    few = trials(Attempt(values, 0.25, quiet))
    assert few["size"] == first["size"] and few["fidelity"] != first["fidelity"]
    assert set(first) == {"fidelity", "map_drop", "size", "multiplications"} and 0 < first["fidelity"] < 1
    assert {p.name for p in tmp_path.iterdir()} == {"data"}, "trials leave nothing behind"
    # the same plan as a run of that recipe on the same images makes, for the target alone or for all schemes
    recipe = trials.space.recipe(values).model_copy(update={"data": trials.held.data})
    _, alone = make_artifact(recipe, resolve("onnxruntime"), tmp_path)
    plans = [p.params for p in alone.plans["onnxruntime"].points]
    again = trials._memory
    _, made = make_artifact(recipe, resolve("onnxruntime"), tmp_path, memory=again)
    shared = made.plans["onnxruntime"].points
    assert len(passes) == 4, "and nothing more for the shared one"
    reference: Any = trials.scorer.reference
    assert reference.module is made.graph.module, "traced once, for the trials and for what they are held against"
    for mine, theirs in zip(plans, (p.params for p in shared), strict=True):
        assert mine is not None and theirs is not None
        np.testing.assert_array_equal(mine.scale, theirs.scale)


@pytest.mark.parametrize(
    ("keys", "options", "said"),
    [
        (
            {"targets": "openvino,onnxruntime"},
            {"objective": "fidelity,size"},
            "size are of one runtime, and targets= names 2",
        ),
        ({"targets": "jetson"}, {"objective": "fidelity,latency"}, "latency of 'tensorrt' cannot be measured here"),
        ({}, {"pruner": "asha"}, "pruner=asha stops trials after an epoch, and nothing trains here"),
        ({"gate": "nope"}, {}, "nope"),
        ({}, {"default_drop": True}, "default_drop=true needs the recipe without any search among the trials"),
        ({"targets": "opnvino"}, {}, "opnvino"),
        ({}, {"space": "all", "sampler": "grid"}, r"sampler=grid has \d{10} recipes here, allowed are 100000"),
    ],
)
def test_what_cannot_be_measured_here_is_refused_before_any_trial(
    base: dict[str, Any], tmp_path: Path, keys: dict[str, str], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        set_up(
            None,
            {**base, "output": str(tmp_path), "images": "8|12", **keys},
            TuneOptions(held_back=16, **options),
        )


def test_a_cluster_that_does_not_answer_leaves_no_study(base: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    told = TuneOptions(held_back=16, on="ray", address="127.0.0.1:1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no Ray cluster answers"):
        tune(None, {**base, "output": str(tmp_path), "images": "8|12"}, told)
    assert {p.name for p in tmp_path.iterdir()} == {"data"}, "or other ranges would be refused the next time"


def test_unlabelled_images_have_no_map_drop(base: dict[str, Any], tmp_path: Path) -> None:
    images = Path(base["data"]).parent / "images" / "train"
    given = {**base, "data": str(images), "output": str(tmp_path), "images": "8|12"}
    with pytest.raises(UsageError, match=r"map_drop cannot be measured: the held-back images of .* have no labels"):
        set_up(None, given, TuneOptions(objective="map_drop", held_back=16))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="does not exist"):
        set_up(None, {**base, "model": "none.pt", "images": "8|12"}, TuneOptions())


@pytest.mark.parametrize(
    ("key", "said"), [("validation_data", "6 columns; .*another task"), ("gate", "which a detect model does not have")]
)
def test_what_the_chosen_recipe_cannot_be_judged_on_is_told_before_any_trial(
    base: dict[str, Any], tmp_path: Path, key: str, said: str
) -> None:
    gate = tmp_path / "mine.yaml"
    gate.write_text("name: mine\nlimits: {mask_map_drop: 0.01}\n")
    data = write_images(tmp_path / "set", train=8, val=4)
    (tmp_path / "set" / "labels" / "val" / "000.txt").write_text("0 0.5 0.5 0.2 0.1 0.7")
    wrong = {"validation_data": str(data), "gate": str(gate)}[key]
    given = {**base, "output": str(tmp_path / "out"), "images": "8|12", key: wrong}
    with pytest.raises((DataError, UsageError), match=said):
        set_up(None, given, TuneOptions(held_back=16))
    set_up(None, given, TuneOptions(held_back=16, confirm=False))


def test_the_pruner_suits_the_study(base: dict[str, Any], tmp_path: Path) -> None:
    def chosen(given: Mapping[str, Any], **options: Any) -> Stopper | None:
        told = TuneOptions(held_back=16, **options)
        return set_up(None, {**base, "output": str(tmp_path), **given}, told)[0].options.pruner

    assert chosen({"images": "8|12"}) is Stopper.NONE
    assert chosen({"train.lr0": "1e-6|1e-5"}) is Stopper.MEDIAN
    assert chosen({"train.lr0": "1e-6|1e-5"}, objective="fidelity,multiplications") is Stopper.NONE


def test_the_first_look_takes_few_epochs_where_something_trains_and_few_images_elsewhere(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[Any] = []

    def made(recipe: Recipe, *args: Any, **options: Any) -> tuple[None, None]:
        epochs.append(recipe.prune and recipe.prune.arguments["epochs"])
        return None, None

    monkeypatch.setattr(trial_recipes, "make_artifact", made)
    monkeypatch.setattr(TrialRecipes, "_measured", lambda self, artifact, chosen, share, work: {"share": share})
    told = TuneOptions(held_back=16)
    for searched, values, share in (
        ({"prune": "0.2..0.4", "prune.epochs": 8}, {"prune.options.amount": 0.3}, 1.0),
        ({"images": "8|12"}, {"calibration.images": 8}, 0.25),
    ):
        _, trials = set_up(None, {**base, "output": str(tmp_path), **searched}, told)
        assert trials(Attempt(values, 0.25, quiet)) == {"share": share}
    assert epochs == [2, None]


def test_the_second_look_begins_with_the_defaults_wherever_they_stood(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the time is over after one recipe, it is what all others would be held against."""
    late, now, seen = [0.0], time.monotonic, []

    def judged(self: TrialRecipes, attempt: Attempt) -> dict[str, float]:
        default = attempt.values == self.space.defaults
        if attempt.share == 1:
            seen.append(default)
            late[0] += 7200
        return {"fidelity": 0.1 if default else 0.9}

    monkeypatch.setattr(time, "monotonic", lambda: now() + late[0])
    monkeypatch.setattr(TrialRecipes, "__call__", judged)
    searched = {"range_head": "mse|minmax", "range_pre_activation": "mse_silu|minmax"}
    told = TuneOptions(trials=4, again=2, hours=1, held_back=16, confirm=False)
    result = tune(None, {**base, **searched, "output": str(tmp_path)}, told)
    assert seen == [True], "first, though it was the worst of the first look"
    assert next(t.default for t in result.trials if t.stage == "search") and len(result.trials) > 4
    assert result.default is not None and result.default.stage == "again"
    late[0] = 0.0
    tune(None, {**base, **searched, "output": str(tmp_path)}, replace(told, hours=None))
    assert seen == [True, False, False], "the best follow when there is time, and nothing is measured twice"


@pytest.mark.slow
def test_the_command_from_search_to_verdict(
    base: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    words = ["tune", base["model"], f"data={base['data']}", "targets=onnxruntime", "imgsz=64", f"output={folder}"]
    words += ["images=8|12", "range_pre_activation=mse_silu|minmax", "latency=false", "memory=false", "bootstrap=100"]
    words += ["sampler=grid", "trials=9", "held_back=16", "few=0.5", "again=1"]
    code = main(words)
    out = capsys.readouterr().out
    assert code in (0, 1, 3), "what its validation says"
    assert "5 trials measured" in out and "chosen:  fidelity" in out and "verdict" in out.lower()
    trials = json.loads((folder / "trials.json").read_text())
    assert [t["stage"] for t in trials] == ["search"] * 4 + ["again"]
    assert {(t["values"]["calibration.images"], t["values"]["ranges.pre_activation"]) for t in trials} == {
        (images, how) for images in (8, 12) for how in ("mse_silu", "minmax")
    }
    again = trials[-1]["scores"]["fidelity"]
    recipe = load_recipe(folder / "recipe.yaml")
    assert recipe.calibration.images == trials[-1]["values"]["calibration.images"] and recipe.imgsz == 64
    assert (folder / "tune.html").is_file() and (folder / "chosen" / "report" / "report.html").is_file()
    report = (folder / "chosen" / "report" / "report.html").stat().st_mtime_ns
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "was scored before" in out and (folder / "chosen" / "report" / "report.html").stat().st_mtime_ns == report
    assert json.loads((folder / "trials.json").read_text()) == trials, "nothing was left to do"
    assert f"{again:.4g}" in out
    assert main([*words, "seed=1"]) == 2
    assert "has another recipe calibration: nothing, and now {'seed': '1'}" in capsys.readouterr().err


@pytest.mark.slow
def test_training_is_searched_and_watched(base: dict[str, Any], tmp_path: Path) -> None:
    told = TuneOptions(sampler="grid", trials=2, few=1, held_back=12, confirm=False, pruner="asha")  # type: ignore[arg-type]
    given = {**base, "images": 8, "train.lr0": "1e-6|1e-3", "train.epochs": 2, "train.images": 8, "train.batch": 12}
    given |= {"train.workers": 0, "train.plots": False, "train.float_val": False, "output": str(tmp_path)}
    result = yoloquant.tune(options=told, **given)
    assert [t.stage for t in result.trials] == ["search"] * 2
    assert all(list(t.epochs)[:1] == [1] and not t.error for t in result.trials)
    finished = [t for t in result.trials if t.state == "measured"]
    assert finished and all(list(t.epochs) == [1, 2] for t in finished)
    assert result.chosen in finished and result.run is None
    assert load_recipe(result.recipe).train is not None


def test_python_takes_options_in_one_way(base: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="give trials= or options=, not both"):
        yoloquant.tune(options=TuneOptions(), trials=3, **base)
    with pytest.raises(UsageError, match="no recipe has the key 'trails'"):
        yoloquant.tune(trails=3, **base)
    with pytest.raises(UsageError, match="nothing is searched"):
        yoloquant.tune(recipe=make_recipe(base))
    assert replace(TuneOptions(), few=1).looks_twice is False


def test_a_first_word_that_is_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "tune.yaml"
    recipe.write_text("model: none.pt\ndata: none.yaml\ncalibration: {images: 64..8}\n")
    assert main(["tune", str(recipe)]) == 2
    assert "calibration.images=64..8 is an inverted range" in capsys.readouterr().err
    assert main(["tune", "images=8|12"]) == 2
    assert "a study needs model=<checkpoint> and data=<data yaml>" in capsys.readouterr().err
