"""The float model in the runtime of an artifact, which its latency is compared with: made once, and kept beside it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache import Store
from ..errors import ArtifactError
from ..types import ExportedModel
from . import registry
from .exports import load_exports, locked, save_exports
from .graph_form import GraphForm, form_of
from .kept_exports import kept_export

if TYPE_CHECKING:
    from ..quantization.artifact import Artifact

FOLDER = ".fp32"
"""Beside the artifacts, and not among them: nobody asked for these files."""
logger = logging.getLogger(__name__)


def float_model(artifact: Artifact, exported: ExportedModel, store: Store | None = None) -> ExportedModel | None:
    """The float model for the runtime that an artifact is for.

    Args:
        artifact: The model that artifacts are held against, at their input size.
        exported: One of them.
        store: Where it is kept for other folders.

    Returns:
        What an earlier call wrote, if it is of the same weights, size and versions; else a new export. None if the
        runtime cannot hold the model; the log says why.
    """
    folder = exported.path.parent / FOLDER
    # weights that changed since get a file of their own: one that is being timed must not be replaced
    stem = f"{artifact.stem}_{artifact.model.sha256[:12]}"
    graph = form_of(exported)
    kept = _kept(artifact, exported.target, folder, graph)
    if kept is not None:
        return kept
    try:
        folder.mkdir(exist_ok=True)
        # two validations of one folder may want the same model
        with locked(folder):
            (target,) = registry.with_graph([registry.get(exported.target)], graph)
            exported_float = kept_export(
                store, target, artifact, folder, stem, lambda f: target.export_float(artifact, f, stem), baseline=True
            )
            save_exports(folder, [exported_float])
        return exported_float
    # a converter may raise anything, and the ratio is a luxury: the gate says that it is missing
    except Exception as exc:
        logger.warning("no float model to time %s against: %s", exported.target, exc)
        logger.debug("the float model failed", exc_info=exc)
        return None


def _kept(artifact: Artifact, target: str, folder: Path, graph: GraphForm) -> ExportedModel | None:
    try:
        listed = load_exports(folder) if folder.is_dir() else ()
    except ArtifactError:  # damaged or changed: it is made anew
        return None
    metadata = artifact.metadata()
    return next(
        (
            e
            for e in listed
            if e.target == target
            and e.info == graph.described(artifact.info)
            and form_of(e) == graph
            # versions too: a float model of an older converter would be compared with an artifact of a newer one
            and all(e.metadata.get(key) == metadata[key] for key in ("weights_sha256", "versions", "yoloquant"))
        ),
        None,
    )
