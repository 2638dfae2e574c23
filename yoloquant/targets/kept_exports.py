"""Exports that are kept: a file is copied instead of built where the model, its plan and the target are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bridge.network_identity import network_identity
from ..cache import Store, copy_files, ours
from ..io import named_as, place_all, scratch_folder
from ..types import ExportedModel
from .base import Target
from .exports import FILE_NAME, load_exports, save_exports

if TYPE_CHECKING:
    from ..quantization.artifact import Artifact

KIND = "export"
Build = Callable[[Path], ExportedModel]
"""Writes an artifact into a folder, with whatever accompanies it there."""


def kept_export(
    store: Store | None,
    target: Target,
    artifact: Artifact,
    folder: Path,
    stem: str,
    build: Build,
    *,
    baseline: bool = False,
) -> ExportedModel:
    """What a target builds, from the store if it was built before.

    Args:
        store: Where it may lie; None builds it anew.
        target: What builds it.
        artifact: What of.
        folder: Where it goes.
        stem: What files are called by.
        build: Builds it.
        baseline: Whether it is the float model that latency is compared with, which no calibration changes.

    Raises:
        YoloquantError: See ``Target.export``.
    """
    key = None if store is None else _key(target, artifact, stem, baseline)
    # beside what others wrote and not among it: all that is new here is what was built, and what fails leaves no trace
    with scratch_folder(folder / KIND) as scratch:
        place = scratch / "kept"
        found = None if store is None or key is None else store.read(KIND, key, lambda entry: _copied(entry, place))
        if found is None:
            place = scratch / "built"  # of its own: half of a damaged entry may lie in the other
            place.mkdir()
            with named_as(place, folder):
                found = build(place)
            if store is not None and key is not None:
                save_exports(place, [found])
                store.write(KIND, key, lambda entry: copy_files(place, entry))
        (place / FILE_NAME).unlink(missing_ok=True)  # the folder has a list of its own
        place_all(place, folder)
    return replace(found, path=folder / found.path.name)


def _copied(entry: Path, place: Path) -> ExportedModel:
    copy_files(entry, place)
    # the copy's hash is checked on the way, and every field of its description
    (exported,) = load_exports(place)
    return exported


def _key(target: Target, artifact: Artifact, stem: str, baseline: bool) -> dict[str, Any] | None:
    """Everything that decides a file; None where that cannot be said."""
    import torch

    identity = network_identity(artifact.model)
    if identity is None or not ours(type(target)) or not ours(target.scheme.place):
        return None
    return {
        "target": [f"{type(target).__module__}.{type(target).__qualname__}", vars(target), target.tools()],
        "model": identity,
        "info": artifact.info,
        "plan": None if baseline else [artifact.state(), artifact.metadata()],
        "stem": stem,
        "threads": torch.get_num_threads(),
    }
