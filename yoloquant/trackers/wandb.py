"""Weights & Biases: a run of its own, or the one that is active; project and mode from its own variables."""

from __future__ import annotations

import re
from typing import ClassVar

from .base import TrackedRun, Tracker

PROJECT = "Ultralytics"
"""Where Ultralytics puts runs without a project."""


class WeightsAndBiases(Tracker):
    """Configuration, metrics, pictures, and the files as an artifact."""

    title: ClassVar[str] = "Weights & Biases"
    setting: ClassVar[str] = "wandb"
    module: ClassVar[str] = "wandb"

    def log(self, run: TrackedRun) -> None:
        """See ``Tracker.log``."""
        import os

        import wandb

        # the run of somebody's own script is joined and left open
        own = wandb.run is None
        target = wandb.run or wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=f"{run.verb} {run.name}",
            job_type=run.verb,
            # its own files beside the results, instead of a folder ``wandb`` wherever the command ran
            dir=str(run.folder),
        )
        # until all is told, so that an error marks the run as failed
        code = 1
        try:
            # allow_val_change: a second validation in the same run has other parameters
            target.config.update({run.verb: dict(run.parameters)}, allow_val_change=True)
            # under a key of its own: W&B's own steps only rise, over all verbs of a run
            for step in sorted({step for values in run.series.values() for step, _ in values}):
                rows = {f"{run.verb}/{name}": dict(values).get(step) for name, values in run.series.items()}
                target.log({f"{run.verb}/step": step, **{k: v for k, v in rows.items() if v is not None}})
            figures = {f"{run.verb}/{name}": value for name, value in run.metrics.items()}
            target.log({**figures, **{path.stem: wandb.Image(str(path)) for path in run.pictures}})
            target.summary.update(figures)
            # 128 of the characters that W&B allows in a name
            artifact = wandb.Artifact(re.sub(r"[^\w\-.]", "_", f"{run.verb}-{run.name}")[:128], type="report")
            for path in run.files:
                artifact.add_file(str(path))
            target.log_artifact(artifact)
            code = 0
        finally:
            if own:
                wandb.finish(exit_code=code)
