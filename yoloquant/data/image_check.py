"""Images are looked at before any model runs: a bad file is named in a sentence, not met after an hour."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import DataError

MIN_SIDE = 10
"""Shortest side of an image in pixels; Ultralytics skips smaller ones."""
PLUGIN_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".dng", ".jp2"})
"""Formats that need a plug-in which the host may have; decoding reports what fails."""


def check_images(images: Sequence[Path]) -> None:
    """Read every header, and every JPEG to its end.

    Raises:
        DataError: A file is missing, empty, too small, cut short, corrupt or no image.
    """
    with _complaints() as complaints:
        for path in images:
            if not path.is_file():
                raise DataError(f"image {path} is listed but does not exist")
            if path.stat().st_size == 0:
                raise DataError(f"image {path} is empty; replace or remove it")
            size, kind = _header(path)
            if size is not None and min(size) < MIN_SIDE:
                raise DataError(f"image {path} is {size[0]} x {size[1]} pixels; the shortest side must be {MIN_SIDE}")
            if kind == "JPEG" and (wrong := _jpeg_fault(path, complaints)):
                raise DataError(f"image {path} is corrupt ({wrong}); replace or remove it")


def _header(path: Path) -> tuple[tuple[int, int] | None, str]:
    """Width, height and format; no size for formats that only a plug-in reads."""
    from PIL import UnidentifiedImageError

    try:
        with plain_open()(path) as image:
            # Pillow reads the header alone until pixels are asked for
            found = (int(image.size[0]), int(image.size[1])), str(image.format)
            if found[1] == "PNG":
                image.verify()  # checksums of every chunk
            return found
    except Exception as exc:  # Pillow raises many types for broken files
        if path.suffix.lower() in PLUGIN_SUFFIXES:
            return None, ""
        why = _content(path) if isinstance(exc, UnidentifiedImageError) else str(exc)
        raise DataError(f"image {path} is unreadable ({why}); replace or remove it") from exc


def plain_open() -> Callable[..., Any]:
    """Pillow's own ``Image.open``: Ultralytics replaces it by one that wants to install a plug-in for any odd file."""
    from PIL import Image

    # looked up and not imported: without Ultralytics nothing is patched
    patches = sys.modules.get("ultralytics.utils.patches")
    found: Callable[..., Any] = getattr(patches, "_image_open", None) or Image.open
    return found


def _content(path: Path) -> str:
    # what lies in place of images most often: Git LFS pointers, and pages of error text
    head = path.read_bytes()[:64]
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: fetch the file with git lfs pull"
    try:
        head.decode("utf-8")
        return f"it holds text: '{head[:24].decode('utf-8', 'ignore').strip()}'"
    except UnicodeDecodeError:
        return "its bytes are of no known image format"


def _jpeg_fault(path: Path, complaints: Callable[[], str]) -> str:
    """What libjpeg says against a file; empty if nothing. Decoders fill what is missing or wrong without an error.

    An eighth of the size is decoded, which still reads every coefficient.
    """
    import cv2
    import numpy as np

    # not imread, which fails on some characters in paths
    content = np.fromfile(str(path), np.uint8)
    decoded = cv2.imdecode(content, cv2.IMREAD_REDUCED_GRAYSCALE_8)
    # other libraries may speak on the same stream
    said = [line.strip() for line in complaints().splitlines() if "JPEG" in line]
    if said:
        return said[0]
    if decoded is None:
        return "it cannot be decoded"
    return (
        "it was cut short"
        # the end mark may be followed by padding of some cameras and editors
        if content[-2:].tobytes() != b"\xff\xd9" and b"\xff\xd9" not in content[-64:].tobytes()
        else ""
    )


@contextmanager
def _complaints() -> Iterator[Callable[[], str]]:
    """What C libraries print on the error stream of the process while the block runs: libjpeg has no other voice."""
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # a process without an error stream
        yield lambda: ""
        return
    with tempfile.TemporaryFile() as sink:
        # descriptor 2 and not sys.stderr: C libraries write past Python
        os.dup2(sink.fileno(), 2)
        try:
            yield lambda: _taken(sink)
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _taken(sink: Any) -> str:
    sys.stderr.flush()
    # nothing was written, as for nearly every image
    if not sink.seek(0, os.SEEK_END):
        return ""
    sink.seek(0)
    text: str = sink.read().decode("utf-8", "replace")
    sink.seek(0)
    sink.truncate()
    return text
