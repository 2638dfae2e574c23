"""Manifests: which images a subset holds, with hashes and box counts, so that a score can be repeated exactly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DataError
from ..runtime.core.folder_check import file_sha256


class ManifestImage(BaseModel):
    """One image of a subset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(description="file name without folders; the id of the image")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    boxes: int = Field(ge=0, description="labelled boxes after removal of exact duplicates")


class SubsetManifest(BaseModel):
    """A subset of a data set.

    Attributes:
        format: Version of this file format.
        name: Name of the subset.
        source: What it was drawn from.
        seed: Seed of the draw; None if it was not drawn at random.
        images: Its images, by file name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # a later format is refused, not half understood
    format: int = Field(default=1, ge=1, le=1)
    name: str
    source: str = ""
    seed: int | None = None
    images: tuple[ManifestImage, ...] = Field(min_length=1)


def read_manifest(path: Path) -> SubsetManifest:
    """Read a manifest.

    Raises:
        DataError: It is missing, no JSON, or has other keys.
    """
    try:
        return SubsetManifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as exc:
        raise DataError(
            f"manifest {path} cannot be read ({exc.strerror}); tools/make_coco_subset.py writes one"
        ) from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"manifest {path}: {place}: {first['msg']}; allowed keys are {', '.join(SubsetManifest.model_fields)}"
        ) from exc
    except (ValueError, RecursionError) as exc:  # no JSON, no UTF-8, or a name that no file can have
        raise DataError(f"manifest {path} is no JSON: {exc}") from exc


def check_manifest(manifest: SubsetManifest, images: Sequence[tuple[Path, int]]) -> None:
    """Hold images against a manifest.

    Args:
        manifest: The manifest.
        images: Path and number of boxes of every image.

    Raises:
        DataError: An image is missing, additional, changed, or has other labels.
    """
    wanted = {entry.file: entry for entry in manifest.images}
    present = {path.name: (path, boxes) for path, boxes in images}
    # before names are compared: the second image of a name would hide the first
    if len(present) != len(images):
        raise DataError("a manifest names images by file name, and two images of this data set share one; rename them")
    missing, extra = sorted(wanted.keys() - present.keys()), sorted(present.keys() - wanted.keys())
    if missing or extra:
        raise DataError(
            f"manifest '{manifest.name}' lists {len(wanted)} images and the data has {len(present)}: "
            f"{len(missing)} missing{_some(missing)}, {len(extra)} not listed{_some(extra)}; "
            "use the data the manifest was made for, or leave the manifest out"
        )
    for name, entry in wanted.items():
        path, boxes = present[name]
        # cheaper than a hash, and labels are what changes most often
        if boxes != entry.boxes:
            raise DataError(
                f"{path} has {boxes} labelled boxes, manifest '{manifest.name}' says {entry.boxes}; "
                "restore its label file"
            )
        if file_sha256(path) != entry.sha256:
            raise DataError(f"{path} differs from the image in manifest '{manifest.name}' (sha256); restore the file")


def _some(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
