"""What a bundle is made with, and what comes of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from ..evaluation.results import ValidationResult
    from ..runtime.core.bundle_manifest import Manifest


@dataclass(frozen=True)
class BundleOptions:
    """What goes into a bundle besides the model.

    Attributes:
        archive: Whether to write ``<folder>.tar.gz`` too.
        report: Result of a validation, or the path of its ``report.json``, whose accuracy the bundle is held to.
        data: Data yaml (its val split), or folder of images, that golden inputs are taken from; without a report, the
            accuracy on its labels is measured as well. Nothing else than golden inputs enters the bundle.
        limit: Measure accuracy on so many images only; all by default.
        golden_images: Number of golden inputs.
        threads: Threads of the runtime while expected results are made; all cores by default.

    Raises:
        UsageError: A number is out of range.
    """

    archive: bool = False
    report: ValidationResult | str | os.PathLike[str] | None = None
    data: str | os.PathLike[str] | None = None
    limit: int | None = None
    golden_images: int = 3
    threads: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.golden_images <= 16:
            raise UsageError(f"golden_images={self.golden_images} is out of range; a bundle holds 1 to 16")


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        path: Its folder.
        archive: The same as ``.tar.gz``; None unless asked for.
        manifest: What it holds; ``manifest.id`` is its fingerprint.
        notes: What a person should know; also in its README.
    """

    path: Path
    archive: Path | None
    manifest: Manifest
    notes: tuple[str, ...] = ()
