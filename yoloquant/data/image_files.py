"""Finding image files as Ultralytics does."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from ..bridge import val as host
from ..errors import DataError


def is_without_yaml(path: Path) -> bool:
    """Whether a path is a folder that no data yaml in it describes: of images, of classes, or of another format."""
    # a folder with a yaml is the data set that the yaml describes, whose labels must not be overlooked
    return path.is_dir() and not any(path.glob("*.y*ml"))


def list_images(paths: Sequence[Path], source: str) -> list[Path]:
    """List image files in Ultralytics' order (by path)."""
    suffixes = host.image_suffixes()
    files: list[str] = []
    for path in paths:
        if path.is_dir():
            # Ultralytics' own pattern: it enters linked folders, as rglob does not, and leaves out what is hidden, such
            # as the ._*.jpg that macOS puts beside every image of an archive
            files += glob.glob(os.path.join(glob.escape(str(path)), "**", "*.*"), recursive=True)
        elif path.suffix == ".txt":
            lines = (line.strip() for line in _text(path).splitlines())
            # "./" counts from the list, anything else from the working folder: Ultralytics' rule
            files += [str(path.parent / line[2:]) if line.startswith("./") else line for line in lines if line]
        else:
            files.append(str(path))
    # sorted as texts, as Ultralytics does: as paths "a-b" and "a/b" would change places
    images = [Path(f) for f in sorted(files) if f.rpartition(".")[-1].lower() in suffixes]
    if not images:
        looked = ", ".join(map(str, paths))
        raise DataError(f"'{source}' holds no images: looked in {looked} for {', '.join(sorted(suffixes))}")
    return images


def _text(path: Path) -> str:
    try:
        # -sig: lists from Windows start with a byte order mark, which would become part of the first path
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"list of images {path} cannot be read ({exc}); each line is the path of an image") from exc
