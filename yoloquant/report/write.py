"""All report files into one folder, each written whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import OutputError, UsageError
from ..evaluation.results import RESULTS, ValidationResult
from ..io import output_folder
from .json_report import to_json
from .junit import error_junit, to_junit
from .markdown import to_markdown
from .page import to_html

logger = logging.getLogger(__name__)

JUNIT, MARKDOWN = "junit.xml", "report.md"
FILES = ("report.json", JUNIT, MARKDOWN, "report.html")
"""In the order of ``ReportPaths``."""


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
    paths = ReportPaths(*(folder / name for name in FILES))
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


@contextlib.contextmanager
def report_or_error(
    folder: Path, reads: Iterable[str | os.PathLike[str] | None] = ()
) -> Iterator[Callable[[ValidationResult], ReportPaths]]:
    """Take an old report away before work starts, and leave a new one or an error: never yesterday's verdict.

    Args:
        folder: Folder of the report.
        reads: What the work was told to read; an old report that is among it stays.

    Yields:
        What writes the report of a result.

    Raises:
        UsageError: The old report is to be read; nothing was touched.
        OutputError: The folder cannot be made or written.
    """
    _refuse_own_report(Path(folder), reads)
    # before the work whose result is to be written there
    folder = output_folder(folder)
    clear_report(folder)
    try:
        yield partial(write_report, folder=folder)
    except BaseException as exc:  # Ctrl-C and kills by a signal too: the verdict is missing either way
        with contextlib.suppress(OSError):  # the error itself is what must be seen
            _replace(folder / JUNIT, error_junit(_reason(exc)).encode("utf-8"))
        raise


def _refuse_own_report(folder: Path, reads: Iterable[str | os.PathLike[str] | None]) -> None:
    """Refuse to read what the new report takes the place of: it would be gone before it is read, and for good."""
    place = folder.resolve()
    taken = {place / name for name in (*FILES, RESULTS)}
    for named in reads:
        if not named:
            continue
        path = Path(named).resolve()
        # a report's folder is read by its results
        if (path in taken or path == place) and (place / RESULTS).is_file():
            raise UsageError(
                f"'{named}' belongs to the report in '{folder}', whose place the new one takes; name another folder "
                "for the new one with output="
            )


def _reason(exc: BaseException) -> str:
    """Why there is no verdict, as a sentence."""
    if isinstance(exc, KeyboardInterrupt):
        return "interrupted before there was a verdict (KeyboardInterrupt)"
    return str(exc) or type(exc).__name__


def clear_report(folder: Path) -> None:
    """Remove the files of an earlier report.

    Raises:
        OutputError: One cannot be removed.
    """
    try:
        for name in (*FILES, RESULTS):
            (folder / name).unlink(missing_ok=True)
    except OSError as exc:
        raise OutputError(f"the old report in '{folder}' cannot be removed ({exc.strerror or exc})") from exc


def _replace(path: Path, content: bytes) -> None:
    """Write to a temporary name beside the file, then rename; a failure leaves what was there before."""
    # beside it: a rename is one step only within one file system
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())  # a full disk may otherwise only show after the rename
        # mkstemp makes files that only their owner may read; a report is for others
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
