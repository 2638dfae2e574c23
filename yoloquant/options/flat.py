"""Options without nesting: the command's ``key=value`` and Python's keywords, from nested models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

from ..errors import UsageError
from ..runtime.core.nearest import nearest
from .sentences import allowed, fields_of, nested, sentences
from .ultralytics_words import SAME, answer, same_word

T = TypeVar("T")


@dataclass(frozen=True)
class FlatOption:
    """One option as a command or a keyword.

    Attributes:
        name: What it is called there.
        path: Its place in the model.
        help: One line for people.
        default: Its value if it is not given, as a person writes it; empty for none.
        allowed: What it may be.
        aliases: Other names.
        required: Whether it must be given.
    """

    name: str
    path: tuple[str, ...]
    help: str
    default: str = ""
    allowed: str = ""
    aliases: tuple[str, ...] = ()
    required: bool = False


def flatten(model: Any, command: bool = False) -> dict[str, FlatOption]:
    """Every option of a model and of the models in it, by its flat name.

    Args:
        model: An option model.
        command: Leave out what has no spelling on a command line.
    """
    options: dict[str, FlatOption] = {}
    for key, field in fields_of(model).items():
        extra: Any = field.json_schema_extra or {}
        inside = nested(field.annotation)
        if command and extra.get("python_only"):
            continue
        # a nested model that has a flat name is one option there, such as prune=0.5
        if inside is not None and not extra.get("flat"):
            for name, each in flatten(inside, command).items():
                _add(options, FlatOption(name, (key, *each.path), *_rest(each)))
            continue
        default = field.get_default(call_default_factory=True)
        required = default is PydanticUndefined
        _add(
            options,
            FlatOption(
                extra.get("flat") or key,
                (key,),
                field.description or "",
                "" if required else written(default),
                allowed(field),
                tuple(extra.get("aliases", ())),
                required,
            ),
        )
    return options


def _rest(each: FlatOption) -> tuple[Any, ...]:
    return each.help, each.default, each.allowed, each.aliases, each.required


def _add(found: dict[str, FlatOption], each: FlatOption) -> None:
    if each.name in found:  # a mistake of ours, found by the first test that imports the model
        raise TypeError(f"option '{each.name}' has two places: {found[each.name].path} and {each.path}")
    found[each.name] = each


def written(value: Any) -> str:
    """A value as one writes it in a command."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(map(written, value))
    return str(getattr(value, "value", value))


def canonical(
    values: Mapping[str, Any], known: Iterable[FlatOption], what: str, also: Iterable[str] = ()
) -> dict[str, Any]:
    """Values under their own names instead of aliases and Ultralytics' words.

    Args:
        values: By whatever name they were given.
        known: The options.
        what: The verb, for messages.
        also: Names that the verb takes besides, for messages.

    Raises:
        UsageError: A name is unknown, or one option is given under two.
    """
    options = list(known)
    names = {alias: o.name for o in options for alias in (o.name, *o.aliases)}
    canonical_values: dict[str, Any] = {}
    for key, value in values.items():
        # our own names first: Ultralytics' word may be a name of ours elsewhere
        name = names.get(key) or names.get(same_word(key))
        if name is None:
            told = answer(key, value, what, names)
            if told is None:
                continue  # it asks for what happens anyway
            raise UsageError(
                told
                or f"'{what}' has no option '{key}'{nearest(key, [*also, *(o.name for o in options)], [*names, *SAME])}"
            )
        # two values for one option: whichever were taken, somebody would be surprised
        if name in canonical_values:
            raise UsageError(f"'{name}' is given twice, as '{key}' too; give it once")
        canonical_values[name] = value
    return canonical_values


def nest(values: Mapping[str, Any], options: Mapping[str, FlatOption]) -> dict[str, Any]:
    """Put flat values in their places."""
    content: dict[str, Any] = {}
    for name, value in values.items():
        part = content
        *parents, last = options[name].path
        for key in parents:
            # only what was given: an absent part keeps its own defaults
            part = part.setdefault(key, {})
        part[last] = value
    return content


def build(model: type[T], values: Mapping[str, Any], what: str, also: Iterable[str] = ()) -> T:
    """An option model from flat keywords.

    Args:
        model: The model.
        values: Values by flat name or alias; texts are converted.
        what: The verb, for messages.
        also: Names that the verb takes besides, for messages.

    Raises:
        UsageError: A name is unknown, or values are not supported; every one is named.
    """
    options = flatten(model)
    content = nest(canonical(values, options.values(), what, also), options)
    # errors come with places in the model, and the reader knows flat names
    flat = {each.path: each.name for each in options.values()}
    try:
        return TypeAdapter(model).validate_python(content)
    except ValidationError as exc:
        # from None: pydantic's own report says the same in many lines
        raise UsageError(sentences(exc, model, lambda path: flat.get(path, ".".join(path)))) from None


def gather(model: type[T], options: T | None, keywords: Mapping[str, Any], what: str, also: Iterable[str] = ()) -> T:
    """The options of a verb in Python: a model, or keywords with the command's names.

    Raises:
        UsageError: Both are given, a keyword is unknown, or values are not supported.
    """
    if options is None:
        return build(model, keywords, what, also)
    if keywords:
        raise UsageError(f"give {', '.join(f'{key}=' for key in keywords)} or options=, not both, to {what}")
    return options
