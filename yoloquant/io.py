"""Write files so that nothing is ever half-written."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from .errors import ArtifactError, OutputError

# process ids mean something on their own machine only, and folders may be shared
_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
CACHE = "YOLOQUANT_CACHE"
"""Variable that names another folder for what can be made again, or switches off that results are kept."""
_OFF = frozenset({"0", "false", "no", "off"})
# folders that output_folder made, those inside others behind them
_MADE: list[Path] = []
_PACKAGE = Path(__file__).resolve().parent


def output_folder(path: str | os.PathLike[str]) -> Path:
    """Create an output folder and prove that it can be written, before hours of work are spent.

    Raises:
        OutputError: A file is in its place, or it is read-only or full.
    """
    folder = Path(path)
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _MADE.extend(reversed(missing))
        with tempfile.NamedTemporaryFile(dir=folder) as probe:
            # a whole block: an empty file can be made on a full disk
            probe.write(b"\0" * 4096)
            probe.flush()
    except FileExistsError as exc:
        raise OutputError(f"output folder '{folder}' is a file; choose another output=") from exc
    except OSError as exc:
        raise OutputError(
            f"output folder '{folder}' cannot be written ({exc.strerror or exc}); choose another"
        ) from exc
    return folder


def remove_unused() -> None:
    """Remove the output folders that this process made and that nothing was written to, once it has failed."""
    while _MADE:
        # the last one first, since it may lie in another; a folder that holds anything stays
        with suppress(OSError):
            _MADE.pop().rmdir()


def needs_space(folder: Path, size: int) -> None:
    """Prove that a folder has room for so many bytes.

    Raises:
        OutputError: It has not, or cannot be written.
    """
    # written and not asked for: quotas and network disks answer otherwise than they act
    block = b"\0" * (1 << 20)
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as probe:
            for _ in range(-(-size // len(block))):
                probe.write(block)
            probe.flush()
    except OSError as exc:
        raise OutputError(
            f"'{folder}' has no room for {size / 1e6:.0f} MB ({exc.strerror or exc}); free some space, or choose "
            "another folder"
        ) from exc


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    Works for files and folders; an existing folder is replaced.

    Raises:
        OutputError: The place cannot be written.
    """
    with scratch_folder(path) as holder:
        try:
            # under its own name: writers choose a format by the suffix, or add one
            temporary = holder / path.name
            with named_as(temporary, path):
                yield temporary
            _replace(temporary, path)
        except OSError as exc:
            raise OutputError(f"'{path}' cannot be written ({exc.strerror or exc})") from exc


@contextmanager
def named_as(staging: Path, final: Path) -> Iterator[None]:
    """Let errors tell of the place that somebody chose, where something is written to another one first.

    Raises:
        OutputError: As in the block.
    """
    try:
        yield
    except OutputError as exc:
        if str(staging) not in str(exc):
            raise
        raise OutputError(str(exc).replace(str(staging), str(final))) from exc


def place_all(source: Path, folder: Path) -> None:
    """Move everything in a folder into another of the same disk, each in one step; what is there already is replaced.

    Raises:
        OutputError: A place cannot be written.
    """
    for path in sorted(source.iterdir()):
        try:
            _replace(path, folder / path.name)
        except OSError as exc:
            raise OutputError(f"'{folder / path.name}' cannot be written ({exc.strerror or exc})") from exc


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path`` that vanishes when the block ends; those that killed processes left go first.

    Raises:
        OutputError: The place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # of the same path alone: what lies beside it may be in use
        sweep(path)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.{_MACHINE}.{os.getpid()}-", dir=path.parent))
    except OSError as exc:
        raise OutputError(f"'{path.parent}' cannot be written ({exc.strerror or exc}); choose another folder") from exc
    try:
        yield holder
    finally:
        # an error here would hide the one that ended the block
        shutil.rmtree(holder, ignore_errors=True)


def sweep(path: Path) -> None:
    """Remove what runs that were killed left beside a path; folders of processes that live stay."""
    start = f".{path.name}.{_MACHINE}."  # another machine may share the folder
    for leftover in path.parent.glob(f"{glob.escape(start)}*-*"):
        owner = leftover.name[len(start) :].partition("-")[0]
        # a link could lead anywhere
        if leftover.is_dir() and not leftover.is_symlink() and owner.isdigit() and not alive(int(owner)):
            shutil.rmtree(leftover, ignore_errors=True)


def alive(process: int) -> bool:
    """Whether a process of this machine still runs; True where the system cannot tell."""
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or a system that cannot tell
        return True
    return True


def _replace(temporary: Path, path: Path) -> None:
    if not (path.is_dir() and temporary.is_dir()):
        temporary.replace(path)
        return
    old = temporary.with_name(f"{path.name}.old")  # a folder can only take the place of an empty one
    try:
        # two renames, since no call exchanges folders everywhere; the old one comes back if the second fails
        path.rename(old)
        temporary.replace(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise


def parse_yaml(text: str) -> Any:
    """Parse YAML that anybody may have written.

    PyYAML raises far more than its own error: ``2026-13-01`` is a date that there is not, ``!!int x`` no number.

    Raises:
        ValueError: It is no YAML, or nests too deep.
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as exc:
        said = str(exc) if isinstance(exc, yaml.YAMLError) else repr(exc)
        raise ValueError(" ".join(said.split())) from exc


def caching() -> bool:
    """Whether results may be kept: unless ``YOLOQUANT_CACHE`` is ``false``."""
    return os.environ.get(CACHE, "").lower() not in _OFF


def cache_folder() -> Path:
    """Where copies of what users named lie: ``YOLOQUANT_CACHE``, or the user's own folder for such things."""
    given = os.environ.get(CACHE)
    if given and caching():
        return Path(given)
    # the places that systems name for what can be made again
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return Path(base or Path.home() / ".cache") / "yoloquant"


def resource(*parts: str) -> Path:
    """Path of a shipped file or folder, for instance ``resource('configs', 'gates')``.

    Raises:
        ArtifactError: The installation is incomplete.
    """
    # inside an installed package, or beside it in a checkout
    for root in (_PACKAGE, _PACKAGE.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise ArtifactError(f"{'/'.join(parts)} is missing from this installation of yoloquant; install it again")
