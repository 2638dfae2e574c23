"""From a quantized model to artifacts on disk, one for every target."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Store
from ..errors import PlanError, TargetError, YoloquantError
from ..io import needs_space, output_folder
from ..types import ExportedModel, Progress
from .base import Target
from .check_scales import KEY as SCALES
from .check_scales import check_scales
from .exports import ExportResult, locked, save_exports
from .kept_exports import kept_export
from .schemes import schemes_of

if TYPE_CHECKING:  # listing targets imports this module, and must load no torch
    from ..quantization.artifact import Artifact
    from ..quantization.quantize_options import QuantizeOptions
    from ..quantization.scheme import Scheme

_MODEL_BYTES = 1 << 20  # beside the weights
logger = logging.getLogger(__name__)


def export(
    artifact: Artifact,
    targets: Sequence[Target],
    *,
    folder: str | os.PathLike[str] | None = None,
    saved: Path | None = None,
    keep_going: bool = False,
    progress: Progress | None = None,
    cache: bool | str | os.PathLike[str] = False,
) -> ExportResult:
    """Write an artifact for every target.

    Args:
        artifact: A quantized model with the ranges that the targets need, see ``complete``.
        targets: What to export to.
        folder: Where to write; ``<checkpoint>_exports`` beside the checkpoint by default.
        saved: The checkpoint that the artifact was saved to since it was made; exports then have the bytes of what is
            exported from that later.
        keep_going: Report a target that cannot be built in the result instead of raising.
        progress: Called before every target, and at the end.
        cache: Whether, or where, exports are kept and taken again.

    Returns:
        The exported models; their list is also written to ``exports.json`` in the folder.

    Raises:
        PlanError: The artifact lacks ranges that a target needs.
        TargetError: A target cannot be built, or its file holds another scale than the plan.
        OutputError: The folder cannot be written.
    """
    out = output_folder(folder or _beside(artifact, "exports"))
    artifact = artifact if saved is None else artifact.saved_as(saved)
    stem, store = artifact.stem, Store.of(cache)
    for target in targets:  # everything that can be refused is refused before any work starts
        if not keep_going:
            target.require()
            target.check(artifact)
    done: list[ExportedModel] = []
    errors: dict[str, str] = {}
    for index, target in enumerate(targets):
        if progress:
            progress(index, len(targets), target.wanted)
        try:
            # Built and listed as one: another export into the folder cannot come between a file and its hash, and what
            # was built before an error, an interruption or a kill stays usable.
            with locked(out):
                exported = _build(target, artifact, out, stem, store)
                save_exports(out, [exported])
            done.append(exported)
        except YoloquantError as exc:
            if not keep_going:
                raise
            logger.error("target '%s' could not be built: %s", target.wanted, exc)
            errors[target.wanted] = str(exc)
    if progress:
        progress(len(targets), len(targets), "")
    return ExportResult(out, tuple(done), errors)


def complete(
    artifact: Artifact,
    targets: Sequence[Target],
    *,
    data: str | os.PathLike[str],
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Calibrate the points that targets need and an artifact lacks; ranges that it has stay as they are.

    Args:
        artifact: What was quantized or trained for other runtimes.
        targets: What it will be exported to.
        data: Data yaml or folder whose images calibrate.
        options: How; the input size is the artifact's.
        progress: Called after every calibration image.

    Returns:
        The artifact, with a plan for every scheme that needed one.
    """
    from ..quantization.ptq import quantize
    from ..quantization.quantize_options import QuantizeOptions

    lacking = [s for s in schemes_of(targets) if not _serves(artifact, s)]
    if not lacking:
        return artifact
    # another size would be another graph, whose points have other names
    options = replace(options or QuantizeOptions(), imgsz=artifact.info.imgsz)
    source = artifact.model.source if Path(artifact.model.source).is_file() else artifact.model.module
    more = quantize(source, data=data, schemes=lacking, options=options, progress=progress)
    # the artifact's own word counts where both say something: it was calibrated first
    provenance = {**more.provenance, **artifact.provenance, **_calibrated_by(artifact, more)}
    return replace(
        artifact, plans={**artifact.plans, **more.plans}, bias={**artifact.bias, **more.bias}, provenance=provenance
    )


def _calibrated_by(*artifacts: Artifact) -> dict[str, Any]:
    """The first one's calibration with the images of all, none of which may be scored."""
    calibrations = [dict(a.provenance["calibration"]) for a in artifacts if "calibration" in a.provenance]
    if not calibrations:
        return {}
    hashes = dict.fromkeys(digest for calibration in calibrations for digest in calibration.get("hashes", ()))
    return {"calibration": {**calibrations[0], "hashes": list(hashes)}}


def _serves(artifact: Artifact, scheme: Scheme) -> bool:
    try:
        artifact.plan_for(scheme)
    except PlanError:
        return False
    return True


def _build(target: Target, artifact: Artifact, folder: Path, stem: str, store: Store | None) -> ExportedModel:
    target.require()

    def build(place: Path) -> ExportedModel:
        # here and not before: it may trace the model, which nobody needs where the file is known
        target.check(artifact)
        return target.export(artifact, place, stem)

    def build_checked(place: Path) -> ExportedModel:
        exported = build(place)
        plan = target.plan(artifact)
        if plan is None:
            return exported
        # from the finished bytes: what wrote them may have merged or rounded ranges, or taken those of another plan
        scales = check_scales(plan, target.read_scales(exported), what=f"'{exported.path.name}'")
        return replace(exported, metadata={**exported.metadata, SCALES: {"points": len(plan.points), "values": scales}})

    try:
        return kept_export(store, target, artifact, folder, stem, build_checked)
    except YoloquantError:
        raise
    except Exception as exc:  # a converter may raise anything, also for a full disk
        # only once it has failed: how much a converter needs is known by no one, and a full disk looks like any other
        # error
        needs_space(folder, _MODEL_BYTES + 4 * sum(p.numel() for p in artifact.model.module.parameters()))
        raise TargetError(f"target '{target.wanted}' could not build {stem}: {type(exc).__name__}: {exc}") from exc


def _beside(artifact: Artifact, what: str) -> Path:
    source = Path(artifact.model.source)
    parent = source.parent if source.suffix == ".pt" and source.is_file() else Path.cwd()
    return parent / f"{artifact.stem}_{what}"
