"""Options: one definition, flat names, and errors that say what was given and what is allowed."""

from __future__ import annotations

import pickle
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path

import pytest

from yoloquant.errors import UsageError
from yoloquant.options import ImageSize, Names, PathOrNone, build, flatten, gather, option, option_model
from yoloquant.quantization.quantize_options import QuantizeOptions


class Kind(str, Enum):
    A = "a"
    B = "b"


@option_model
class Inner:
    images: int = option(default=128, ge=8, help="how many")
    split: str = option(default="train", help="which", flat="inner_split")
    share: float = option(default=0.5, gt=0, lt=1, help="how much")


@option_model
class Outer:
    """Options."""

    kind: Kind = option(default=Kind.A, help="what", aliases=("sort",))
    imgsz: ImageSize = option(default=None, help="size")
    only: Names = option(default=(), help="which")
    inner: Inner = option(default_factory=Inner, help="the rest")
    path: PathOrNone = option(default=None, help="where")
    split: str = option(default="val", help="which")
    hook: object = option(default=None, help="a function", python_only=True)


def test_it_is_a_frozen_dataclass_that_converts() -> None:
    made = Outer(kind="b", imgsz="64x96", only="a, b", inner={"images": "9"}, path=Path("x"))  # type: ignore[arg-type]
    assert made == Outer(Kind.B, (64, 96), ("a", "b"), Inner(9), "x")
    assert replace(made, split="test").split == "test" and asdict(made)["inner"]["images"] == 9
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(AttributeError):
        made.split = "x"  # type: ignore[misc]


def test_flat_names_find_their_places() -> None:
    options = flatten(Outer)
    assert list(options) == ["kind", "imgsz", "only", "images", "inner_split", "share", "path", "split", "hook"]
    assert options["inner_split"].path == ("inner", "split") and options["images"].default == "128"
    assert "hook" not in flatten(Outer, command=True)
    made = build(Outer, {"sort": "b", "images": 10, "inner_split": "x", "split": "y"}, "verb")
    assert (made.kind, made.inner.images, made.inner.split, made.split) == (Kind.B, 10, "x", "y")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": 3}, "images=3 is not supported; allowed is a whole number from 8"),
        ({"share": 1}, "share=1 is not supported; allowed is a number above 0 and below 1"),
        ({"kind": "c"}, "kind='c' is not supported; allowed are a, b"),
        ({"imgsz": True}, "imgsz=True is not supported; allowed is one number or height,width, for instance 640"),
        ({"only": 5}, "only=5 is not supported; allowed is a list, or names separated by commas"),
        ({"imges": 3}, "'verb' has no option 'imges'; did you mean 'images'?"),
        ({"kind": "a", "sort": "b"}, "'kind' is given twice, as 'sort' too; give it once"),
    ],
)
def test_errors_are_sentences(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        build(Outer, values, "verb")
    assert str(error.value) == message


def test_a_nested_mapping_names_its_place() -> None:
    with pytest.raises(UsageError, match=r"^inner.images=1 is not supported; .*; unknown key 'inner.imags'; did you"):
        Outer(inner={"images": 1, "imags": 2})  # type: ignore[arg-type]


def test_options_or_keywords_not_both() -> None:
    assert gather(Inner, None, {}, "verb") == Inner() and gather(Inner, None, {"images": 9}, "verb") == Inner(9)
    assert gather(Inner, Inner(9), {}, "verb") == Inner(9)
    with pytest.raises(UsageError, match="images= or options=, not both, to verb"):
        gather(Inner, Inner(), {"images": 9}, "verb")


def test_every_option_has_a_help_text() -> None:
    for name, found in flatten(QuantizeOptions).items():
        assert len(found.help) > 10 and found.allowed.startswith("allowed "), name
