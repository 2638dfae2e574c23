"""The list of artifacts in an export folder: ``exports.json``, so that a later validation knows what each one is."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArtifactError, OutputError
from ..io import write_text
from ..runtime.core.folder_check import file_sha256
from ..summarized import Summarized, data_frame, plain
from ..types import ExportedModel, ModelInfo

if TYPE_CHECKING:  # listing what can be built here does without it
    from pydantic import TypeAdapter

logger = logging.getLogger(__name__)

FILE_NAME = "exports.json"
FORMAT = 1
LOCK_NAME = f".{FILE_NAME}.lock"
LARGEST = 100_000
"""Of any number that describes a model: sizes in pixels, detections, bins."""
LOCK_S = 3600.0  # the slowest conversions take minutes


@dataclass(frozen=True, repr=False)
class ExportResult(Summarized):
    """Outcome of an export to several targets.

    Attributes:
        folder: Where the artifacts lie.
        exports: What was written, in the order asked.
        errors: Why a target could not be built, by target name.
    """

    folder: Path
    exports: tuple[ExportedModel, ...]
    errors: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """A line for every artifact, and for every target that failed."""
        lines = [f"{len(self.exports)} exports in {self.folder}"]
        lines += [f"  {e.target:<14} {e.path.name} ({e.size_bytes / 1e6:.2f} MB, {e.precision})" for e in self.exports]
        lines += [f"  {name:<14} failed: {error}" for name, error in self.errors.items()]
        return "\n".join(lines)

    def to_df(self) -> Any:
        """The artifacts as a ``pandas.DataFrame``, one row each.

        Raises:
            UsageError: pandas is not installed.
        """
        names = ("target", "path", "precision", "scheme", "size_bytes", "drop_in")
        return data_frame([{name: plain(getattr(export, name)) for name in names} for export in self.exports])


def content_sha256(path: Path) -> str:
    """SHA-256 of a file, or of every file in a folder with its relative name."""
    if path.is_file():
        return file_sha256(path)
    digest = hashlib.sha256()
    # sorted, with names in it: neither the order of a file system nor a renamed file may pass unseen
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_sha256(file)}\0".encode())
    return digest.hexdigest()


@contextmanager
def locked(folder: Path, timeout_s: float = LOCK_S) -> Iterator[None]:
    """Hold the folder against other exports into it, of this or another process, while the block runs.

    The lock is the operating system's and ends with its process, however that ends.

    Raises:
        OutputError: Another export held it for longer than the time limit.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK_NAME)
    try:
        # tried first without waiting, so that waiting can be told: otherwise an export would seem to hang
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("waiting for another export into '%s'", folder)
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout as exc:
            raise OutputError(
                f"another process has been exporting into '{folder}' for {timeout_s:.0f} s; wait for it, or choose "
                "another folder"
            ) from exc
    try:
        yield
    finally:
        lock.release()


def save_exports(folder: Path, exports: Iterable[ExportedModel]) -> Path:
    """Write the list, keeping entries of artifacts that still lie in the folder and were not exported anew."""
    path = folder / FILE_NAME
    # By path: an artifact that is exported again takes the place of its older entry.
    entries = {e["path"]: e for e in _kept(path) if (folder / e["path"]).exists()}
    for export in exports:
        entries[export.path.name] = _to_dict(export)
    write_text(path, json.dumps({"format": FORMAT, "exports": list(entries.values())}, indent=1))
    return path


def note_in_listing(exports: Iterable[ExportedModel], notes: Mapping[Path, Mapping[str, Any]]) -> None:
    """Add what was measured of artifacts to their metadata in the list of their folder; the artifacts stay as they are.

    Args:
        exports: Artifacts; those that no list names are left out.
        notes: What to add, by path of the artifact.

    Raises:
        OutputError: A list cannot be written.
    """
    for folder in {export.path.parent for export in exports if export.path in notes}:
        listing = folder / FILE_NAME
        if not listing.is_file():
            continue
        entries = _read(listing)
        for entry in entries:
            entry["metadata"] = {**entry.get("metadata", {}), **notes.get(folder / entry["path"], {})}
        write_text(listing, json.dumps({"format": FORMAT, "exports": entries}, indent=1))


