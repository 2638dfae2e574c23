"""Which values of a recipe can be searched, by which names, and what is refused before any trial."""

from __future__ import annotations

import copy

import pytest

from yoloquant.errors import UsageError
from yoloquant.recipe import make_recipe
from yoloquant.tuning.dimensions import Choice, Span
from yoloquant.tuning.ready_made import SPACES
from yoloquant.tuning.recipe_keys import find_key, value_at, with_values
from yoloquant.tuning.space import make_space

BASE = {"model": "a.pt", "data": "../set/d.yaml"}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("images", "calibration.images"),
        ("calibration.images", "calibration.images"),
        ("quantize.images", "calibration.images"),
        ("quantize.range_head", "ranges.head"),
        ("range_head", "ranges.head"),
        ("ranges.head", "ranges.head"),
        ("scheme", "scheme"),
        ("train", "train.qat.preset"),
        ("train.loss", "train.qat.loss"),
        ("train.qat.loss", "train.qat.loss"),
        ("train.lr0", "train.arguments.lr0"),
        ("train.lr", "train.arguments.lr0"),
        ("train.arguments.epochs", "train.arguments.epochs"),
        ("prune", "prune.options.amount"),
        ("prune.pruning_ratio", "prune.options.amount"),
        ("prune.criterion", "prune.options.criterion"),
        ("prune.epochs", "prune.arguments.epochs"),
        ("target", "targets"),
        ("format", "targets"),
    ],
)
def test_names_of_keys(name: str, place: str) -> None:
    assert find_key(name).name == place


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("imges", "did you mean 'images'"),
        ("train.qat.los", "did you mean 'train.qat.loss'"),
        ("train.learn_head", "did you mean 'train.learn_heads'"),
        ("prune.criteria", "did you mean 'prune.criterion'"),
        ("quantize.rnage_head", "did you mean 'quantize.range_head'"),
        ("rangs.head", "did you mean 'ranges'"),
        ("train.arguments.lr00", "did you mean 'train.arguments.lr0'"),
    ],
)
def test_the_nearest_key_is_named(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"no recipe has the key '{name}'; {near}"):
        make_space(BASE, {name: "1|2"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": "2|64"}, r"calibration.images=2 is not supported; allowed is a whole number from 8"),
        ({"images": "4..64"}, r"calibration.images=4 is not supported"),
        ({"range_head": "mse|foo"}, r"ranges.head='foo' is not supported; allowed are"),
        ({"prune": "0.5..1.5"}, r"amount=1.5 is not supported; allowed is the share"),
        ({"train.loss": "distill|bth"}, r"loss='bth' is not supported"),
        ({"train.epochs": "0|3"}, r"epochs.*must be >= 1"),
        ({"scheme": "auto|nope"}, r"scheme 'nope' is unknown"),
        ({"targets": "onnxruntime|nope"}, r"nope"),
        ({"images": "512..32"}, r"images=512..32 is an inverted range"),
        ({"images": "32..32"}, r"images=32..32 is an empty range"),
        ({"imgsz": "320|640"}, r"imgsz=320\|640 cannot be searched: scores of different input sizes"),
        ({"model": "a.pt|b.pt"}, r"cannot be searched: a study is of one model"),
        ({"gate": "default|strict"}, r"cannot be searched: it says how results are judged"),
        ({"train.imgsz": "320|640"}, r"cannot be searched: scores of different input sizes"),
        ({"train.loss": "distill|both", "scheme": "auto|portable"}, r"scheme= cannot be searched here"),
        ({"images": 64}, r"nothing is searched: give a range"),
        ({}, r"nothing is searched"),
    ],
)
def test_bad_spaces_are_refused_before_any_trial(given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_space(BASE, given)


def test_an_unknown_ready_made_space_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="space='ptqq' is not known; did you mean 'ptq'"):
        make_space(BASE, {}, "ptqq")


@pytest.mark.parametrize("name", SPACES)
def test_ready_made_spaces_make_valid_recipes_at_both_ends(name: str) -> None:
    space = make_space(BASE, {}, name)
    assert set(space.text) == set(SPACES[name])
    for end in (0, -1):
        recipe = space.recipe({".".join(place): each.ends[end] for place, each in space.dimensions.items()})
        assert (recipe.train is not None) == (name in ("qat", "all"))
        assert (recipe.prune is not None) == (name in ("prune", "all"))


def test_the_ptq_space_holds_the_defaults() -> None:
    defaults = make_space(BASE, {}, "ptq").defaults
    assert defaults is not None and make_space(BASE, {}, "ptq").recipe(defaults) == make_recipe(
        {**BASE, "calibration": {"images": 128}, "ranges": {}}
    ), "the recipe of the default trial is today's recipe"


def test_a_single_key_overrides_a_ready_made_space() -> None:
    space = make_space(BASE, {"images": 16, "seed": "3|4", "range_head": "mse"}, "ptq")
    assert ("calibration", "images") not in space.dimensions and ("ranges", "head") not in space.dimensions
    assert space.dimensions["calibration", "seed"] == Choice((3, 4))
    assert space.base["calibration"] == {"images": 16} and space.base["ranges"] == {"head": "mse"}
    assert space.defaults is None, "the default seed is outside"


def test_ranges_in_a_recipe_file() -> None:
    content = {
        **BASE,
        "calibration": {"images": "32|64", "seed": 7},
        "train": {"qat": {"loss": "distill|both", "preset": "fast"}, "arguments": {"lr0": "log:1e-7..1e-5"}},
    }
    kept = copy.deepcopy(content)
    space = make_space(content, {"train.qat.damping": "0|0.1"})
    assert content == kept, "what was given stays as it is"
    assert space.text == {
        "calibration.images": "32|64",
        "train.arguments.lr0": "log:1e-07..1e-05",
        "train.qat.damping": "0|0.1",
        "train.qat.loss": "distill|both",
    }
    made = space.recipe(
        {"calibration.images": 32, "train.arguments.lr0": 1e-6, "train.qat.damping": 0, "train.qat.loss": "both"}
    )
    assert made.calibration.seed == 7 and made.train is not None
    assert made.train.qat == {"preset": "fast", "loss": "both", "damping": 0}
    assert make_space({**BASE, "prune": "0.2..0.4"}, {}).dimensions == {("prune", "options", "amount"): Span(0.2, 0.4)}
    over = make_space({**BASE, "prune": "0.2..0.4"}, {"prune": 0.3, "images": "32|64"})
    assert over.base["prune"] == {"options": {"amount": 0.3}} and len(over.dimensions) == 1


def test_short_forms_of_train_and_prune_are_written_out() -> None:
    content = {**BASE, "train": "fast", "prune": 0.3}
    changed = with_values(content, {("train", "qat", "loss"): "both", ("prune", "arguments", "epochs"): 3})
    assert changed["train"] == {"qat": {"preset": "fast", "loss": "both"}}
    assert changed["prune"] == {"options": {"amount": 0.3}, "arguments": {"epochs": 3}}
    assert content["train"] == "fast" and value_at(content, ("train", "qat", "preset")) == "fast"
    with pytest.raises(KeyError):
        value_at(content, ("calibration", "images"))
