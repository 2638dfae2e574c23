"""Results that are kept and taken again: a store by content, where equal inputs have equal results.

A key says everything that decides a result; what decides all of them (this package's code, every installed package, the
processor) is added here. Entries are folders of plain files, never pickles. Each is put in place by one rename, holds
the hash of its files, and goes as soon as these do not fit; the store keeps to a size by removing what was not used for
longest. A store that cannot be read or written costs time and never a result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from .errors import YoloquantError
from .io import cache_folder, caching, scratch_folder
from .runtime.core.folder_check import file_sha256
from .summarized import plain

logger = logging.getLogger(__name__)

T = TypeVar("T")
Key = Mapping[str, Any]

ENTRY = "entry.json"
FORMAT = 1
MOST = 4 << 30
"""Bytes that a store keeps to."""
_KEPT = 0.8  # of them, once something has to go: not every entry after that must look for another to remove
_UNSEEN = 1 / 256  # of them, that one process may write between two looks at the sizes
_LOCK = ".lock"
_LOCK_S = 60.0  # writing is a rename and a look at the sizes
_LEFT_S = 86400.0  # nothing is written for a day
_PACKAGE = Path(__file__).resolve().parent
_VARIABLES = ("ATEN_", "DNNL_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "ORT_", "OV_", "TF_", "TORCH_", "XLA_")
"""How names of environment variables begin that runtimes and kernels read."""
_SET_BY_IMPORTS = {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TF_CPP_MIN_LOG_LEVEL", "TORCH_CPP_LOG_LEVEL"}
"""Of those, what scikit-learn 1.9 and Ultralytics 8.4 set when they are imported: no result hangs on them, and which of
the two was imported before the first key is chance."""


class Store:
    """Entries in a folder; several processes may share it.

    Args:
        folder: Where they lie; made when the first one is written.
        most: Bytes that it keeps to.
    """

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self.folder, self.most = folder, most
        self._unseen: int | None = None
        self._warned = False

    @classmethod
    def of(cls, asked: bool | str | os.PathLike[str]) -> Store | None:
        """The store that an option ``cache`` names: the user's own for True, none for False."""
        if isinstance(asked, bool):
            return cls(cache_folder() / "results") if asked and caching() else None
        return cls(Path(asked))

    def read(self, kind: str, key: Key, reader: Callable[[Path], T]) -> T | None:
        """What an entry holds.

        Args:
            kind: What it is.
            key: Everything that decides it.
            reader: Reads the entry's folder, which may hold anything: it raises where that does not fit.

        Returns:
            What ``reader`` returned; None if there is no such entry. A damaged one is removed.
        """
        place = self._place(kind, key)
        if place is None:
            return None
        try:
            if not place.is_dir():
                return None
            _check(place)
            found = reader(place)
            os.utime(place / ENTRY)  # used: it is not the next to go
            logger.info("%s: %s is taken from there", self, kind)
            return found
        except FileNotFoundError:  # another process has just removed it, or it is half of one
            self._drop(place)
        except (OSError, ValueError, KeyError, TypeError, YoloquantError) as exc:
            logger.warning("a kept %s cannot be used and is made anew: %s", kind, exc)
            self._drop(place)
        return None

    def write(self, kind: str, key: Key, writer: Callable[[Path], object]) -> None:
        """Keep something, unless there is no place for it; what another process has kept meanwhile stays.

        Args:
            kind: What it is.
            key: Everything that decides it.
            writer: Writes plain files into an empty folder.
        """
        place = self._place(kind, key)
        if place is None:
            return
        try:
            with scratch_folder(place) as holder:
                entry = holder / place.name
                entry.mkdir()
                writer(entry)
                files = {p.relative_to(entry).as_posix(): (p.stat().st_size, file_sha256(p)) for p in _files(entry)}
                size = sum(size for size, _ in files.values())
                if size > self.most:
                    logger.info("a %s of %d MB is not kept: %s holds %d MB", kind, size >> 20, self, self.most >> 20)
                    return
                (entry / ENTRY).write_text(json.dumps({"format": FORMAT, "files": files}), encoding="utf-8")
                with self._locked():
                    if not place.exists():
                        entry.rename(place)
                    self._make_room(size)
        except (OSError, YoloquantError) as exc:
            # once is enough: small results come by the thousand
            level = logging.DEBUG if self._warned else logging.WARNING
            logger.log(level, "%s cannot be written, so nothing is kept there (%s)", self, exc)
            self._warned = True

    def __str__(self) -> str:
        return f"cache '{self.folder}'"

    def _place(self, kind: str, key: Key) -> Path | None:
        """Where an entry lies; None where its key holds what no text tells apart."""
        try:
            text = json.dumps({"key": plain(key), **surroundings()}, sort_keys=True, default=_sorted)
        except (TypeError, ValueError) as exc:
            logger.warning("a %s is not kept: its key is no plain data (%s)", kind, exc)
            return None
        return self.folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:40]}"

    def _locked(self) -> Any:
        from filelock import FileLock

        return FileLock(self.folder / _LOCK, timeout=_LOCK_S)

    def _drop(self, place: Path) -> None:
        try:
            # another name first: whoever looks meanwhile finds the whole entry or none
            with scratch_folder(place) as holder:
                place.rename(holder / place.name)
        except (OSError, YoloquantError) as exc:
            logger.debug("%s was not removed: %s", place, exc)

    def _make_room(self, added: int) -> None:
        """Remove what killed processes left, and what was not used for longest until there is room again.

        Args:
            added: Bytes that were just written.
        """
        # small results come by the thousand, and a look at all sizes takes longer the more there are
        if self._unseen is not None and self._unseen + added <= self.most * _UNSEEN:
            self._unseen += added
            return
        self._unseen = 0
        for left in self.folder.glob(".*"):
            if left.is_dir() and not left.is_symlink() and left.stat().st_mtime < time.time() - _LEFT_S:
                shutil.rmtree(left, ignore_errors=True)
        entries = list(self._entries())
        whole = sum(size for _, size, _ in entries)
        if whole <= self.most:
            return
        for _, size, place in sorted(entries):
            if whole <= _KEPT * self.most:
                break
            logger.info("%s is full: '%s' was not used for longest and goes", self, place.name)
            self._drop(place)
            whole -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """When each entry was used last, and its size."""
        for place in self.folder.iterdir():
            try:
                if not place.name.startswith(".") and place.is_dir():
                    yield (place / ENTRY).stat().st_mtime, sum(p.stat().st_size for p in _files(place)), place
            except OSError:  # another process has just found it damaged, and removed it
                continue


