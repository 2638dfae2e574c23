"""Write what the documentation derives from the code: the command's reference, and the picture of the layers.

Usage: ``python tools/make_reference.py`` writes ``docs/reference/command.md`` and the picture in
``docs/architecture.md``;
``--check`` returns 1 if they are not up to date.
"""

from __future__ import annotations

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
    from yoloquant.cli.parser import help_of, help_text
    from yoloquant.cli.verbs import VERBS

    parts = ["# Command\n", f"Generated from the options themselves.\n\n```text\n{help_text()}\n```\n"]
    parts += [f"## {verb.name}\n\n```text\n{help_of(verb)}\n```\n" for verb in VERBS]
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
