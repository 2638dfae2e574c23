"""Write what the documentation derives from the code: the command's reference, and the picture of the layers.

Usage: ``python tools/make_reference.py`` writes ``docs/reference/command.md`` and the picture in
``docs/architecture.md``;
``--check`` returns 1 if they are not up to date.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
START, END = "<!-- layers:", "<!-- end of layers -->"


def main() -> int:
    """Write or check both files."""
    os.environ["COLUMNS"] = "110"  # argparse wraps by the terminal's width
    pages = {
        ROOT / "docs" / "reference" / "command.md": command_page(),
        ROOT / "docs" / "architecture.md": architecture_page((ROOT / "docs" / "architecture.md").read_text()),
    }
    stale = [path for path, text in pages.items() if not path.is_file() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not up to date; run python tools/make_reference.py", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages[path])
    return 0


def command_page() -> str:
    """The help of every command, as the command itself prints it."""
    from yoloquant import __version__
    from yoloquant.cli.parser import build_parser
    from yoloquant.cli.verbs import VERBS

    parser = build_parser(VERBS, __version__)
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    parts = ["# Command\n", "Generated from the options themselves. Arguments are `key=value` or `--key value`.\n"]
    for name, command in commands.choices.items():
        parts.append(f"## {name}\n\n```text\n{command.format_help().rstrip()}\n```\n")
    return "\n".join(parts)


def architecture_page(page: str) -> str:
    """The page with the layers of the import contract drawn between its markers."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = (c for c in config["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    rows = [" · ".join(f"`{m.strip().removeprefix('yoloquant.')}`" for m in re.split("[:|]", layer))
            for layer in contract["layers"]]  # fmt: skip
    picture = "\n".join(["| layers, each importing only what is below |", "|:---:|", *(f"| {row} |" for row in rows)])
    head, _, rest = page.partition(START)
    comment, _, rest = rest.partition("-->")
    _, _, tail = rest.partition(END)
    return f"{head}{START}{comment}-->\n\n{picture}\n\n{END}{tail}"


if __name__ == "__main__":
    sys.exit(main())
