"""The command line's arguments: one table, read as ``key=value`` (as the ``yolo`` command does) or ``--key value``."""

from __future__ import annotations

import argparse
import ast
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import UsageError


@dataclass(frozen=True)
class Option:
    """One argument of a verb.

    Attributes:
        name: Its key.
        help: One line for people.
        type: Converts the text.
        default: Value if it is not given.
        required: Whether it must be given.
        aliases: Other keys that mean the same.
    """

    name: str
    help: str
    type: Callable[[str], Any] = str
    default: Any = None
    required: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        name: Its name.
        help: One line for people.
        options: Its arguments.
        example: A complete call.
        positional: Key that a bare first argument stands for; none if empty.
        passes: Whether other keys are handed on, as ``extra``, instead of refused.
    """

    name: str
    help: str
    options: tuple[Option, ...]
    example: str
    positional: str = ""
    passes: bool = False


def boolean(text: str) -> bool:
    """``true`` or ``false``, in the spellings that YAML knows."""
    value = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    try:
        return value[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"got '{text}', allowed are true and false") from None


def size(text: str) -> int | tuple[int, int]:
    """An input size: ``640`` or ``480,640`` (height, width)."""
    try:
        sides = [int(part) for part in text.strip("[]()").replace("x", ",").split(",")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"got '{text}', allowed is one number or height,width, for instance 640")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got '{text}', allowed is a whole number above 0")
    return int(text)


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Report a wrong argument."""
        raise UsageError(f"{message}; see '{self.prog} --help'")


def build_parser(verbs: Sequence[Verb], version: str) -> Parser:
    """The parser of every verb."""
    parser = Parser(
        prog="yoloquant",
        description="Quantize a trained YOLO, export it to every runtime, and prove its accuracy.",
        epilog="Arguments are key=value or --key value. Exit codes: 0 pass, 1 fail, 2 usage or bad input, "
        "3 inconclusive, 4 a target could not be built or run.",
    )
    parser.add_argument("--version", action="version", version=f"yoloquant {version}")
    commands = parser.add_subparsers(dest="verb", metavar="command", parser_class=Parser)
    for verb in verbs:
        command = commands.add_parser(
            verb.name, help=verb.help, description=verb.help, epilog=f"Example: {verb.example}", allow_abbrev=False
        )
        for option in verb.options:
            flags = [f"--{name.replace('_', '-')}" for name in (option.name, *option.aliases)]
            flags += [f"--{name}" for name in (option.name, *option.aliases) if "_" in name]
            default = "" if option.default is None else f" (default {option.default})"
            command.add_argument(
                *flags,
                dest=option.name,
                type=option.type,
                default=None,
                required=option.required,
                metavar=option.name.upper(),
                help=option.help + default,
            )
        if verb.passes:
            command.add_argument("--extra", action="append", default=[], help=argparse.SUPPRESS)
    return parser


def given(options: argparse.Namespace, verbs: Sequence[Verb], verb: str) -> dict[str, Any]:
    """Arguments of a verb with their defaults filled in."""
    table = next(v for v in verbs if v.name == verb)
    return {o.name: o.default if getattr(options, o.name) is None else getattr(options, o.name) for o in table.options}


def extras(pairs: Sequence[str]) -> dict[str, Any]:
    """Handed-on arguments with the values that YAML reads in them, as the ``yolo`` command does."""
    words = {"none": None, "true": True, "false": False}
    found: dict[str, Any] = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        try:
            found[key] = words[text.lower()] if text.lower() in words else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[key] = text
    return found


def normalise(arguments: Sequence[str], verbs: Sequence[Verb]) -> list[str]:
    """Turn ``key=value`` into ``--key=value`` and check the keys, with the nearest name for a misspelt one.

    Raises:
        UsageError: Unknown command or key.
    """
    result = list(arguments)
    if not result or result[0].startswith("-"):
        return result
    verb = next((v for v in verbs if v.name == result[0]), None)
    if verb is None:
        raise UsageError(f"unknown command '{result[0]}'{_nearest(result[0], [v.name for v in verbs])}")
    keys = [name for o in verb.options for name in (o.name, *o.aliases)]
    for index, text in enumerate(result[1:], start=1):
        if text in {"-h", "--help"} or _takes_value(result[index - 1]):
            continue
        dashed = text.startswith("-")
        key, equals, value = text.lstrip("-").partition("=")
        if verb.passes and (dashed or equals) and key.replace("-", "_") not in keys:
            if not equals:
                raise UsageError(f"argument '{text}' of '{verb.name}' is not key=value; for example: {verb.example}")
            result[index] = f"--extra={key.replace('-', '_')}={value}"
            continue
        if (dashed or equals) and key.replace("-", "_") not in keys:
            raise UsageError(f"unknown argument '{key}' of '{verb.name}'{_nearest(key, keys)}")
        if equals and not dashed:
            result[index] = f"--{key}={value}"
        elif verb.positional and index == 1 and not dashed:
            result[index] = f"--{verb.positional}={text}"
        elif not dashed:
            raise UsageError(f"argument '{text}' of '{verb.name}' is not key=value; for example: {verb.example}")
    return result


def _takes_value(previous: str) -> bool:
    return previous.startswith("--") and "=" not in previous and previous != "--help"


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; allowed are {', '.join(known)}" if known else "; it takes none"
