"""Calibrations that are kept: a plan with its ranges is taken again where model, images and options are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bridge.network_identity import network_identity
from ..cache import Store, ours
from ..data.calibration import CalibrationSet
from ..graph.traced_model import TracedModel
from ..runtime.core.folder_check import file_sha256
from .artifact import Artifact
from .quantize_options import QuantizeOptions
from .scheme import Scheme

KIND = "calibration"
_FILE = "state.json"


class KeptCalibration:
    """One calibration's place in a store.

    Args:
        traced: The model at its input size; it is not traced for this.
        schemes: What is calibrated for.
        images: What calibrates.
        scored: What the audit holds against those; None if there is nothing.
        options: The store, and what decides ranges.
    """

    def __init__(
        self,
        traced: TracedModel,
        schemes: Sequence[Scheme],
        images: CalibrationSet,
        scored: CalibrationSet | None,
        options: QuantizeOptions,
    ) -> None:
        self._traced = traced
        self._key = _key(traced, schemes, images, scored, options)
        self._store = None if self._key is None else Store.of(options.cache)

    def read(self) -> Artifact | None:
        """What was calibrated before; None if nothing was."""
        if self._store is None or self._key is None:
            return None
        return self._store.read(KIND, self._key, lambda folder: Artifact.of_state(self._traced, _state(folder)))

    def write(self, artifact: Artifact) -> None:
        """Keep what was calibrated."""
        if self._store is not None and self._key is not None:
            text = json.dumps(artifact.state())
            self._store.write(KIND, self._key, lambda folder: (folder / _FILE).write_text(text, encoding="utf-8"))


def _state(folder: Path) -> Mapping[str, Any]:
    state: Mapping[str, Any] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return state


def _key(
    traced: TracedModel,
    schemes: Sequence[Scheme],
    images: CalibrationSet,
    scored: CalibrationSet | None,
    options: QuantizeOptions,
) -> dict[str, Any] | None:
    """Everything that decides a calibration; None where that cannot be said."""
    import torch

    model, source = traced.model, Path(traced.model.source)
    # a live model may carry state that is in no file: hooks, and quantizers of its training
    if not source.is_file() or file_sha256(source) != model.sha256:
        return None
    # functions of the user's own are no data
    if options.points is not None or not all(ours(scheme.place) for scheme in schemes):
        return None
    identity = network_identity(model)
    if identity is None:
        return None
    return {
        "model": identity,
        "source": source.name,
        "info": traced.info,
        "schemes": [{**vars(s), "place": f"{s.place.__module__}.{s.place.__qualname__}"} for s in schemes],
        "images": [images.sha256, images.split, Path(images.source).name],
        "scored": scored.sha256 if scored else "",
        "options": {k: v for k, v in vars(options).items() if k != "cache"},
        "threads": torch.get_num_threads(),
    }
