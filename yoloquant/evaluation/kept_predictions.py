"""What models found in images, kept: a model that was run on the same images before is not run on them again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..bridge.host_model import HostModel
from ..bridge.network_identity import network_identity
from ..cache import Key, Store, ours
from ..data.dataset import ValidationSet
from ..predictions.prediction_set import RecordedModel
from ..predictions.results_file import ResultRow, ResultsFile, ResultsHeader, storable, write_results
from ..runtime.apps.running import MATCHED_CONF, MATCHED_PER_CLASS
from ..runtime.core.detections import Selection
from ..types import ExportedModel, ModelInfo
from .evaluate import EvaluateOptions, Evaluation

KIND = "predictions"
_FILE, _ROW = "results.npz", "model"


def of_export(exported: ExportedModel, sha256: str) -> Key | None:
    """What decides the predictions of an artifact on this machine; None where that cannot be said.

    Args:
        exported: The artifact.
        sha256: Hash of its content.
    """
    from .. import targets

    kind = targets.get(exported.target)
    if not ours(type(kind)):
        return None
    # beside the file: which of a runtime's ways opens it, and the chip that is simulated, hang on what was noted of it
    noted = {k: v for k, v in exported.metadata.items() if k not in (MATCHED_CONF, MATCHED_PER_CLASS)}
    return {
        "target": exported.target,
        "sha256": sha256,
        "info": exported.info,
        "layout": exported.layout,
        "precision": exported.precision,
        # as a listing holds it: what was exported just now has the key of what is read from a folder
        "metadata": json.loads(json.dumps(noted, default=str)),
    }


def of_network(model: HostModel, info: ModelInfo) -> Key | None:
    """The same of a float model in PyTorch, at an input size."""
    identity = network_identity(model)
    return None if identity is None else {"network": identity, "info": info}


def selection_for(infos: Iterable[ModelInfo]) -> Selection:
    """How detections are selected where models of these kinds are held against each other."""
    # an end-to-end head that was exported for more detections must not be cut to fewer
    return Selection(max_det=max((Selection.max_det, *(info.max_det for info in infos))))


class KeptPredictions:
    """Predictions on one set of images.

    Args:
        store: Where they lie; None keeps nothing.
        images: The images.
        options: How models are run.
        threads: Threads of every runtime: sums in another order are rounded otherwise.

    Attributes:
        store: As given.
    """

    def __init__(self, store: Store | None, images: ValidationSet, options: EvaluateOptions, threads: int) -> None:
        self.store, self._images = store, images
        self._common: dict[str, Any] = {}
        if store is not None:
            self._common = {
                "images": [image.sha256 for image in images.images],
                "selection": options.selection,
                "reference_conf": options.reference_conf,
                "keep_parts": options.keep_parts,
                "threads": threads,
            }

    def read(self, key: Key | None) -> RecordedModel | None:
        """What a model found before; None if that is not known."""
        if self.store is None or key is None:
            return None
        return self.store.read(KIND, {**self._common, **key}, self._read)

    def write(self, key: Key | None, info: ModelInfo, name: str, evaluation: Evaluation) -> None:
        """Keep what a model found, unless that takes more room than it is worth (masks).

        Args:
            key: What decides it.
            info: The model.
            name: Its name among those that were run.
            evaluation: What was found.
        """
        found = evaluation.records[name].detections
        if self.store is None or key is None or not storable(found):
            return
        images = tuple((image.path.name, image.sha256) for image in self._images.images)
        sizes = tuple(where.original for where in evaluation.letterboxes)
        header = ResultsHeader(info, images, (ResultRow(_ROW),), sizes=sizes)
        self.store.write(
            KIND, {**self._common, **key}, lambda folder: write_results(folder / _FILE, header, {_ROW: found})
        )

    def _read(self, folder: Path) -> RecordedModel:
        return ResultsFile(folder / _FILE).model(_ROW, self._images, sized=True)