def _kept(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return _read(path)
    except ArtifactError as exc:  # it must not cost the exports that were just made
        logger.warning("%s; it is written anew without what it listed", exc)
        return []


def load_exports(path: str | os.PathLike[str]) -> tuple[ExportedModel, ...]:
    """Read artifacts.

    Args:
        path: An export folder, its ``exports.json``, or one artifact in such a folder.

    Returns:
        Every artifact of the folder, or the one that was named.

    Raises:
        ArtifactError: There is no list, the artifact is not on it, or its content has changed since the export.
    """
    path = Path(path)
    if not path.exists():
        raise ArtifactError(
            f"artifact '{path}' does not exist (looked in {path.resolve().parent}); export it first with yoloquant "
            "export"
        )
    if path.suffix == ".pt":
        raise ArtifactError(f"'{path}' is a checkpoint and no export; make one of it with yoloquant export {path}")
    if path.is_dir() and not any(path.iterdir()):
        raise ArtifactError(f"folder '{path}' is empty: no export into it was finished; export again")
    listing = path if path.name == FILE_NAME else path / FILE_NAME
    if listing.is_file():
        entries = _read(listing)
    else:
        listing = path.parent / FILE_NAME
        entries = [e for e in _read(listing) if e["path"] == path.name] if listing.is_file() else []
        if not entries:
            raise ArtifactError(
                f"'{path}' is not on the list {FILE_NAME} of an export folder, so what it holds is unknown; name an "
                "artifact that yoloquant exported, in its folder"
            )
    return tuple(_from_dict(e, listing.parent) for e in entries)


def _typed(values: dict[str, Any]) -> ExportedModel:
    """An entry with every field of its own type and in range: the list is a file that anybody may have touched.

    Raises:
        ValueError: A field is missing, unknown, of another type or out of range.
    """
    # pydantic ignores unknown keys of dataclasses
    _same_keys(values, ExportedModel, "an entry")
    _same_keys(values["info"], ModelInfo, "info")
    export = _adapter().validate_python(values)
    info = export.info
    # they become array sizes: a damaged list must not ask for terabytes
    numbers = (*info.imgsz, *info.strides, info.stride, info.reg_max, info.channels)
    # a classifier has no levels and detects nothing
    least = 1 if info.strides else 0
    fits = all(0 < number <= LARGEST for number in numbers) and least <= info.max_det <= LARGEST
    if not fits or not info.names:
        raise ValueError("info holds numbers that no model has")
    return export


def _same_keys(values: Any, kind: Any, where: str) -> None:
    if not isinstance(values, dict) or set(values) != {f.name for f in fields(kind)}:
        raise ValueError(f"{where} must hold {', '.join(f.name for f in fields(kind))}")


@cache
def _adapter() -> TypeAdapter[ExportedModel]:
    from pydantic import TypeAdapter

    return TypeAdapter(ExportedModel)


def _problem(exc: Exception) -> str:
    """What is wrong, in one line."""
    from pydantic import ValidationError

    if isinstance(exc, ValidationError):
        first = exc.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return repr(exc)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ArtifactError(f"{path} has format {data['format']}; this release reads {FORMAT}")
        entries = [dict(e) for e in data["exports"]]
        if not all(isinstance(e["path"], str) for e in entries):
            raise TypeError("a path is not text")
        return entries
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ArtifactError(f"{path} is damaged ({exc!r}); export again") from exc


def _to_dict(export: ExportedModel) -> dict[str, Any]:
    # The name alone, so that the folder can be moved with all that lies in it.
    data = asdict(replace(export, path=Path(export.path.name)))
    data.update(path=export.path.name, layout=export.layout.value, sha256=content_sha256(export.path))
    data["info"]["task"] = export.info.task.value
    data["notes"] = list(export.notes)
    return json.loads(json.dumps(data, default=str))  # type: ignore[no-any-return]


def _from_dict(data: dict[str, Any], folder: Path) -> ExportedModel:
    values = dict(data)
    try:
        # only the name: a list that was written by somebody else must not lead out of its folder
        path, digest = folder / Path(values.pop("path")).name, values.pop("sha256")
        export = _typed({**values, "path": path})
    except (KeyError, TypeError, ValueError) as exc:
        raise ArtifactError(f"{folder / FILE_NAME} is damaged ({_problem(exc)}); export again") from exc
    if not path.exists():
        raise ArtifactError(f"artifact '{path}' is on the list of its folder but missing; export again")
    if content_sha256(path) != digest:
        raise ArtifactError(f"artifact '{path}' has changed since it was exported (hashes differ); export again")
    return export
