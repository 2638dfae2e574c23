"""Small YOLOs of every family and task, made of Ultralytics' own architectures, with outputs that depend on the input."""

from __future__ import annotations

import copy
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ["YOLO_AUTOINSTALL"] = "false"

import numpy as np

NAMES = ("cat", "dog", "bird")
TASK_SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
SCALE = [0.33, 0.125, 512]  # depth, width, most channels; attention blocks need at least one head of 64 channels
YAMLS = {
    "v5u": "models/v5/yolov5",
    "v8": "models/v8/yolov8",
    "v9": "models/v9/yolov9t",
    "v10": "models/v10/yolov10n",
    "11": "models/11/yolo11",
    "12": "models/12/yolo12",
    "26": "models/26/yolo26",
}


def architecture(family: str, task: str = "detect", nc: int = 3) -> dict[str, Any]:
    """The layers of a family, narrowed."""
    import ultralytics
    import yaml

    root = Path(ultralytics.__file__).parent / "cfg"
    content = yaml.safe_load((root / f"{YAMLS[family]}{TASK_SUFFIX[task]}.yaml").read_text())
    if "scales" in content:
        content["scales"] = {"n": SCALE}
        content["scale"] = "n"
    content["nc"] = nc
    if task == "pose":
        content["kpt_shape"] = [5, 3]
    return content


def tiny_module(family: str = "v8", task: str = "detect", nc: int = 3, seed: int = 0) -> Any:
    """A fresh copy of Ultralytics' model object, in eval mode."""
    return copy.deepcopy(_module(family, task, nc, seed))


@lru_cache(maxsize=32)
def _module(family: str, task: str, nc: int, seed: int) -> Any:
    import torch
    from ultralytics.nn import tasks

    kinds = {
        "detect": tasks.DetectionModel,
        "segment": tasks.SegmentationModel,
        "pose": tasks.PoseModel,
        "obb": tasks.OBBModel,
        "classify": tasks.ClassificationModel,
    }
    torch.manual_seed(seed)
    model = kinds[task](architecture(family, task, nc), ch=3, nc=nc, verbose=False)
    model.names = {i: NAMES[i] if i < len(NAMES) else f"class{i}" for i in range(nc)}
    model.task = task
    _settle(model)
    return model.eval()


def _settle(model: Any) -> None:
    """Take every BatchNorm's statistics from images, so that no activation dies or explodes."""
    import torch

    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
    model.train()
    with torch.no_grad():
        model(torch.from_numpy(np.concatenate(images(8, seed=99))))
    for norm in norms:
        norm.momentum = 0.03
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.3, 0.3)
    for parameter in model.parameters():  # the checkpoint's float16 then loses nothing
        parameter.data = parameter.data.half().float()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.half().float()


def images(count: int, *, seed: int = 0, imgsz: tuple[int, int] = (64, 64)) -> list[np.ndarray]:
    """Smooth coloured blobs, float32 (1, 3, height, width), 0 to 1."""
    import cv2

    rng = np.random.default_rng(seed)
    pictures = [cv2.resize(rng.random((6, 6, 3)), imgsz[::-1], interpolation=cv2.INTER_CUBIC) for _ in range(count)]
    return [np.ascontiguousarray(p.clip(0, 1).transpose(2, 0, 1)[None], np.float32) for p in pictures]


def checkpoint(path: Path, module: Any | None = None, **changes: Any) -> Path:
    """Write a checkpoint as Ultralytics' trainer does."""
    import torch

    module = tiny_module() if module is None else module
    content = {
        "epoch": -1,
        "model": None,
        "ema": copy.deepcopy(module).half(),
        "optimizer": None,
        "train_args": {"imgsz": 64, "task": module.task, "data": "set.yaml"},
        "version": "8.4.0",
        **changes,
    }
    torch.save({k: v for k, v in content.items() if v is not ...}, path)
    return path


def write_images(root: Path, *, train: int = 12, val: int = 6, size: tuple[int, int] = (48, 64), seed: int = 0) -> Path:
    """A labelled data set of blobs; returns its yaml."""
    import cv2

    for split, count, offset in (("train", train, 0), ("val", val, 1)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i, picture in enumerate(images(count, seed=seed + offset, imgsz=size)):
            pixels = (picture[0].transpose(1, 2, 0) * 255).astype(np.uint8)
            cv2.imwrite(str(root / "images" / split / f"{i:03d}.png"), pixels)
            lines = [f"{(i + j) % 3} {0.3 + 0.2 * j:.3f} 0.500 0.200 0.400" for j in range(1 + i % 3)]
            (root / "labels" / split / f"{i:03d}.txt").write_text("\n".join(lines) + "\n")
    yaml = root / "data.yaml"
    yaml.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [{', '.join(NAMES)}]\n")
    return yaml
