"""One summary and one JUnit file over several reports of one command, for pipelines that look in one place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..evaluation.results import ValidationResult
from ..io import write_text
from .junit import joined_junit
from .markdown import to_markdown
from .text import markdown
from .write import JUNIT, MARKDOWN


def write_overview(results: Mapping[str, ValidationResult], folder: Path) -> None:
    """Write ``report.md`` and ``junit.xml`` of all reports together.

    Args:
        results: Every report by its name, in order.
        folder: Where to; the reports themselves lie in folders below.

    Raises:
        OutputError: The folder cannot be written.
    """
    texts = [f"## {markdown(name)}\n\n{to_markdown(result)}" for name, result in results.items()]
    write_text(folder / MARKDOWN, "\n".join(texts))
    write_text(folder / JUNIT, joined_junit(results))
