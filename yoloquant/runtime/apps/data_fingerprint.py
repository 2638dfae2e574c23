"""A fingerprint of a labelled data set, the same on every machine that holds it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.folder_check import file_sha256
from ..io.labels import read_labels
from .accuracy import find_images, label_path


@dataclass(frozen=True)
class DataFingerprint:
    """What identifies a data set.

    Attributes:
        sha256: Hash of every image's bytes and name and of its labels, in the order of their paths, and of the class
            names; as a validation report's ``data_sha256``.
        labels: Number of labelled boxes.
    """

    sha256: str
    labels: int


def fingerprint(source: str | Path, names: Sequence[str], limit: int | None = None) -> DataFingerprint:
    """Hash a data set.

    Args:
        source: Folder in YOLO layout, or data yaml.
        names: Class names.
        limit: Take only so many images, the first by path.

    Raises:
        DataError: There are no images, or a label is malformed.
    """
    digest, count = hashlib.sha256("\n".join(names).encode()), 0
    for path in find_images(Path(source))[:limit]:
        classes, boxes = read_labels(label_path(path), len(names))
        digest.update(path.name.encode() + b"\0" + file_sha256(path).encode())
        digest.update(classes.astype("<i8").tobytes() + boxes.astype("<f4").tobytes())
        count += len(classes)
    return DataFingerprint(digest.hexdigest(), count)
