"""Results that print as a few lines instead of everything they hold, and turn into plain data or a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from .errors import UsageError

T = TypeVar("T")


class Summarized:
    """A result; its dataclass is made with ``repr=False``, or printing it would print arrays and plans."""

    def summary(self) -> str:
        """Say it in a few lines for people."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain data: numbers, texts, lists and mappings."""
        found: dict[str, Any] = plain(self)
        return found

    def __repr__(self) -> str:
        return self.summary()

    def __str__(self) -> str:
        return self.summary()


def plain(value: Any) -> Any:
    """Turn dataclasses, enums, paths and tuples into what JSON knows."""
    # not dataclasses.asdict, which copies arrays and stops at enums and paths
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def from_plain(kind: type[T], data: Mapping[str, Any]) -> T:
    """Read a dataclass back from what ``plain`` made of it, and leave out derived numbers that have no field.

    Raises:
        KeyError: A field is missing.
        pydantic.ValidationError: A value is of another type; a ``ValueError``.
    """
    from pydantic import TypeAdapter

    # what results hold besides their fields was computed from these
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    return TypeAdapter(kind).validate_python({name: data[name] for name in names})


def data_frame(rows: list[dict[str, Any]]) -> Any:
    """Make a ``pandas.DataFrame``.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as exc:
        raise UsageError("to_df() needs pandas, which is not installed; install it with: pip install pandas") from exc
    return pandas.DataFrame(rows)
