"""A small detector with its graph, checkpoints and images, made once and shared by the tests of the core."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from conformance_models import IMGSZ, NAMES, calibrated, sample_images, tiny_host_model
from tiny_models import tiny_traced, tiny_yolo

from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.exportable import exportable
from yoloquant.bridge.host_model import HostModel, model_info
from yoloquant.graph.trace import Graph, trace
from yoloquant.quantization.artifact import Artifact

__all__ = [
    "IMGSZ", "NAMES", "checkpoint", "family_graph", "family_model", "sample_images", "tiny_artifact", "tiny_graph",
    "tiny_host", "write_images",
]  # fmt: skip


@lru_cache(maxsize=1)
def tiny_host() -> HostModel:
    """A two-level detector; treat it as read-only."""
    return tiny_host_model()


@lru_cache(maxsize=1)
def tiny_artifact() -> Artifact:
    """The same with a calibrated plan for every scheme."""
    return calibrated(tiny_host())


def tiny_graph() -> Graph:
    """Its graph at 64 pixels."""
    return tiny_artifact().graph


@lru_cache(maxsize=16)
def family_model(family: str, task: str = "detect", end2end: bool | None = None) -> HostModel:
    """A narrow model of one of Ultralytics' families."""
    module = tiny_yolo(family, task).model
    if end2end is not None:
        module.end2end = end2end
    return load_model(module)


@lru_cache(maxsize=16)
def family_graph(family: str, task: str = "detect", end2end: bool | None = None) -> Graph:
    """Its graph at 64 pixels."""
    if end2end is None:
        return tiny_traced(family, task).graph
    host = family_model(family, task, end2end)
    info = model_info(host, IMGSZ)
    return trace(exportable(host, info), info)


def checkpoint(path: Path, module: Any | None = None, **changes: Any) -> Path:
    """Write a checkpoint as Ultralytics' trainer does; a change to ``...`` leaves the key out."""
    import torch

    module = copy.deepcopy(tiny_host().module if module is None else module)
    content = {
        "epoch": -1,
        "model": None,
        "ema": module.half() if hasattr(module, "half") else module,
        "optimizer": None,
        "train_args": {"imgsz": 64, "task": "detect", "data": "set.yaml"},
        "version": "8.4.0",
        **changes,
    }
    torch.save({k: v for k, v in content.items() if v is not ...}, path)
    return path


def write_images(root: Path, *, train: int = 10, val: int = 5) -> Path:
    """A labelled data set of smooth blobs, no two alike; returns its yaml."""
    import cv2

    for split, count, seed in (("train", train, 10), ("val", val, 20)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i, picture in enumerate(sample_images(max(count, 1), seed=seed)[:count]):
            pixels = (picture[0].transpose(1, 2, 0) * 255).astype(np.uint8)[:48]
            cv2.imwrite(str(root / "images" / split / f"{i:03d}.png"), pixels)
            lines = [f"{(i + j) % 3} {0.3 + 0.2 * j:.3f} 0.500 0.200 0.400" for j in range(1 + i % 3)]
            (root / "labels" / split / f"{i:03d}.txt").write_text("\n".join(lines) + "\n")
    yaml = root / "data.yaml"
    names = ", ".join(NAMES.values())
    yaml.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [{names}]\n")
    return yaml
