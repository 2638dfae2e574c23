"""Formatter, linter and types: the one check for people and for CI. Fixes nothing; ``--fix`` does."""

from __future__ import annotations

import subprocess
import sys

PLACES = ["yoloquant", "datasets", "tools", "tests"]


def main() -> int:
    """Run every checker and return 1 if one of them complains."""
    fix = "--fix" in sys.argv
    commands = [
        ["ruff", "format", *([] if fix else ["--check"]), *PLACES],
        ["ruff", "check", *(["--fix"] if fix else []), *PLACES],
        ["mypy"],
    ]
    failed = False
    for command in commands:
        print("+", " ".join(command), flush=True)
        failed |= subprocess.call([sys.executable, "-m", *command]) != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
