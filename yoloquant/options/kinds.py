"""Types of options that are given in more than one form: ``640`` or ``480,640``, a path or a text, names in a list."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainValidator

SIZE = "one number or height,width, for instance 640"


def _size(value: Any) -> int | tuple[int, int] | None:
    if value is None or value == "":
        return None
    parts = value
    if isinstance(value, str):
        # 480,640 and 480x640 and [480, 640], as other tools write it
        parts = value.strip("[]()").replace("x", ",").split(",")
    if isinstance(parts, (int, float)):
        parts = [parts]
    try:
        sides = [int(part) for part in parts]
    except (TypeError, ValueError):
        sides = []
    # True is an int to Python, and imgsz=true a mistake
    if len(sides) not in (1, 2) or isinstance(value, bool):
        raise ValueError(f"allowed is {SIZE}")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _text(value: Any) -> Any:
    # as text: option models are stored and compared as plain data
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _names(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _with_precision(value: Any) -> Any:
    if isinstance(value, str):
        # from the right: a name ends where its precision begins
        parts = (part.rpartition(":") for part in value.split(",") if part.strip())
        return tuple((name.strip(), precision.strip()) for name, _, precision in parts)
    return tuple(value.items()) if isinstance(value, Mapping) else value


def _none(value: Any) -> Any:
    # a command line has no other way to say that something is left out
    return None if isinstance(value, str) and value.lower() in {"", "none", "null"} else _text(value)


def _yes_or_path(value: Any) -> bool | str:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    text = _text(value)
    if isinstance(text, str) and text.strip():
        return words.get(text.lower(), text)
    if isinstance(text, bool):
        return text
    raise ValueError("allowed are true, false, or a folder")


ImageSize = Annotated[int | Sequence[int] | None, PlainValidator(_size)]
"""Input size in pixels: one number, or height and width."""

Text = Annotated[str, BeforeValidator(_text)]
"""A text, or a path."""

TextOrNone = Annotated[str | None, BeforeValidator(_none)]
"""The same where it may be left out."""

PathOrNone = Annotated[str | os.PathLike[str] | None, BeforeValidator(_none)]
"""A path, kept as a text, that may be left out."""

NumberOrNone = Annotated[float | None, BeforeValidator(_none)]
"""A number that may be left out although it is there by default."""

LAYER_PRECISIONS = ("float", "fp16", "w8a16")
"""What a single layer can be given: float, float16, or int8 weights with activations of 16 bits."""

NamesWithPrecision = Annotated[
    tuple[tuple[str, Literal["float", "fp16", "w8a16"]], ...], BeforeValidator(_with_precision)
]
"""Names with a precision each: a mapping, pairs, or ``name:precision`` separated by commas."""

Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""Names in a list, or separated by commas."""

YesOrPath = Annotated[bool | str | os.PathLike[str], PlainValidator(_yes_or_path)]
"""Whether, or where."""
