"""Fetch one file that a user named by its address: never more than a limit, and whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

from ..errors import DataError
from ..io import atomic_path, cache_folder
from ..runtime.core.folder_check import file_sha256

logger = logging.getLogger(__name__)

MOST = 1 << 30
"""Bytes of a file; results of 5,000 images and ten models take a tenth."""
TIMEOUT_S = 60
_BLOCK = 1 << 20
_HASH = "sha256="


def is_address(text: str | os.PathLike[str] | None) -> bool:
    """Whether a text is an address and no path."""
    return isinstance(text, str) and "://" in text


def fetch(address: str, *, most: int = MOST) -> Path:
    """Fetch a file into the cache.

    Args:
        address: ``https://...`` or ``http://...``; with ``#sha256=<hex>`` behind it nothing else is taken, and a
            copy that was fetched before is.
        most: The most bytes that it may have.

    Returns:
        The file.

    Raises:
        DataError: It cannot be fetched, is too large, was cut off, or has another hash.
        OutputError: The cache cannot be written.
    """
    bare, _, fragment = address.partition("#")
    parts = urllib.parse.urlsplit(bare)
    shown = parts._replace(netloc=parts.hostname or "", query="").geturl()  # no password or signature in messages
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise DataError(f"'{shown}' cannot be fetched: an address starts with https:// or http://; else name a file")
    wanted = fragment[len(_HASH) :].lower() if fragment.startswith(_HASH) else ""
    if fragment and (len(wanted) != 64 or set(wanted) - set("0123456789abcdef")):
        raise DataError(f"'{shown}#{fragment}': behind # stands {_HASH} and 64 hexadecimal digits, or leave it out")
    # The last part alone: an address must not choose a folder.
    name = Path(urllib.parse.unquote(parts.path)).name or "file"
    # With a hash of the address in front: files of different addresses may have one name.
    place = cache_folder() / "fetched" / f"{hashlib.sha256(bare.encode()).hexdigest()[:16]}-{name}"
    # Only with a hash: what lies behind an address may have changed since.
    if wanted and place.is_file() and file_sha256(place) == wanted:
        return place
    with atomic_path(place) as temporary:
        try:
            digest = _read(bare, temporary, most, shown)
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as exc:
            reason = getattr(exc, "reason", None) or exc
            raise DataError(f"'{shown}' cannot be fetched ({reason}); download it and name the file") from exc
        if wanted and digest != wanted:
            raise DataError(f"'{shown}' has sha256 {digest}, wanted was {wanted}; it is another file, or was changed")
    logger.info("fetched %s, sha256 %s", shown, digest)
    return place


def _read(address: str, place: Path, most: int, shown: str) -> str:
    # identity: urllib does not unpack what a server compresses.
    request = urllib.request.Request(address, headers={"User-Agent": "yoloquant", "Accept-Encoding": "identity"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer, place.open("wb") as stream:
        # Redirects are followed, and one that leads away from https could come from anybody on the way.
        landed = urllib.parse.urlsplit(answer.url).scheme
        if landed != "https" and urllib.parse.urlsplit(address).scheme != landed:
            raise DataError(f"'{shown}' leads to an address that is not https; nothing was fetched")
        stated = answer.headers.get("Content-Length")
        size = int(stated) if stated and stated.isdigit() else None
        if size is not None and size > most:
            raise DataError(f"'{shown}' has {size / 1e6:.0f} MB, more than the {most / 1e6:.0f} MB that are fetched")
        done, digest = _copy(answer, stream, most)
    if done > most:
        raise DataError(f"'{shown}' has more than the {most / 1e6:.0f} MB that are fetched")
    if size is not None and done != size:
        raise DataError(f"'{shown}' was cut off after {done} of {size} bytes; try again")
    return digest


def _copy(source: IO[bytes], target: IO[bytes], most: int) -> tuple[int, str]:
    done, digest = 0, hashlib.sha256()
    # One byte more than allowed, to tell a file that is too large from one that just fits.
    while done <= most and (block := source.read(min(_BLOCK, most + 1 - done))):
        done += len(block)
        digest.update(block)
        target.write(block)
    return done, digest.hexdigest()
