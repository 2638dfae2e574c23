"""Finished measurements on disk, one line each, so that an interrupted analysis goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputError, UsageError
from ..io import output_folder

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class JournalEntry:
    """One finished measurement.

    Attributes:
        name: The part; empty for the model with nothing changed.
        ratio: Share that was pruned, or None.
        score: What was measured; None if it was no number.
        how: How the part was changed.
    """

    name: str
    ratio: float | None
    score: float | None
    how: str


def key_of(what: Mapping[str, Any]) -> str:
    """Hash of everything that a measurement depends on."""
    # sorted: the order in which options were written down must not matter
    text = json.dumps({"format": FORMAT, **what}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """Measurements of one analysis.

    A line is written with one call and forced to disk before the next measurement starts. A last line that was cut off
    is dropped; anything else that does not fit is an error, since a wrong number would go unnoticed.

    Args:
        folder: Where the file lies; its name holds the key, so that analyses of one folder never mix. None keeps
            nothing.
        what: Model, data and options.

    Raises:
        UsageError: The file is damaged.
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, what: Mapping[str, Any]) -> None:
        self.key = key_of(what)
        # enough of the key to tell analyses apart; the whole one is in the first line
        self.path = None if folder is None else Path(folder) / f"measured-{self.key[:16]}.jsonl"
        self._found: dict[tuple[str, float | None], JournalEntry] = {}
        if self.path is None:
            return
        output_folder(self.path.parent)
        if not self._read(self.path):
            self._append({"format": FORMAT, "key": self.key, "what": dict(what)})

    def __len__(self) -> int:
        return len(self._found)

    def get(self, name: str, ratio: float | None) -> JournalEntry | None:
        """What was measured before."""
        return self._found.get((name, ratio))

    def add(self, entry: JournalEntry) -> None:
        """Keep a measurement.

        Raises:
            OutputError: It cannot be written.
        """
        if self.path is not None:
            self._append(vars(entry))
        self._found[entry.name, entry.ratio] = entry

    def _append(self, data: Mapping[str, Any]) -> None:
        assert self.path is not None
        line = json.dumps(data, allow_nan=False).encode() + b"\n"
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                # one call for a whole line: a kill cannot come between its parts
                if os.write(file, line) != len(line):
                    raise OSError("disk full")
                # a measurement takes minutes, the disk milliseconds
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as exc:
            raise OutputError(f"'{self.path}' cannot be written ({exc.strerror or exc}); free space, or choose another "
                              "folder") from exc  # fmt: skip

    def _read(self, path: Path) -> bool:
        """Read what there is; whether there is anything."""
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as exc:
            raise OutputError(f"'{path}' cannot be read ({exc.strerror or exc})") from exc
        # a line without its end was cut off while it was written
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                data = json.loads(line)
                if number == 1:
                    _check_head(data, self.key)
                else:
                    entry = _entry(data)
                    self._found[entry.name, entry.ratio] = entry
            except (ValueError, KeyError, TypeError, RecursionError) as exc:
                raise UsageError(
                    f"the results file '{path}' is damaged in line {number} ({exc}); delete it to measure anew"
                ) from exc
        if len(whole) < len(content):
            logger.warning("the last line of %s was cut off; that part is measured again", path)
            # or the next line would be glued to the rest of this one
            os.truncate(path, len(whole))
        return bool(whole)


def _check_head(data: Any, key: str) -> None:
    if data["format"] != FORMAT or data["key"] != key:
        raise ValueError("it belongs to another model, other data or other options")


def _entry(data: Mapping[str, Any]) -> JournalEntry:
    ratio, score = (None if data[k] is None else float(data[k]) for k in ("ratio", "score"))
    return JournalEntry(str(data["name"]), ratio, score, str(data["how"]))
