"""Frozen models of options whose errors are sentences."""

from __future__ import annotations

from dataclasses import field
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from ..errors import UsageError
from .sentences import sentences

T = TypeVar("T")
# pydantic's own mark of a field without default
_REQUIRED: Any = ...


def option(
    *,
    default: Any = _REQUIRED,
    default_factory: Any = None,
    help: str,
    flat: str = "",
    aliases: tuple[str, ...] = (),
    allowed: str = "",
    python_only: bool = False,
    **limits: Any,
) -> Any:
    """Define a field of an option model.

    Args:
        default: Its value if it is not given; required without one.
        default_factory: Makes the default instead.
        help: One line for people: the command's help and the reference.
        flat: Its name in the command and among Python keywords, where another option has the field's own.
        aliases: Other names that mean the same there.
        allowed: What it may be, where type and limits do not tell.
        python_only: Whether it has no spelling on a command line, for instance a function.
        **limits: ``ge``, ``gt``, ``le``, ``lt`` and what else pydantic's ``Field`` takes.

    Returns:
        What a dataclass takes for a default.
    """
    source = {"default": default} if default_factory is None else {"default_factory": default_factory}
    return Field(**source, **_described(help, flat, aliases, allowed, python_only), **limits)


def shared_option(
    *,
    help: str,
    flat: str = "",
    aliases: tuple[str, ...] = (),
    allowed: str = "",
    python_only: bool = False,
    **limits: Any,
) -> Any:
    """Define an option for several models, as metadata of ``Annotated``; each model adds its own default.

    Args are those of ``option``. pydantic merges the metadata of an annotation with what the field itself says.
    """
    return Field(**_described(help, flat, aliases, allowed, python_only), **limits)


def _described(help: str, flat: str, aliases: tuple[str, ...], allowed: str, python_only: bool) -> dict[str, Any]:
    # json_schema_extra is the one place where pydantic keeps words of others
    extra = {"flat": flat, "aliases": aliases, "allowed": allowed, "python_only": python_only}
    return {"description": help, "json_schema_extra": extra}


@dataclass_transform(frozen_default=True, field_specifiers=(option, field, Field))
def option_model(cls: type[T]) -> type[T]:
    """Make a frozen dataclass that checks and converts what it is given, and knows no other keys.

    Wrong values raise ``UsageError`` with one sentence each: got, allowed.
    """
    # forbid: a misspelt option would otherwise be a default in disguise
    model = dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))(cls)
    # wrapped once here, so that whoever makes options in Python gets sentences, not pydantic's report
    checked = model.__init__

    def init(self: Any, *args: Any, **values: Any) -> None:
        try:
            checked(self, *args, **values)
        except ValidationError as exc:
            raise UsageError(sentences(exc, model)) from None

    model.__init__ = init  # type: ignore[method-assign]
    return cast(type[T], model)
