"""The command line's arguments, in both spellings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloquant.cli.parser import Option, Verb, boolean, build_parser, extras, normalise, positive, size
from yoloquant.errors import UsageError

VERBS = (
    Verb(
        "cook",
        "Cook something.",
        (
            Option("model", "what", required=True),
            Option("imgsz", "size", size),
            Option("allow_unsafe", "risk", boolean, False),
            Option("images", "how many", positive, 128),
            Option("targets", "for whom", aliases=("target", "for_whom")),
            Option("seed", "seed", int, 0),
        ),
        "yoloquant cook model=a.pt",
    ),
    Verb("run", "Run.", (Option("recipe", "file"), Option("limit", "count", positive)), "yoloquant run r.yaml",
         positional="recipe"),
    Verb("list", "List.", (), "yoloquant list"),
    Verb("learn", "Learn.", (Option("model", "what"), Option("range_lr", "rate", float)), "yoloquant learn model=a.pt",
         passes=True),
)  # fmt: skip


def parse(*arguments: str) -> dict[str, Any]:
    """What the command line would see."""
    return vars(build_parser(VERBS, "1").parse_args(normalise(arguments, VERBS)))


GIVEN = {"model": "a.pt", "imgsz": "64,96", "allow_unsafe": "yes", "images": "9", "targets": "x,y", "seed": "-4"}
READ = {"verb": "cook", "model": "a.pt", "imgsz": (64, 96), "allow_unsafe": True, "images": 9, "targets": "x,y",
        "seed": -4}  # fmt: skip


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.permutations(sorted(GIVEN)))
def test_every_mix_of_spellings_means_the_same(styles: list[int], order: list[str]) -> None:
    arguments = ["cook"]
    for key, style in zip(order, styles, strict=True):
        dashed, value = key.replace("_", "-"), GIVEN[key]
        arguments += {
            0: [f"{key}={value}"],
            1: [f"--{key}={value}"],
            2: [f"--{dashed}={value}"] if value.startswith("-") else [f"--{dashed}", value],
            3: [f"{dashed}={value}"],
        }[style]
    assert parse(*arguments) == READ


def test_defaults_are_left_open_and_aliases_fold() -> None:
    assert parse("cook", "model=x") == {**dict.fromkeys(READ), "verb": "cook", "model": "x"}
    for spelling in (["target=a"], ["--target", "a"], ["for_whom=a"], ["--for-whom", "a"], ["--for_whom=a"]):
        assert parse("cook", "model=x", *spelling)["targets"] == "a"


def test_values_may_hold_anything() -> None:
    assert parse("cook", "model=/a dir/b=c.pt")["model"] == "/a dir/b=c.pt"
    assert parse("cook", "--model", "key=value.pt")["model"] == "key=value.pt"
    assert parse("cook", "model=")["model"] == ""
    assert parse("cook", "--model", "targets=x")["model"] == "targets=x"


def test_a_bare_first_argument() -> None:
    assert parse("run", "recipe.yaml", "limit=3") == {"verb": "run", "recipe": "recipe.yaml", "limit": 3}
    assert parse("run", "limit=3")["recipe"] is None
    for wrong in (["cook", "a.pt"], ["run", "limit=3", "recipe.yaml"], ["list", "x"], ["cook", "model=x", "extra"]):
        with pytest.raises(UsageError, match="is not key=value; for example: yoloquant"):
            parse(*wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cok", "model=x"], "did you mean 'cook'"),
        (["zzz"], "allowed are cook, run, list"),
        (["cook", "modl=x"], "unknown argument 'modl' of 'cook'; did you mean 'model'"),
        (["cook", "--modl", "x"], "unknown argument 'modl' of 'cook'; did you mean 'model'"),
        (["cook", "--modl=x"], "did you mean 'model'"),
        (["cook", "model=x", "--allow-unsaf=1"], "did you mean 'allow_unsafe'"),
        (["cook", "model=x", "qqqq=1"], "allowed are model, imgsz"),
        (["cook", "model=x", "--qqqq", "1"], "allowed are model, imgsz"),
        (["cook", "model=x", "-m", "1"], "unknown argument 'm'"),
        (["cook"], "model.*see 'yoloquant cook --help'"),
        (["cook", "model=x", "images=0"], "images.*whole number above 0"),
        (["cook", "model=x", "images=²"], "images"),
        (["cook", "model=x", "images=1.5"], "whole number above 0"),
        (["cook", "model=x", "imgsz=big"], "imgsz.*one number or height,width"),
        (["cook", "model=x", "imgsz=1,2,3"], "one number or height,width"),
        (["cook", "model=x", "allow_unsafe=maybe"], "true and false"),
        (["cook", "model=x", "seed=a"], "seed"),
        (["cook", "--model"], "model.*expected one argument"),
        (["--verbose"], "see 'yoloquant --help'"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(*arguments)


@pytest.mark.parametrize(
    ("text", "value"),
    [("640", 640), ("480,640", (480, 640)), ("480x640", (480, 640)), ("[480, 640]", (480, 640)), ("(32,64)", (32, 64))],
)
def test_size(text: str, value: object) -> None:
    assert size(text) == value


@pytest.mark.parametrize(("text", "value"), [("TRUE", True), ("on", True), ("1", True), ("No", False), ("off", False)])
def test_boolean(text: str, value: bool) -> None:
    assert boolean(text) is value


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["cook", "--help"], ["cook", "-h"], ["list", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(*arguments)
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: yoloquant" in shown
    if arguments[0] == "cook":
        assert all(f"--{k.replace('_', '-')}" in shown for k in GIVEN) and "default 128" in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--version")
    assert capsys.readouterr().out.strip() == "yoloquant 1"


@pytest.mark.parametrize("spelling", ["{}={}", "--{}={}"])
def test_a_verb_that_passes_hands_on_what_it_does_not_know(spelling: str) -> None:
    seen = parse("learn", *(spelling.format(k, v) for k, v in
                            {"model": "a.pt", "epochs": "3", "range-lr": "0.5", "close-mosaic": "1e-3", "amp": "False",
                             "freeze": "[0, 1]", "name": "x=y", "time": "None"}.items()))  # fmt: skip
    assert seen["model"] == "a.pt" and seen["range_lr"] == 0.5
    assert extras(seen["extra"]) == {
        "epochs": 3, "close_mosaic": 1e-3, "amp": False, "freeze": [0, 1], "name": "x=y", "time": None,
    }  # fmt: skip


def test_a_verb_that_passes_still_wants_key_value() -> None:
    with pytest.raises(UsageError, match="not key=value"):
        parse("learn", "--epochs", "3")
