"""MLflow: a run of its own, or the active one; store, experiment and name from the variables that Ultralytics reads."""

from __future__ import annotations

import os
import re
from typing import ClassVar

from .base import TrackedRun, Tracker

EXPERIMENT = "/Shared/Ultralytics"
"""Where Ultralytics puts runs without a project."""
LONGEST = 500  # characters of a parameter that every store takes


class MLflow(Tracker):
    """Parameters, metrics and files."""

    title: ClassVar[str] = "MLflow"
    setting: ClassVar[str] = "mlflow"
    module: ClassVar[str] = "mlflow"

    def log(self, run: TrackedRun) -> None:
        """See ``Tracker.log``."""
        import mlflow

        # the run of somebody's own script is joined and left open
        own = mlflow.active_run() is None
        if own:
            # Ultralytics' variable, so that training and validation lie in one experiment
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
            mlflow.start_run(run_name=os.environ.get("MLFLOW_RUN") or f"{run.verb} {run.name}")
        # until all is told: a run that stays open would be shown as running for ever
        status = "FAILED"
        try:
            # with the verb in front: MLflow refuses a second value for a key, and one run may hold several verbs
            mlflow.log_params({_key(f"{run.verb}.{k}"): str(v)[:LONGEST] for k, v in run.parameters.items()})
            mlflow.log_metrics({_key(f"{run.verb}/{k}"): v for k, v in run.metrics.items()})
            for name, values in run.series.items():
                for step, value in values:
                    mlflow.log_metric(_key(f"{run.verb}/{name}"), value, step=step)
            for path in run.files:
                mlflow.log_artifact(str(path), run.verb)
            status = "FINISHED"
        finally:
            if own:
                mlflow.end_run(status)


def _key(name: str) -> str:
    """A name of the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", name)
