"""A bundle as one compressed file; equal bundles give equal bytes."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

from ..io import atomic_path


def pack(folder: Path, path: Path | None = None) -> Path:
    """Write a folder's files into a ``.tar.gz``, under the folder's name.

    Args:
        folder: The bundle.
        path: The archive; ``<folder>.tar.gz`` beside the folder by default.

    Returns:
        The archive's path.

    Raises:
        OutputError: It cannot be written; nothing is left behind then.
    """
    path = path or folder.with_name(f"{folder.name}.tar.gz")
    # sorted: file systems list in any order, and equal bundles must give equal bytes
    files = sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as raw,
        # without name and time in gzip's header, which would differ with every call
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        # PAX: names of any length and script
        tarfile.open(mode="w", fileobj=packed, format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in files:
            _add(archive, file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
    return path


def _add(archive: tarfile.TarFile, file: Path, name: str) -> None:
    """Add a file without owner and time, which differ from machine to machine."""
    entry = tarfile.TarInfo(name)
    entry.size = file.stat().st_size
    # readable for everybody on the device, whatever the export machine's umask was
    entry.mode = 0o644
    with file.open("rb") as stream:
        archive.addfile(entry, stream)
