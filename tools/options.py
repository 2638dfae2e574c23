"""Options of the tools: ``key=value`` and ``--key value`` mean the same."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence


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
