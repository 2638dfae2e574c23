"""Drop-in outputs of every task without a network."""

from __future__ import annotations

import numpy as np

from yoloquant.runtime.core.model_info import ModelInfo, Task

IMGSZ = (64, 96)
ANCHORS = sum((IMGSZ[0] // s) * (IMGSZ[1] // s) for s in (8, 16, 32))


def info_of(task: Task) -> ModelInfo:
    return ModelInfo(task, ("a", "b", "c"), IMGSZ, kpt_shape=(17, 3) if task is Task.POSE else None)


def outputs_of(task: Task, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Random drop-in outputs with some confident rows."""
    rng = np.random.default_rng(seed)
    if task is Task.CLASSIFY:
        return ((lambda p: (p / p.sum()).astype(np.float32))(rng.random((1, 3))),)
    boxes = np.stack([*rng.uniform(10, 60, (2, ANCHORS)), *rng.uniform(4, 40, (2, ANCHORS))])
    scores = rng.random((3, ANCHORS)) ** 6
    extra = {Task.SEGMENT: 4, Task.POSE: 51, Task.OBB: 1}.get(task, 0)
    values = rng.uniform(-0.7, 2.3, (extra, ANCHORS)) if task is Task.OBB else rng.normal(30, 20, (extra, ANCHORS))
    if task is Task.SEGMENT:
        values = rng.normal(0, 1, (extra, ANCHORS))
    decoded = np.concatenate([boxes, scores, values])[None].astype(np.float32)
    prototypes = rng.normal(0, 1, (1, 4, 16, 24)).astype(np.float32)
    return (decoded, prototypes) if task is Task.SEGMENT else (decoded,)
