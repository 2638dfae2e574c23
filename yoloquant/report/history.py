"""What releases were worth one after the other, read from their reports.

A report of an earlier release may be of another schema version; only figures that every version holds are read.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..evaluation.results import OLD
from ..io import output_folder, write_text
from .history_page import to_html
from .numbers import is_number

REPORT = "report.json"
PAGE, TABLE = "history.html", "history.csv"


@dataclass(frozen=True)
class HistoryPoint:
    """One artifact of one release.

    Attributes:
        release: The release: the folder that its report lies in.
        target: The artifact's row; ``fp32`` for the baseline.
        verdict: The verdict on it.
        gate: The gate that judged.
        fidelity: Agreement with the baseline; None where there is none, as below.
        map50_95: Main metric, a fraction.
        map_drop: Baseline minus artifact, a fraction.
        latency_ms: Median time of an inference.
        size_bytes: Size of the artifact.
        data: Start of the hash of images and labels: figures of other data do not compare.
    """

    release: str
    target: str
    verdict: str = ""
    gate: str = ""
    fidelity: float | None = None
    map50_95: float | None = None
    map_drop: float | None = None
    latency_ms: float | None = None
    size_bytes: int | None = None
    data: str = ""


@dataclass(frozen=True)
class ReleaseHistory:
    """Releases in order.

    Attributes:
        releases: Their names.
        points: What each artifact of each was worth.
        page: The page for people; None before it is written.
    """

    releases: tuple[str, ...]
    points: tuple[HistoryPoint, ...]
    page: Path | None = None


def read_history(places: Sequence[Path]) -> ReleaseHistory:
    """Read the reports of releases.

    Args:
        places: Reports, or folders in which they lie at any depth, in order; reports of one folder are ordered by their
            paths, numbers by their value (``v9`` before ``v10``), and comparisons of two releases are passed over.

    Raises:
        DataError: There is no place, one holds no report, or a report is damaged.
    """
    if not places:
        raise DataError("no report was named; give folders of reports, as validate and run write them")
    files: list[Path] = []
    for place in places:
        # natural order: v9 before v10, as people number releases
        found = [place] if place.is_file() else sorted(_validations(place), key=lambda p: _natural(str(p)))
        if not found:
            raise DataError(f"'{place}' holds no {REPORT}; name folders of reports, as validate and run write them")
        # a folder may be named beside one that holds it
        files += [file for file in found if file not in files]
    names = _names(files)
    points = tuple(point for file, name in zip(files, names, strict=True) for point in _points(file, name))
    return ReleaseHistory(tuple(names), points)


def write_history(history: ReleaseHistory, folder: Path) -> ReleaseHistory:
    """Write ``history.html`` and ``history.csv``.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder = output_folder(folder)
    text = io.StringIO()
    rows = [asdict(point) for point in history.points]
    # history.read_history refuses places without a report, so there is a first row
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / TABLE, text.getvalue())
    write_text(folder / PAGE, to_html(history.releases, rows))
    return ReleaseHistory(history.releases, history.points, folder / PAGE)


def _validations(folder: Path) -> list[Path]:
    """Reports below a folder that are no comparison: pipelines keep both side by side, and releases come once."""
    return [file for file in folder.rglob(REPORT) if not _compares(file)]


def _compares(file: Path) -> bool:
    try:
        return bool(json.loads(file.read_text(encoding="utf-8"))["baseline"]["target"] == OLD)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # damaged ones are told of where they are read


def _natural(text: str) -> list[Any]:
    """Sorts numbers in a text by their value."""
    # pairs, since Python compares no number with a text
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _names(files: Sequence[Path]) -> list[str]:
    """A short name for each report: what tells its path from the others'."""
    parts = [file.resolve().parent.parts for file in files]
    if len(parts) == 1:
        # the folder that 'run' and 'validate' make is called the same everywhere
        return [next(p for p in reversed(parts[0]) if p != "report")]
    width = max(map(len, parts))
    padded = [(*p, *[""] * (width - len(p))) for p in parts]
    # what all paths share says nothing
    differ = [i for i in range(width) if len({p[i] for p in padded}) > 1]
    return ["/".join(p[i] for i in differ if p[i]) or "release" for p in padded]


def _points(file: Path, release: str) -> list[HistoryPoint]:
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        # read as plain data and not by ``from_json``, which takes one schema version only
        rows = [report["baseline"], *report["targets"]]
        data = str((report.get("environment") or {}).get("data_sha256", ""))[:12]
        about: dict[str, Any] = {"release": release, "gate": str(report.get("gate", "")), "data": data}
        return [HistoryPoint(**about, **_figures(row)) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DataError(
            f"'{file}' is no report of yoloquant, or damaged ({exc!r}); validate again to write it"
        ) from exc


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    comparison, accuracy, latency = (row.get(key) or {} for key in ("comparison", "accuracy", "latency"))
    size = row.get("size_bytes")
    return {
        "target": str(row["target"]),
        "verdict": str(row.get("verdict", "")),
        "fidelity": _number((comparison.get("fidelity") or {}).get("value")),
        "map50_95": _number(accuracy.get("map50_95")),
        "map_drop": _number((comparison.get("map_drop") or {}).get("value")),
        "latency_ms": _number(latency.get("median_ms")),
        "size_bytes": int(size) if size else None,
    }


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None
