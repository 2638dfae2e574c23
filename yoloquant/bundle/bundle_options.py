"""What a bundle is made with, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import PathOrNone, option, option_model

if TYPE_CHECKING:
    from ..runtime.core.bundle_manifest import BundleManifest


@option_model
class BundleOptions:
    """What goes into a bundle besides the model."""

    archive: bool = option(default=False, help="write the bundle as .tar.gz too")
    # a path or a result; its type would import evaluation for the command's help
    report: Any = option(
        default=None, help="report.json of a validation (or its result) whose accuracy the bundle is held to"
    )
    data: PathOrNone = option(
        default=None,
        help="data yaml (its val split), or folder of images, that golden inputs are taken from; without a report, the "
        "accuracy on its labels is measured as well. Nothing else than golden inputs enters the bundle",
    )
    limit: int | None = option(default=None, ge=1, help="measure accuracy on so many images only; all if not given")
    golden_images: int = option(default=3, ge=1, le=16, help="number of inputs with expected outputs")
    threads: int | None = option(
        default=None, ge=1, help="threads of the runtime while expected results are made; all cores if not given"
    )


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
    manifest: BundleManifest
    notes: tuple[str, ...] = ()