@cache
def surroundings() -> dict[str, Any]:
    """What decides every result besides its own inputs: code, packages, processor and what the environment sets."""
    return {
        "format": FORMAT,
        "code": _code(_PACKAGE),
        "packages": _installed(),
        "python": sys.version,
        "processor": _processor(),
        "environment": {
            k: v for k, v in sorted(os.environ.items()) if k.startswith(_VARIABLES) and k not in _SET_BY_IMPORTS
        },
    }


def ours(kind: Any) -> bool:
    """Whether a class or function is this package's own, whose code is part of every key."""
    package = __name__.partition(".")[0]
    return str(getattr(kind, "__module__", "")).startswith(f"{package}.") and "<" not in kind.__qualname__


def _sorted(value: Any) -> list[str]:
    """A set in an order. What else is no plain data in a key is a mistake of ours, which a test of its kind finds."""
    if not isinstance(value, (set, frozenset)):
        raise TypeError(f"a key holds a {type(value).__name__}, which is no plain data")
    return sorted(str(plain(each)) for each in value)


def _code(package: Path) -> str:
    """Hash of every source file: between releases the version says nothing."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _installed() -> str:
    """Hash of the names and versions of all packages: which of them a converter calls is known by no one."""
    # names of folders: reading every package's own words takes a hundred times as long
    ends = (".dist-info", ".egg-info")
    # setuptools 84 puts packages of its own there once it is imported, which others than setuptools never see first
    folders = [folder for folder in sys.path if Path(folder).name != "_vendor"]
    found = {name for folder in folders for name in _names(folder) if name.endswith(ends)}
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")
    except OSError:  # archives, and folders that are not there
        return []


def _processor() -> list[str]:
    """What kernels choose by: the processor's name and what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
    return [platform.machine(), platform.processor(), platform.system(), *sorted(named)]


def _check(place: Path) -> None:
    """Prove that an entry is whole.

    Raises:
        OSError: A file is missing.
        ValueError: A file is another than the one that was kept, or the entry does not say what it holds.
    """
    stated = json.loads((place / ENTRY).read_text(encoding="utf-8"))
    if stated["format"] != FORMAT:
        raise ValueError(f"format {stated['format']!r}")
    files = {p.relative_to(place).as_posix(): p for p in _files(place)}
    if {*files} != {*stated["files"], ENTRY}:
        raise ValueError("other files than were kept")
    for name, (size, digest) in stated["files"].items():
        if files[name].stat().st_size != size or file_sha256(files[name]) != digest:
            raise ValueError(f"'{name}' has changed")


def _files(folder: Path) -> Iterator[Path]:
    # no links: one could lead anywhere
    return (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def copy_files(source: Path, target: Path) -> None:
    """Copy every file of an entry but its own description into a folder."""
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns(ENTRY), dirs_exist_ok=True, copy_function=shutil.copyfile
    )
