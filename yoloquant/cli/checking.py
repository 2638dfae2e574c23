"""A verb's texts held against the option models that it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import UsageError
from ..options import FlatOption, canonical, flatten, nest, sentences
from .parser import Call, values_of
from .verbs import Verb


@dataclass(frozen=True)
class Without:
    """An option model without what does not apply to a verb.

    Attributes:
        model: The model.
        names: Flat names that the verb does not take.
    """

    model: type[Any]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Listed:
    """An option model whose options a verb lists, and hands on as texts to what checks them.

    Attributes:
        model: The model.
    """

    model: type[Any]


Part = type[Any] | Without | Listed


def model_of(part: Part) -> type[Any]:
    """The option model of a part."""
    return part.model if isinstance(part, (Without, Listed)) else part


def _flat(part: Part) -> dict[str, FlatOption]:
    left_out = part.names if isinstance(part, Without) else ()
    flat = {k: o for k, o in flatten(model_of(part), command=True).items() if k not in left_out}
    if isinstance(part, Listed):  # what is required may come from elsewhere, for instance from a recipe
        return {k: replace(o, required=False) for k, o in flat.items()}
    return flat


def options_of(parts: Sequence[Part]) -> dict[str, FlatOption]:
    """Every option of a verb; one that several models have is one, and goes to each."""
    options: dict[str, FlatOption] = {}
    for part in parts:
        for name, option in _flat(part).items():
            # the first part's words are shown: a verb's own model stands first
            options.setdefault(name, option)
    return options


def checked(verb: Verb, parts: Sequence[Part], texts: Mapping[str, str]) -> Call:
    """Make the call.

    Raises:
        UsageError: A key is unknown, or values are not supported; every one is named.
    """
    options = options_of(parts)
    names = {alias for o in options.values() for alias in (o.name, *o.aliases)}
    # whose they are is known where the training arguments are known; they are checked there
    extra = {key: text for key, text in texts.items() if verb.passes and key not in names}
    given = canonical({k: v for k, v in texts.items() if k not in extra}, options.values(), verb.name)
    # before values are checked: what is not given at all is the first thing to know
    missing = [o for o in options.values() if o.required and not given.get(o.name)]
    if missing:
        raise UsageError(
            f"'{verb.name}' needs {', '.join(f'{o.name}=<{o.help}>' for o in missing)}; for example: {verb.example}"
        )
    models: dict[type[Any], Any] = {}
    wrong: list[str] = []
    for part in parts:
        if isinstance(part, Listed):
            continue
        try:
            models[model_of(part)] = _made(part, given)
        except ValidationError as exc:
            own = {o.path: o.name for o in _flat(part).values()}
            # collected: one run of the command shows every mistake
            wrong.append(sentences(exc, model_of(part), lambda path, own=own: own.get(path, ".".join(path))))  # type: ignore[misc]
    if wrong:
        # an option of two models is wrong in both, and said once
        raise UsageError("; ".join(dict.fromkeys(wrong)))
    return Call(verb, given, models, values_of(extra))


def _made(part: Part, given: Mapping[str, str]) -> Any:
    own = _flat(part)
    content = nest({name: text for name, text in given.items() if name in own}, own)
    return TypeAdapter(model_of(part)).validate_python(content)
