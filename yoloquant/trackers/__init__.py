"""Experiment trackers, one file each: what validations, studies and one-shot pruning tell them.

Training tells them through Ultralytics' own callbacks. Which ones are told is what Ultralytics' settings say.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from pathlib import Path

from .base import TrackedRun, Tracker

__all__ = ["TrackedRun", "Tracker", "track"]

logger = logging.getLogger(__name__)

TRACKERS = (".tensorboard:TensorBoard", ".mlflow:MLflow", ".wandb:WeightsAndBiases")
"""Where each tracker is."""


def track(run: TrackedRun) -> tuple[str, ...]:
    """Tell every tracker that is enabled and installed; a tracker that fails costs a warning, never the run.

    Args:
        run: What was done.

    Returns:
        Titles of the trackers that were told.
    """
    told = []
    for place in TRACKERS:
        module, name = place.split(":")
        # all of them, since none imports its package before it is told
        tracker: Tracker = getattr(importlib.import_module(module, __name__), name)()
        if not _enabled(tracker):
            continue
        try:
            # after the run's own files are written: a server that hangs costs no result
            tracker.log(_with_files(run))
            told.append(tracker.title)
            logger.info("told %s", tracker.title)
        except Exception as exc:  # servers and their clients raise anything
            logger.warning("%s was not told of this run: %s", tracker.title, exc)
    return tuple(told)


def _enabled(tracker: Tracker) -> bool:
    from ..bridge.installed import settings

    # "is True" and installed: what Ultralytics' own callbacks ask for; find_spec imports nothing
    return settings().get(tracker.setting) is True and importlib.util.find_spec(tracker.module) is not None


def _with_files(run: TrackedRun) -> TrackedRun:
    """The run with the files that are there."""
    from dataclasses import replace

    return replace(run, files=tuple(path for path in map(Path, run.files) if path.is_file()))
