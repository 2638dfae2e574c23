"""Small models with calibrated plans, small data sets of every task, and short runs on them."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from core_models import write_images
from tiny_models import tiny_checkpoint, tiny_images, tiny_yolo

from yoloquant.bridge.checkpoint import load_model
from yoloquant.graph.traced_model import TracedModel
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.calibrate import observe, solve_plan
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe
from yoloquant.quantization.scheme import derive
from yoloquant.targets.schemes import resolve_schemes

__all__ = ["calibrated_plans", "live", "planned", "raw_outputs", "run", "task_data", "tiny_checkpoint", "write_images"]

IMGSZ = (64, 64)


@lru_cache(maxsize=12)
def calibrated_plans(family: str, task: str = "detect") -> tuple[Artifact, dict[str, Plan]]:
    """A tiny model with random weights and BatchNorm statistics, and a calibrated plan of every scheme; read-only."""
    model = tiny_yolo(family, task)
    generator = torch.Generator().manual_seed(1)
    for norm in (m for m in model.model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.8, 1.6, generator=generator)
        norm.bias.data.normal_(0, 0.1, generator=generator)
    host = load_model(model)
    artifact = Artifact(TracedModel.of(host, IMGSZ), {})
    plans = [derive(artifact.graph, s) for s in resolve_schemes("auto")]
    seen = observe(artifact.graph, plans, tiny_images(8))
    recipe = CalibrationRecipe(*[Algorithm.MINMAX] * 5)
    return artifact, {p.scheme: solve_plan(artifact.graph, p, seen, recipe) for p in plans}


def planned(family: str = "yolo11", task: str = "detect", scheme: str = "portable") -> tuple[Artifact, Plan]:
    """The same with one of the plans."""
    artifact, plans = calibrated_plans(family, task)
    return artifact, plans[scheme]


def live(artifact: Artifact) -> Any:
    """A copy of its model that can be trained, in evaluation mode."""
    module: Any = copy.deepcopy(artifact.model.module).requires_grad_(True).eval()
    return module


def raw_outputs(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """Every tensor that a forward with raw head outputs returns, in order."""
    found: list[torch.Tensor] = []
    model.model[-1].training = True

    def walk(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict):
            for key in sorted(value):
                walk(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                walk(item)

    walk(model(images))
    return found


def task_data(root: Path, task: str, *, train: int = 8, val: int = 4) -> Path:
    """A data set of a task at 64 pixels; its yaml, or its folder for classification."""
    if task == "detect":
        return write_images(root, train=train, val=val)
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            pixels = (tiny_images(1, seed=int(rng.integers(1 << 30)))[0][0].transpose(1, 2, 0) * 255).astype(np.uint8)
            name = f"{split}{i:02d}"
            if task == "classify":
                folder = root / split / f"thing {i % 3}"
                folder.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / f"{name}.png"), pixels)
                continue
            for kind in ("images", "labels"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "images" / split / f"{name}.png"), pixels)
            (root / "labels" / split / f"{name}.txt").write_text(_LABELS[task].format(cls=i % 3) + "\n")
    if task == "classify":
        return root
    yaml = root / "data.yaml"
    extra = "kpt_shape: [5, 3]\nflip_idx: [0, 1, 2, 3, 4]\n" if task == "pose" else ""
    yaml.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n{extra}")
    return yaml


_LABELS = {
    "segment": "{cls} 0.3 0.3 0.7 0.3 0.7 0.7 0.3 0.7",
    "obb": "{cls} 0.3 0.4 0.6 0.3 0.7 0.6 0.4 0.7",
    "pose": "{cls} 0.5 0.5 0.4 0.4 " + " ".join(f"0.{4 + i % 3} 0.{4 + i % 2} 2" for i in range(5)),
}


def run(model: Any, data: Any, folder: Path, *, task: str = "detect", **arguments: Any) -> Any:
    """A trainer that has trained, in ``folder``; ``callbacks`` are added to it, ``train=False`` only makes it."""
    from yoloquant.training.qat.trainer import QATTrainer

    callbacks = arguments.pop("callbacks", {})
    train = arguments.pop("train", True)
    arguments.setdefault("qat", {"preset": "fast", "images": 8})
    common = {
        "model": str(model),
        "data": str(data),
        "task": task,
        "imgsz": 64,
        "batch": 4,
        "epochs": 1,
        "device": "cpu",
        "plots": False,
        "workers": 0,
        "project": str(folder),
        "name": "run",
        "exist_ok": True,
        "mode": "train",
    }
    if arguments.get("resume"):
        trainer = QATTrainer(
            overrides={"task": task, "mode": "train", **{k: v for k, v in arguments.items() if k != "qat"}}
        )
    else:
        trainer = QATTrainer(overrides={**common, **arguments})
    for event, callback in callbacks.items():
        trainer.add_callback(event, callback)
    if train:
        trainer.train()
    return trainer


def larger() -> Any:
    """The family's "s" size for three classes, with random weights."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    model = YOLO("yolo11n.yaml")
    torch.manual_seed(0)
    model.model = DetectionModel("yolo11s.yaml", nc=3, verbose=False).eval()
    return model
