"""The command line: words become a call of a verb whose options the models check."""

from __future__ import annotations

import ast
import importlib
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

from ..errors import UsageError
from ..runtime.apps.settings import parse
from ..runtime.core.nearest import nearest
from .verbs import OTHER_NAMES, TASK_WORDS, VERBS, Verb

T = TypeVar("T")
EXIT_CODES = (
    "Exit codes: 0 pass, 1 fail, 2 usage or bad input, 3 inconclusive, 4 a target could not be built or run, "
    "70 a bug of yoloquant, 130 interrupted."
)


@dataclass(frozen=True)
class Call:
    """A verb with what it was given, checked.

    Attributes:
        verb: The verb.
        given: Every option that was named, as text, by its own name.
        parts: The option models, with what was given.
        extra: What is handed on, with the Python values that are written in it.
    """

    verb: Verb
    given: Mapping[str, str]
    parts: Mapping[type[Any], Any]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, model: type[T]) -> T:
        found: T = self.parts[model]
        return found

    def refuse(self, names: Sequence[str], reason: str) -> None:
        """Refuse options that would change nothing.

        Raises:
            UsageError: One of them was given.
        """
        useless = [name for name in names if name in self.given]
        if useless:
            raise UsageError(f"{', '.join(f'{name}=' for name in useless)} cannot be used here: {reason}")


def verb_named(name: str) -> Verb:
    """Find a verb.

    Raises:
        UsageError: There is none of that name; the message names the nearest.
    """
    verb = next((v for v in VERBS if v.name == name), None)
    if verb is None:
        if name in TASK_WORDS:
            raise UsageError(f"unknown command '{name}'; the model says its task, so leave the word out")
        if name in OTHER_NAMES:
            raise UsageError(f"unknown command '{name}'; did you mean '{OTHER_NAMES[name]}'?")
        raise UsageError(f"unknown command '{name}'{nearest(name, [v.name for v in VERBS])}")
    return verb


def module_of(verb: Verb) -> ModuleType:
    """The module that holds a verb's options and does it."""
    # one verb's module; these import their heavy parts when they run, so that --help answers at once
    return importlib.import_module(f".commands.{verb.name}", __package__)


def read(words: Sequence[str]) -> Call:
    """Read a command line: ``verb key=value --key value``.

    Raises:
        UsageError: A verb or key is unknown, or values are not supported; every one is named.
    """
    verb = verb_named(words[0])
    try:
        # the runtime's own reader: bundles on devices take the same words without this package
        texts = parse(words[1:], verb.first)
    except UsageError as exc:
        raise UsageError(f"{exc}; for example: {verb.example}") from None
    module = module_of(verb)
    if hasattr(module, "KEYS"):  # a verb of the runtime, which reads its texts itself
        names = [key.name for key in module.KEYS]
        unknown = [key for key in texts if key not in names]
        if unknown:
            raise UsageError(f"unknown argument '{unknown[0]}' of '{verb.name}'{nearest(unknown[0], names)}")
        return Call(verb, texts, {})
    # pydantic is imported with it, which verbs of the runtime do not need
    from .checking import checked

    return checked(verb, module.PARTS, texts)


def values_of(texts: Mapping[str, str]) -> dict[str, Any]:
    """Handed-on arguments with the Python values that are written in them, as the ``yolo`` command reads them."""
    words = {"none": None, "true": True, "false": False}
    values: dict[str, Any] = {}
    for key, text in texts.items():
        try:
            # the words in any case, as people write them: Python knows True alone
            values[key] = words[text.lower()] if text.lower() in words else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[key] = text
    return values


def help_text() -> str:
    """What ``yoloquant --help`` prints."""
    verbs = "\n".join(_entry(v.name, v.help, 10) for v in VERBS)
    return (
        "usage: yoloquant VERB [key=value ...]\n\n"
        "Quantize a trained YOLO, export it to every runtime, and prove its accuracy.\n\n"
        f"{verbs}\n\n"
        "Arguments are key=value or --key value; 'yoloquant VERB --help' lists them. 'yoloquant --version' prints the "
        f"version.\n{EXIT_CODES}"
    )


def help_of(verb: Verb) -> str:
    """What ``yoloquant VERB --help`` prints."""
    module = module_of(verb)
    first = f" [{verb.first.upper()}]" if verb.first else ""
    if hasattr(module, "KEYS"):
        entries = [_entry(f"{key.name}=", key.help, 20) for key in module.KEYS]
    else:
        from .checking import options_of

        entries = [
            _entry(f"{o.name}={o.default}", o.help + (" (required)" if o.required else "") + _also(o.aliases), 20)
            for o in options_of(module.PARTS).values()
        ]
    listing = "\n".join(entries) or "  it takes no arguments"
    return (
        f"usage: yoloquant {verb.name}{first} [key=value ...]\n\n{textwrap.fill(verb.help, 110)}\n\n{listing}\n\n"
        f"Example: {verb.example}"
    )


def _also(aliases: Sequence[str]) -> str:
    return f"; also {', '.join(f'{alias}=' for alias in aliases)}" if aliases else ""


def _entry(name: str, help: str, width: int) -> str:
    """A name and its help; on lines of its own where the name is long."""
    indent = " " * (width + 4)
    lines = textwrap.wrap(help, 110 - len(indent), break_on_hyphens=False) or [""]
    # a long name would push its help out of the column
    if len(name) > width:
        return "\n".join([f"  {name}", *(indent + line for line in lines)])
    return "\n".join([f"  {name:<{width}}  {lines[0]}", *(indent + line for line in lines[1:])])
