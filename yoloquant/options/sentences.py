"""What is wrong with options, as sentences for people: what was given, what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from ..runtime.core.nearest import nearest

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic.fields import FieldInfo

_UNKNOWN = {"unexpected_keyword_argument", "extra_forbidden"}
_MISSING = {"missing", "missing_argument", "missing_keyword_only_argument"}
Name = Callable[[tuple[str, ...]], str]


def fields_of(model: Any) -> Mapping[str, FieldInfo]:
    """Fields of an option model, or of a pydantic model."""
    # pydantic's dataclasses keep them under the first name, its models under both
    fields: Mapping[str, FieldInfo] = getattr(model, "__pydantic_fields__", None) or getattr(model, "model_fields", {})
    return fields


def nested(annotation: Any) -> Any:
    """The option model that a field holds; None if it holds something else."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and fields_of(part):
            return part
    return None


def sentences(exc: ValidationError, model: Any, name: Name = ".".join) -> str:
    """Put errors into words.

    Args:
        exc: What pydantic found.
        model: The model that it held values against.
        name: Turns the place of a field into the name that the reader gave.
    """
    # a union is tried type by type and reports each, with the same sentence for all
    return "; ".join(dict.fromkeys(_sentence(dict(error), model, name) for error in exc.errors()))


def _sentence(error: dict[str, Any], model: Any, name: Name) -> str:
    if not error["loc"]:  # a check of the whole, which names the field itself
        return str(error["ctx"]["error"]) if error["type"] == "value_error" else str(error["msg"])
    *parents, last = [str(part) for part in error["loc"]]
    owner = model
    for index, part in enumerate(parents):
        field = fields_of(owner).get(part)
        inside = nested(field.annotation) if field else None
        if inside is None:  # the error is within a value, for instance in an element of a list
            parents, last = parents[:index], part
            break
        owner = inside
    place = name((*parents, last))
    if error["type"] in _UNKNOWN:
        return f"unknown key '{place}'{nearest(last, fields_of(owner))}"
    if error["type"] in _MISSING:
        return f"key '{place}' is missing"
    if error["type"] == "told":  # by the parser of another verb
        return f"{place}: {error['msg']}"
    got = f"{place}={_shown(error['input'])} is not supported"
    if error["type"] == "value_error":  # a check of our own, which says what is allowed
        return f"{got}; {error['ctx']['error']}"
    field = fields_of(owner).get(last)
    return f"{got}; {allowed(field)}" if field else f"{got}: {error['msg']}"


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else repr(value)


def allowed(field: FieldInfo) -> str:
    """What a field may be: ``allowed is a whole number from 8``."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    # the option's own words first: a type cannot say "multiple of 32"
    text = str(extra.get("allowed") or kind(field.annotation, field.metadata))
    return f"allowed {'is' if text.startswith(('a ', 'one ', 'the ')) else 'are'} {text}"


def kind(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type and its limits in words."""
    values = choices(annotation)
    if values:
        return ", ".join(values)
    parts = [part for part in _parts(annotation) if part is not NoneType]
    # before numbers: bool is a whole number to Python
    if bool in parts:
        return "true and false"
    if inside := nested(annotation):
        return f"a mapping of {', '.join(fields_of(inside))}"
    for number, word in ((float, "a number"), (int, "a whole number")):
        if number in parts:
            return f"{word}{_range(metadata)}"
    if any(get_origin(part) is tuple for part in parts):
        return "a list, or names separated by commas"
    return "a text"


def choices(annotation: Any) -> tuple[str, ...]:
    """Every value of a closed set; none if it is open."""
    values: list[str] = []
    for part in _parts(annotation):
        if isinstance(part, type) and issubclass(part, Enum):
            values += [str(member.value) for member in part]
        elif get_origin(part) is Literal:
            values += [str(value) for value in get_args(part)]
    return tuple(values)


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _range(metadata: Sequence[Any]) -> str:
    low = high = ""
    for limit in metadata:
        match limit:
            case Ge():
                low = f" from {limit.ge}"
            case Gt():
                low = f" above {limit.gt}"
            case Le():
                high = f" to {limit.le}"
            case Lt():
                high = f" below {limit.lt}"
    # " above 0 and up to 1": "above 0 to 1" would not be English
    if low.startswith(" above") and high:
        return f"{low} and {'up' if high.startswith(' to') else ''}{high}".replace("  ", " ")
    return low + high
