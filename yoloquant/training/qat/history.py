"""What a run looked like, epoch by epoch: scores and ranges, for people and for the final word."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import YoloquantError
from ...quantization.plan import Plan
from ..state import plain

if TYPE_CHECKING:
    from ...quantization.artifact import Artifact
    from .trainer import QATTrainer

logger = logging.getLogger(__name__)

FLOAT_PREFIX = "float/"


@dataclass(frozen=True)
class EpochScores:
    """Scores on the held-back images after an epoch; epoch 0 is the calibrated model before training.

    Attributes:
        epoch: Epochs done.
        quantized: Ultralytics' metrics of the quantized model.
        plain: The same of its weights in float; None if not measured.
        fidelity: To the float model that training started from; None where it is not defined.
        fitness: What the best checkpoint is chosen by: fidelity less the size of the confidence shift, or fitness.
        shift: Mean change of confidence against the float model; None where fidelity is.
    """

    epoch: int
    quantized: dict[str, float]
    plain: dict[str, float] | None
    fidelity: float | None
    fitness: float
    shift: float | None = None

    @property
    def selected_by(self) -> str:
        """What the fitness is."""
        if self.fidelity is None or self.shift is None:
            # equality of floats, since one was assigned from the other
            return "fidelity" if self.fitness == self.fidelity else "fitness"
        return "fidelity - |shift|" if self.fitness == self.fidelity - abs(self.shift) else "fitness"

    def metrics(self) -> dict[str, float]:
        """One row of Ultralytics' results.csv."""
        row = dict(self.quantized)
        if self.plain is not None:
            row.update(
                {f"{FLOAT_PREFIX}{k.split('/', 1)[-1]}": v for k, v in self.plain.items() if "mAP" in k or "acc" in k}
            )
        if self.fidelity is not None:
            # as many digits as Ultralytics' own columns
            row["fidelity"] = round(self.fidelity, 5)
        if self.shift is not None:
            row["confidence_shift"] = round(self.shift, 5)
        return row

    def main(self) -> tuple[str, float]:
        """The metric that people look at first."""
        for key in (*(k for k in self.quantized if "mAP50-95" in k), *(k for k in self.quantized if "top1" in k)):
            return key.split("/", 1)[-1], self.quantized[key]
        return "fitness", self.fitness

    def line(self, start: EpochScores | None) -> str:
        """One line for the log."""
        name, value = self.main()
        text = f"{'Calibrated' if self.epoch == 0 else f'Epoch {self.epoch}'}: quantized {name} {value:.4f}"
        if self.plain is not None:
            for key, found in self.plain.items():
                if key.split("/", 1)[-1] == name:
                    text += f", float {found:.4f}"
        if self.fidelity is not None:
            text += f", fidelity {self.fidelity:.4f}"
        if self.shift is not None:
            text += f", confidence shift {self.shift:+.4f}"
        if start is not None:
            text += f" (selected by {self.selected_by}: {self.fitness:.4f}, "
            text += f"calibrated {start.fitness:.4f})"
        return text


@dataclass
class History:
    """Scores and ranges of a run.

    Attributes:
        scores: One entry for each scored epoch, the calibrated model first.
        ranges: Mean scale of every learned point after each of them.
    """

    scores: list[EpochScores] = field(default_factory=list)
    ranges: list[dict[str, float]] = field(default_factory=list)

    @property
    def start(self) -> EpochScores | None:
        """Scores of the calibrated model."""
        return self.scores[0] if self.scores else None

    def add(self, scores: EpochScores, plan: Plan) -> None:
        """Note one epoch."""
        self.scores.append(scores)
        scales = {p.name: p.params.scale for p in plan.points if p.params is not None and not p.fixed}
        # one number a point: a plan has thousands of channels, and checkpoints carry the history
        self.ranges.append({name: float(np.mean(scale)) for name, scale in scales.items()})

    def best(self) -> EpochScores:
        """The first of the best."""
        # max() takes the first of equals: a tie is no reason to leave the calibrated ranges
        return max(self.scores, key=lambda s: s.fitness)

    def verdict(self, path: Path) -> str:
        """The final word, and what to do next."""
        best, start = self.best(), self.scores[0]
        name, value = best.main()
        if best.epoch == 0:
            word = "Training did not beat the calibrated ranges on the held-back images; they are kept."
        else:
            word = f"Training helped: {start.fitness:.4f} -> {best.fitness:.4f} in epoch {best.epoch}."
        return f"{word} {path} holds the result (quantized {name} {value:.4f}); next: yoloquant export model={path}"

    def to_plain(self) -> dict[str, Any]:
        """Plain data for checkpoints."""
        return {"scores": [plain(vars(s)) for s in self.scores], "ranges": plain(self.ranges)}

    def restore(self, data: dict[str, Any]) -> None:
        """Inverse of to_plain, in place."""
        self.scores = [EpochScores(**s) for s in data["scores"]]
        self.ranges = [dict(r) for r in data["ranges"]]

    def write(self, trainer: QATTrainer, artifact: Artifact) -> None:
        """Write plots of the run that this is the history of into its folder; what fails is logged, the run stands.

        Args:
            trainer: The trainer, at its end.
            artifact: Its best checkpoint.
        """
        # plots imports this module
        from .plots import run_of, write_plots

        try:
            write_plots(run_of(trainer, artifact), Path(trainer.save_dir))
        except (YoloquantError, RuntimeError, ValueError) as exc:
            logger.warning("plots of the run were not written: %s", exc)
