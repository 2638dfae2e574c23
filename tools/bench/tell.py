"""Where a tool's result goes: to people, and to a file that gathers results of several runs."""

from __future__ import annotations

from pathlib import Path


def tell(text: str, out: str) -> None:
    """Print a result, and append it to a file.

    Args:
        text: Markdown that ends with a newline.
        out: The file; none if empty.
    """
    print(text)
    if out:
        with Path(out).open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")
