"""Options of the tools: ``key=value`` and ``--key value`` mean the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def parse_options(arguments: Sequence[str], defaults: Mapping[str, str], usage: str) -> dict[str, str]:
    """Read a tool's options.

    Args:
        arguments: What follows the tool's name on the command line.
        defaults: Every option with its default.
        usage: Printed for ``--help``.

    Raises:
        SystemExit: With 0 after printing the usage, with 2 for an unknown option or a missing value.
    """
    result = dict(defaults)
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in {"-h", "--help", "help"}:
            print(usage)
            raise SystemExit(0)
        key, separator, value = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if key not in defaults:
            print(f"unknown option '{word}'; allowed are {', '.join(defaults)}", file=sys.stderr)
            raise SystemExit(2)
        if not separator:
            if not word.startswith("--") or not rest:
                print(f"option '{word}' needs a value: {key}=... or --{key} ...", file=sys.stderr)
                raise SystemExit(2)
            value = rest.pop(0)
        result[key] = value
    return result


def boolean(text: str) -> bool:
    """``true`` or ``false``, in the spellings that YAML knows.

    Raises:
        argparse.ArgumentTypeError: It is neither.
    """
    value = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    try:
        return value[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"got '{text}', allowed are true and false") from None


def positive(text: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got '{text}', allowed is a whole number above 0")
    return int(text)


def extras(pairs: Sequence[str]) -> dict[str, Any]:
    """Arguments that are handed on, with the values that YAML reads in them, as the ``yolo`` command does."""
    from yoloquant.cli.parser import values_of

    return values_of({key: text for key, _, text in (pair.partition("=") for pair in pairs)})
