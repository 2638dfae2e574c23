"""Whether a bundle's folder holds what its manifest lists, and nothing else that could run."""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import BundleError

_BLOCK = 1 << 20
_SCRIPTS = {".py", ".pyw", ".pyc", ".pyo", ".pth", ".sh", ".bash", ".zsh", ".csh", ".bat", ".cmd", ".ps1"}
_BINARIES = {".so", ".pyd", ".dll", ".dylib", ".exe", ".com", ".egg", ".whl"}
_CODE_STARTS = (b"#!", b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
"""First bytes of scripts and of executables of Linux, Windows and macOS; a mode says nothing on a USB stick."""
_BYTECODE = re.compile(r"^(?P<stem>[^.]+)\.(?P<tag>[A-Za-z0-9_-]+)(?:\.opt-(?P<level>[12]))?\.pyc$")
_AGAIN = "copy the bundle again"


@dataclass(frozen=True)
class FileEntry:
    """A file of a bundle.

    Attributes:
        sha256: Hash of its bytes, in hexadecimal.
        size: Number of its bytes.
    """

    sha256: str
    size: int


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        # In blocks: a model may be larger than the memory of a device.
        for block in iter(lambda: stream.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def check_relative(path: str) -> str:
    """Return a path that stays inside the bundle.

    Raises:
        BundleError: It is absolute, climbs with ``..``, or is not written in the one normal way.
    """
    parts = path.split("/") if isinstance(path, str) else []
    odd = not parts or any(part in {"", ".", ".."} for part in parts)
    # Also what Windows gives a meaning (drives, streams, wildcards): a bundle may be unpacked there.
    if odd or re.search(r'[\\:\x00-\x1f<>"|?*]', path):
        raise BundleError(f"the manifest names the file {path!r}, which is no path inside the bundle; it is refused")
    return path


def check_folder(folder: Path, files: Mapping[str, FileEntry], manifest: str) -> None:
    """Hold a folder against the list of its files.

    Further files are allowed as long as nothing can run them (results, built engines), and Python's own cache of the
    listed modules if it is what they compile to.

    Args:
        folder: The bundle.
        files: Its files, by path inside it.
        manifest: Name of the manifest, which lists the others.

    Raises:
        BundleError: A file is missing, changed, cut short, a link, or executable and not listed.
    """
    # The listed ones first, since a damaged file is the likelier and plainer thing to say.
    for path, entry in files.items():
        _check_listed(folder, check_relative(path), entry)
    for path in _walk(folder):
        if path not in files and path != manifest:
            _check_extra(folder, path, files)


def _check_listed(folder: Path, path: str, entry: FileEntry) -> None:
    file = folder / path
    # Every folder on the way, too: a file behind a linked folder is a plain file by itself.
    for step in (file, *file.parents):
        if step == folder:
            break
        if step.is_symlink():
            raise BundleError(f"'{path}' is a link or lies behind one; a bundle holds plain files only, {_AGAIN}")
    if not file.is_file():
        raise BundleError(f"'{path}' is missing from the bundle '{folder}'; {_AGAIN}")
    try:
        size = file.stat().st_size
        # Before the hash: a copy that broke off is told in no time, and in the right words.
        if size != entry.size:
            word = "cut short" if size < entry.size else "changed"
            raise BundleError(f"'{path}' is {word}: it has {size} bytes, exported were {entry.size}; {_AGAIN}")
        if file_sha256(file) != entry.sha256:
            raise BundleError(f"'{path}' was changed after the export (its hash differs); {_AGAIN}")
    except OSError as exc:
        raise BundleError(f"'{path}' cannot be read ({exc.strerror or exc}); {_AGAIN}") from exc


def _walk(folder: Path) -> Iterator[str]:
    """Every file of a folder by its path inside it; links to folders count as files."""
    # `os.walk` does not go into linked folders and lists them among the folders, where they would be overlooked.
    for place, folders, names in os.walk(str(folder)):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in sorted([*names, *links]):
            yield Path(place, name).relative_to(folder).as_posix()


def _check_extra(folder: Path, path: str, files: Mapping[str, FileEntry]) -> None:
    file = folder / path
    if file.is_symlink():
        raise BundleError(f"'{path}' is a link, which a bundle never holds; remove it")
    if not file.is_file():
        raise BundleError(f"'{path}' is neither a file nor a folder; remove it")
    # Python writes its cache beside modules on the first run; refusing it would break the second one.
    if _is_own_bytecode(folder, PurePosixPath(path), files):
        return
    with file.open("rb") as stream:
        start = stream.read(4)
    if _suffixes(file.name) & (_SCRIPTS | _BINARIES) or start.startswith(_CODE_STARTS):
        raise BundleError(f"'{path}' can be executed but is not part of the bundle; remove it")


def _suffixes(name: str) -> frozenset[str]:
    return frozenset(suffix.lower() for suffix in Path(name).suffixes)


def _is_own_bytecode(folder: Path, path: PurePosixPath, files: Mapping[str, FileEntry]) -> bool:
    """Whether a file is Python's cache of a listed module, and holds what that module compiles to.

    Caches of other interpreters than this one are not read by it, so their content is not looked at.
    """
    found = _BYTECODE.match(path.name)
    if path.parent.name != "__pycache__" or found is None:
        return False
    source = str(path.parent.parent / (found["stem"] + ".py"))
    if source not in files:
        return False
    if found["tag"] != sys.implementation.cache_tag:
        return True
    content = (folder / str(path)).read_bytes()
    if content[:4] != importlib.util.MAGIC_NUMBER:
        return True
    level = int(found["level"] or 0)
    text = (folder / source).read_bytes()
    # Compiled from the proven source: a cache with a valid header could hold any code.
    wanted = compile(text, str(folder / source), "exec", dont_inherit=True, optimize=level)
    try:
        return bool(marshal.loads(content[16:]) == wanted)  # PEP 552: a header of 16 bytes
    except (ValueError, EOFError, TypeError):
        return False
