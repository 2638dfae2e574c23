"""The matched confidence of a bundle: a validation measured it on the very artifact that goes into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import YoloquantError
from ..evaluation.matched_notes import matched_notes
from ..runtime.apps.running import MATCHED_CONF, MATCHED_PER_CLASS
from ..targets.exports import FILE_NAME, content_sha256, load_exports
from ..types import ExportedModel
from .expected import reported_row

if TYPE_CHECKING:
    from ..quantization.artifact import Artifact


def matched_of(exported: ExportedModel, report: Any) -> dict[str, Any]:
    """What the bundle states: by the report that it is held to, or by the artifact's own metadata; empty if none.

    Args:
        exported: The model that goes into the bundle.
        report: A validation's result, its report.json, or None.

    Raises:
        YoloquantError: See ``reported_row``.
    """
    if report is None:
        return _stated(exported)
    row, whole = reported_row(report, exported)
    return matched_notes(whole.names, row.comparison)


def noted_beside(artifact: Artifact, exported: ExportedModel) -> dict[str, Any]:
    """What a validation noted of the same bytes, where ``run`` and ``export`` put them; empty if none did.

    Args:
        artifact: What the model was exported from.
        exported: The model, exported anew.
    """
    folder, digest = Path(artifact.model.source).parent, content_sha256(exported.path)
    for place in (folder, folder / f"{artifact.stem}_exports"):
        # by content: a checkpoint exports to the same bytes again, and those of another plan have another confidence
        for other in _listed(place):
            if (found := _stated(other)) and content_sha256(other.path) == digest:
                return found
    return {}


def _stated(exported: ExportedModel) -> dict[str, Any]:
    return {key: exported.metadata[key] for key in (MATCHED_CONF, MATCHED_PER_CLASS) if key in exported.metadata}


def _listed(folder: Path) -> tuple[ExportedModel, ...]:
    if not (folder / FILE_NAME).is_file():
        return ()
    try:
        return load_exports(folder)
    except YoloquantError:
        return ()  # somebody's damaged folder is no reason not to bundle what was just exported
