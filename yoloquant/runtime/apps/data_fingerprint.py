"""A fingerprint of a labelled data set, the same on every machine that holds it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..core.folder_check import file_sha256
from ..core.model_info import ModelInfo
from ..tasks import spec_of
from ..tasks.base import labels_bytes
from .accuracy import find_images, label_path, of_model


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


def fingerprint(source: str | Path, info: ModelInfo, limit: int | None = None) -> DataFingerprint:
    """Hash a data set.

    Args:
        source: Folder in YOLO layout, or data yaml.
        info: The model: its classes and task.
        limit: Take only so many images, the first by path.

    Raises:
        DataError: There are no images, a label is malformed, or a yaml names other classes than the model's.
    """
    # Names first: the same files scored as other classes are another data set.
    digest, count = hashlib.sha256("\n".join(info.names).encode()), 0
    images = find_images(Path(source), info.task)[:limit]
    everything = of_model(spec_of(info.task).labels_of(images, info, label_path), Path(source), info.names)
    for path, labels in zip(images, everything):
        # Not the folder, which differs between machines. No name holds a NUL, so name and hash cannot run together.
        digest.update(path.name.encode() + b"\0" + file_sha256(path).encode())
        # Once mapped to the model's classes: two yamls that list them differently mean the same labels.
        digest.update(labels_bytes(labels))
        count += len(labels.classes)
    return DataFingerprint(digest.hexdigest(), count)
