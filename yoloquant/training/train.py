"""Training for a device: pruning with fine-tuning, quantization-aware training, or one after the other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bridge.input_size import square_size
from ..bridge.installed import offline
from ..pruning.prune_options import PruneOptions, parse
from ..quantization.artifact import Artifact
from ..quantization.scheme import PORTABLE
from ..summarized import Summarized
from ..types import AfterEpoch
from .prune.finetune import fine_tune, quantization_arguments
from .qat.qat_options import QATOptions
from .qat.run import run


@dataclass(frozen=True, repr=False)
class TrainResult(Summarized):
    """What training left behind.

    Attributes:
        best: Checkpoint of the best model; of quantization-aware training the calibrated one if that was not beaten.
        folder: The run folder with plots and results.csv.
        score: Its score on the held-back images.
        score_calibrated: What it is measured against: the calibrated model's; of pruning alone the unpruned model's.
        quantized: Whether ranges were learned; False for pruning alone, whose result is a float model.
        scheme: Scheme of the plan that was trained, and of the calibrated one that it is measured against.
    """

    best: Path
    folder: Path
    score: float
    score_calibrated: float
    quantized: bool = True
    scheme: str = ""

    @property
    def improved(self) -> bool:
        """Whether training beat what it is measured against."""
        return self.score > self.score_calibrated

    @property
    def advice(self) -> str:
        """What the two scores leave open; empty if nothing."""
        if self.scheme != PORTABLE.name:
            return ""
        return (
            "both scores are of the portable plan, which serves every runtime; a runtime's own plan may beat it by "
            "calibration alone: validate exports of the untrained checkpoint too, or train scheme=<runtime>"
        )

    def summary(self) -> str:
        """Where the result is, and whether training helped."""
        start = "calibrated" if self.quantized else "unpruned"
        return f"{self.best}: score {self.score:.4f} on held-back images, {start} {self.score_calibrated:.4f}"

    @property
    def artifact(self) -> Artifact:
        """The result, to be exported."""
        return Artifact.load(self.best)


def train(
    model: Any,
    *,
    data: str | os.PathLike[str] | None = None,
    qat: QATOptions | Mapping[str, Any] | str | None = None,
    prune: PruneOptions | Mapping[str, Any] | float | None = None,
    after_epoch: AfterEpoch | None = None,
    **arguments: Any,
) -> TrainResult:
    """Train a model for its device: prune it, learn quantization ranges, or one after the other.

    Pruning comes first: the pruned model is fine-tuned for ``epochs``, taught by the unpruned one. Quantization-aware
    training then learns the ranges, and the weights that suit them; beside ``prune`` it runs only if ``qat`` is given,
    for as long as its preset says.

    Args:
        model: Path of a trained Ultralytics checkpoint, or a live ``ultralytics.YOLO``.
        data: Data yaml, or a folder of images without labels.
        qat: A preset (``fast``, ``standard``, ``long``), ``QATOptions``, or a mapping of its fields.
        prune: A share of the multiplications to remove, ``PruneOptions``, or a mapping of its fields.
        after_epoch: Told of every epoch of the last training and its score; what it raises ends the training.
        **arguments: Any argument of Ultralytics' training: ``epochs``, ``imgsz``, ``batch``, ``device`` ...; with
            ``resume=True`` the model is the last.pt of an interrupted run.

    Returns:
        Where the result is, and whether training beat what it started from.

    Raises:
        UsageError: An argument is unknown or does not fit.
        ModelError: The model cannot be read or traced.
        PruneError: So much cannot be removed; the message states the most that can.
        TrainingError: The loss is not finite.
    """
    square_size(arguments.get("imgsz"))
    with offline():
        pruned = None
        if prune is not None:
            pruned = fine_tune(model, data, parse(prune), arguments, after_epoch if qat is None else None)
            if qat is None:
                return TrainResult(pruned.best, pruned.folder, pruned.score, pruned.score_unpruned, quantized=False)
            model, arguments = pruned.best, quantization_arguments(pruned, arguments)
        best, folder, provenance = run(model, data, qat, arguments, after_epoch)
    score, start = float(provenance["score"]), float(provenance["score_calibrated"])
    return TrainResult(best, folder, score, start, scheme=str(provenance.get("scheme", "")))
