"""All report files into one folder, each written whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError
from ..evaluation.results import ValidationResult
from .json_report import to_json
from .junit import to_junit
from .markdown import to_markdown
from .page import to_html

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportPaths:
    """Where the four files of a report are.

    Attributes:
        json: The machine-readable report.
        junit: JUnit XML for CI systems.
        markdown: Summary for a pull-request comment.
        html: The page for people.
    """

    json: Path
    junit: Path
    markdown: Path
    html: Path


def write_report(result: ValidationResult, folder: Path) -> ReportPaths:
    """Write ``report.json``, ``junit.xml``, ``report.md`` and ``report.html``.

    All four are rendered before the first is written, and each replaces its predecessor in one step.

    Args:
        result: Outcome of a validation.
        folder: Folder to write to; made if it is missing.

    Returns:
        The paths of the files.

    Raises:
        OutputError: The folder cannot be made or written: read-only, full, or a file is in its place.
    """
    folder = Path(folder)
    paths = ReportPaths(folder / "report.json", folder / "junit.xml", folder / "report.md", folder / "report.html")
    contents = {
        paths.json: to_json(result),
        paths.junit: to_junit(result),
        paths.markdown: to_markdown(result),
        paths.html: to_html(result),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in contents.items():
            _replace(path, text.encode("utf-8"))
    except OSError as exc:
        raise OutputError(
            f"cannot write the report to '{folder}': {exc.strerror or exc}; "
            "name a folder that can be written and has room"
        ) from exc
    logger.info("report written to %s", paths.html)
    return paths


def _replace(path: Path, content: bytes) -> None:
    """Write to a temporary name beside the file, then rename; a failure leaves what was there before."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())  # a full disk may otherwise only show after the rename
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
