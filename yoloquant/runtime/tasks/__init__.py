"""Tasks: one file each says everything that differs between detectors, segmenters, pose models, OBB and classifiers."""

from __future__ import annotations

import importlib
from functools import lru_cache

from ..core.model_info import Task
from .base import TaskSpec

SPECS = {
    Task.DETECT: ".detect:Detect",
    Task.SEGMENT: ".segment:Segment",
    Task.POSE: ".pose:Pose",
    Task.OBB: ".obb:RotatedBoxes",
    Task.CLASSIFY: ".classify:Classify",
}
"""Where each task's rules are."""

__all__ = ["SPECS", "Task", "TaskSpec", "spec_of"]


# One object for each task, since they keep no state.
@lru_cache(maxsize=None)
def spec_of(task: Task) -> TaskSpec:
    """The rules of a task."""
    module, name = SPECS[Task(task)].split(":")
    spec: TaskSpec = getattr(importlib.import_module(module, __name__), name)()
    return spec
