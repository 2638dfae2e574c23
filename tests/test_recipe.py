"""Recipes: everything unknown or wrong is named before any work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from yoloquant import QuantizeOptions, ValidateOptions
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.errors import UsageError
from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe
from yoloquant.recipe import Recipe, load_recipe, make_recipe

LEAST = {"model": "a.pt", "data": "b.yaml"}


def test_defaults_are_those_of_the_options() -> None:
    recipe = make_recipe(LEAST)
    assert recipe.quantize_options == QuantizeOptions()
    assert recipe.validate_options(Path("r")) == ValidateOptions(report=Path("r"))
    assert recipe.targets == ("all",) and recipe.scheme == ("auto",)


def test_everything_arrives_in_the_options(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        """
model: m.pt
data: d.yaml
targets: openvino, litert
scheme: [portable, litert]
imgsz: [64, 96]
output: out
calibration: {images: 16, split: test, seed: 3, allow_scored: true}
ranges: {activation: minmax, pre_activation: mse, score: percentile, head: entropy, weight: minmax, percentile: 99.5}
validation: {gate: strict, split: minival, limit: 5, threads: 2, latency: false, bootstrap: 200, manifest: m.json}
allow_unsafe: true
"""
    )
    recipe = load_recipe(file)
    assert recipe.targets == ("openvino", "litert") and recipe.scheme == ("portable", "litert")
    assert recipe.quantize_options == QuantizeOptions(
        imgsz=(64, 96),
        calibration=CalibrationOptions(images=16, split="test", scored_split="minival", seed=3, allow_scored=True),
        ranges=CalibrationRecipe(
            Algorithm.MINMAX, Algorithm.MSE, Algorithm.PERCENTILE, Algorithm.ENTROPY, Algorithm.MINMAX, 99.5
        ),
        allow_unsafe=True,
    )
    assert recipe.validate_options(tmp_path) == ValidateOptions(
        gate="strict", split="minival", limit=5, threads=2, latency=False, bootstrap=200, manifest="m.json",
        allow_scored=True, report=tmp_path,
    )  # fmt: skip


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_recipe(LEAST).model = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": 1}, r"unknown key 'modle'; did you mean 'model'"),
        ({"calibration": {"image": 8}}, r"unknown key 'calibration.image'; did you mean 'images'"),
        ({"ranges": {"weights": "mse"}}, r"unknown key 'ranges.weights'; did you mean 'weight'"),
        ({"validation": {"report": "x"}}, r"unknown key 'validation.report'; allowed are gate"),
        ({"calibration": {"images": 7}}, r"calibration.images=7 is not supported; allowed is a whole number from 8"),
        ({"calibration": {"images": "many"}}, r"calibration.images='many'"),
        ({"calibration": 5}, r"calibration=5"),
        ({"ranges": {"activation": "best"}}, r"ranges.activation='best'.*minmax"),
        ({"ranges": {"percentile": 101}}, r"ranges.percentile=101"),
        ({"ranges": {"weight": "entropy"}}, r"ranges.weight.*minmax and mse"),
        ({"validation": {"bootstrap": 1}}, r"validation.bootstrap=1"),
        ({"validation": {"threads": 0}}, r"validation.threads=0"),
        ({"validation": {"limit": -1}}, r"validation.limit=-1"),
        ({"imgsz": "big"}, r"imgsz"),
        ({"imgsz": [1, 2, 3]}, r"imgsz"),
        ({"targets": 5}, r"targets=5"),
        ({"model": None}, r"model=None"),
        ({"allow_unsafe": "perhaps"}, r"allow_unsafe='perhaps'"),
    ],
)
def test_wrong_content(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        make_recipe({**LEAST, **changes}, "my.yaml")
    assert str(error.value).startswith("my.yaml: ")


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(UsageError) as error:
        make_recipe({"model": "a", "a": 1, "b": 2})
    assert all(part in str(error.value) for part in ("key 'data' is missing", "'a'", "'b'"))


@pytest.mark.parametrize("content", [None, [], "text", 5])
def test_not_a_mapping(content: Any) -> None:
    with pytest.raises(UsageError, match="a recipe holds keys"):
        make_recipe(content)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load_recipe(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="does not exist"):
        load_recipe(tmp_path)
    file = tmp_path / "bad.yaml"
    for content in (b"a: [1", b"\xff\xfe\x00", b"a: !!python/object/apply:os.system ['true']"):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="not readable YAML"):
            load_recipe(file)
    file.write_text("")
    with pytest.raises(UsageError, match="NoneType"):
        load_recipe(file)


def test_shipped_recipes_are_valid() -> None:
    folder = Path(__file__).parents[1] / "configs" / "recipes"
    recipes = sorted(folder.glob("*.yaml"))
    assert recipes
    assert all(isinstance(load_recipe(r), Recipe) for r in recipes)


def test_training_is_a_preset_or_a_part() -> None:
    assert make_recipe(LEAST).train is None
    short = make_recipe({**LEAST, "train": "fast"}).train
    assert short is not None and short.qat == "fast" and short.arguments == {}
    long = make_recipe({**LEAST, "train": {"qat": {"loss": "both"}, "arguments": {"epochs": 3}}}).train
    assert long is not None and long.qat == {"loss": "both"} and long.arguments == {"epochs": 3}


@pytest.mark.parametrize("part", ["slow", {"qat": {"los": "both"}}, {"epochs": 3}])
def test_wrong_training_is_named(part: object) -> None:
    with pytest.raises(UsageError, match=r"train"):
        make_recipe({**LEAST, "train": part})
