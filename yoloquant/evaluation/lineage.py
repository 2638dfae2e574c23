"""Which model artifacts are held against, and whether they were made from it.

A pruned or trained checkpoint remembers the FP32 model that it was made from (``bridge.host_model.Origin``). That one
is the baseline, wherever its file is found: held against itself, a pruned model would always pass.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bridge.checkpoint import load_model
from ..bridge.host_model import HostModel, weights_sha256
from ..data.calibration import short_hash
from ..data.dataset import ValidationSet
from ..errors import ArtifactError, DataError
from ..runtime.core.folder_check import file_sha256
from ..targets.base import INT8
from ..types import ExportedModel

logger = logging.getLogger(__name__)

SHORT = 12
"""Digits of a hash that people are shown."""
_PARENTS = 5  # a run's best.pt lies in <project>/<name>/weights, often below the original's folder


@dataclass(frozen=True)
class Baseline:
    """The FP32 model that artifacts are held against.

    Attributes:
        model: The model.
        note: How it was chosen, where that is not plain.
    """

    model: HostModel
    note: str = ""


def find_baseline(model: HostModel, near: Iterable[Path] = ()) -> Baseline:
    """The original of a model, if its file can be found; else the model itself.

    Args:
        model: What the user named.
        near: Further folders to look in; their parents count too.
    """
    if not model.derived:
        return Baseline(model)
    origin = model.origin
    short = origin.sha256[:SHORT]
    for folder in _folders((Path(model.source).parent, *near, Path.cwd())):
        path = folder / origin.name
        # by hash: another best.pt with the same name lies in every run's folder
        if path.is_file() and file_sha256(path) == origin.sha256:
            note = f"the baseline is '{origin.name}' ({short}), the FP32 model that '{_name(model)}' was made from"
            return Baseline(load_model(path), note)
    note = (
        f"the baseline is '{_name(model)}' itself: '{origin.name}' ({short}), the FP32 model that it was made from, "
        "was not found beside it; put it there, or name it with baseline=<file>, to see the whole drop"
    )
    logger.warning(note)
    return Baseline(model, note)


def check_exports(
    exports: Sequence[ExportedModel], model: HostModel, baseline: HostModel, *, allow_stale: bool = False
) -> tuple[str, ...]:
    """Refuse artifacts of another model.

    Args:
        exports: The artifacts.
        model: What the user named.
        baseline: What they are held against.
        allow_stale: Accept them after all.

    Returns:
        What was accepted, for the report.

    Raises:
        ArtifactError: An artifact was made from another model, or has other classes.
    """
    notes = []
    for export in exports:
        _check_names(export, baseline)
        if _made_from(export.metadata, model):
            continue
        made = export.metadata.get("model", "another checkpoint")
        sha256 = str(export.metadata.get("model_sha256", ""))[:SHORT] or "unknown"
        text = (
            f"artifact '{export.path.name}' was made from other weights ('{made}', {sha256}) than those of "
            f"'{_name(model)}' ({model.sha256[:SHORT]})"
        )
        if not allow_stale:
            raise ArtifactError(
                f"{text}: the checkpoint was trained again since, or is another one; export again, or pass "
                "allow_stale=true to score it all the same"
            )
        logger.warning(text)
        notes.append(f"{text}; accepted by allow_stale=true")
    return tuple(notes)


def check_calibration(
    exports: Sequence[ExportedModel], images: ValidationSet, *, allow_scored: bool = False
) -> tuple[str, ...]:
    """Refuse to score artifacts on the images that calibrated them.

    Args:
        exports: The artifacts.
        images: The images to be scored.
        allow_scored: Accept them after all.

    Returns:
        What was accepted, for the report.

    Raises:
        DataError: An image calibrated an artifact.
    """
    notes = []
    for export in exports:
        calibrated = _calibrated(export.metadata)
        if not calibrated and export.precision == INT8:
            notes.append(
                f"'{export.path.name}' does not say which images calibrated it: they may be among those that are scored"
            )
        # by content: the same picture under another name in another folder is still the same picture
        both = [image for image in images.images if short_hash(image.sha256) in calibrated] if calibrated else []
        if not both:
            continue
        count, first = f"{len(both)} of {len(images)}", both[0].path.name
        text = f"{count} scored images calibrated '{export.path.name}' (the first is {first})"
        if not allow_scored:
            raise DataError(
                f"{text}; scores on them flatter it: score other images, or pass allow_scored=true if you want that"
            )
        logger.warning(text)
        notes.append(f"{text}; accepted by allow_scored=true")
    return tuple(notes)


def quantized_weights(metadata: Mapping[str, Any]) -> str:
    """Hash of the float weights that an artifact quantizes; empty if its metadata do not tell.

    Of a model that was trained or pruned they are those it ended with, not the original's: trained again it is another
    model, of which nobody can say how much of what it finds must stay.
    """
    return str(metadata.get("weights_sha256") or "")


def _made_from(metadata: dict[str, Any], model: HostModel) -> bool:
    """Whether an artifact holds the model's weights, or was derived from the model if that is an original."""
    weights = weights_sha256(model.module)
    origin = metadata.get("origin")
    made = origin if isinstance(origin, dict) else {}
    # weights and not files: saving a checkpoint again changes its bytes and nothing that is exported
    if "weights_sha256" in metadata:
        if metadata["weights_sha256"] == weights:
            return True
        # an artifact of a pruned or trained model, held against the original that it came from
        return not model.derived and weights == made.get("weights")
    return metadata.get("model_sha256") in {model.sha256, model.state.get("sha256"), model.origin.sha256}


def _check_names(export: ExportedModel, model: HostModel) -> None:
    theirs, ours = export.info.names, model.names
    if theirs == ours:
        return
    place = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    got, wanted = (repr(names[place]) if place < len(names) else "no class" for names in (theirs, ours))
    raise ArtifactError(
        f"artifact '{export.path.name}' has other classes than '{_name(model)}': class {place} is {got}, in the model "
        f"{wanted}; export again from that model"
    )


def _calibrated(metadata: dict[str, Any]) -> frozenset[str]:
    calibration = metadata.get("calibration")
    hashes = calibration.get("hashes") if isinstance(calibration, dict) else None
    return frozenset(map(str, hashes)) if isinstance(hashes, list) else frozenset()


def _folders(starts: Iterable[Path]) -> list[Path]:
    folders: dict[Path, None] = {}
    for start in starts:
        start = start.resolve()
        # A dict keeps the order and drops what comes twice; no set does both.
        folders.update(dict.fromkeys((start, *list(start.parents)[:_PARENTS])))
    return list(folders)


def _name(model: HostModel) -> str:
    return Path(model.source).name
