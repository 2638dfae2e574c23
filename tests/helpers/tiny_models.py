"""Small YOLO models with random weights for tests: every family and task, made in about a second, downloaded never."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from yoloquant.graph.traced_model import TracedModel

os.environ.setdefault("YOLO_AUTOINSTALL", "false")

FAMILIES = ("yolov5", "yolov8", "yolov9t", "yolov10n", "yolo11", "yolo12", "yolo26")
RECENT = ("yolov8", "yolo11", "yolo26")
"""What most people deploy: tried at every change, the others by ``make nightly``."""
TASKS = ("detect", "segment", "pose", "obb", "classify")
_SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
_WIDTH = {"yolo12": 0.25}  # of the yaml's channels: what its attention needs; the others take half of the "n" size


def by_age(cases: Iterable[Any], recent: Iterable[str] = RECENT) -> list[Any]:
    """Parameters of a test, a family or a tuple that begins with one; others are for ``make nightly``."""
    import pytest

    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*v, marks=() if v[0].split()[0] in recent else pytest.mark.nightly) for v in values]


def tiny_yolo(family: str = "yolo11", task: str = "detect", nc: int = 3, seed: int = 0) -> Any:
    """Make a model whose output depends on its input.

    Args:
        family: One of FAMILIES.
        task: One of TASKS.
        nc: Number of classes; they are named ``thing 0``, ``thing 1`` ...
        seed: Of the weights and of the images that BatchNorm's statistics come from.

    Returns:
        An ``ultralytics.YOLO`` of the caller's own; the global random state is left as it was.
    """
    # a copy takes a fifth of the time
    return copy.deepcopy(_made(family, task, nc, seed))


@lru_cache(maxsize=16)
def _made(family: str, task: str, nc: int, seed: int) -> Any:
    import torch
    from ultralytics import YOLO

    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        model = YOLO(str(_write_yaml(Path(folder), family, task, nc)), task=task)
        _enliven(model.model)
    model.model.names = {i: f"thing {i}" for i in range(nc)}
    model.model.args = {"imgsz": 64, "task": task}
    return model


def tiny_checkpoint(folder: Path, family: str = "yolo11", task: str = "detect", **options: int) -> Path:
    """Save such a model as a ``.pt`` and return its path; options as in ``tiny_yolo``."""
    path = folder / f"tiny-{family}-{task}.pt"
    tiny_yolo(family, task, **options).save(str(path))
    return path


def _write_yaml(folder: Path, family: str, task: str, nc: int) -> Path:
    import ultralytics
    import yaml

    models = Path(ultralytics.__file__).parent / "cfg" / "models"
    source = next(models.rglob(f"{family}{_SUFFIX[task]}.yaml"))
    data = copy.deepcopy(yaml.safe_load(source.read_text(encoding="utf-8")))
    data["nc"] = nc
    if "scales" in data:
        depth, _, channels = data["scales"]["n"]
        data["scales"] = {"n": [depth, _WIDTH.get(family, 0.125), channels]}
    if task == "pose":
        data["kpt_shape"] = [5, 3]
    size = "n" if "scales" in data and family[-1].isdigit() else ""  # Ultralytics reads the scale from the file's name
    path = folder / f"{family}{size}{_SUFFIX[task]}.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def _enliven(module: Any) -> None:
    """Give BatchNorm the statistics of some images and the last convolutions biases that do not drown their input."""
    import torch
    from torch import nn

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.normal_(layer.bias, 0.0, 0.5)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    module.train()
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 0.5
        for _ in range(4):
            module(torch.rand(4, 3, 64, 64))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()


@lru_cache(maxsize=len(FAMILIES) * len(TASKS))
def tiny_traced(family: str = "yolo11", task: str = "detect") -> TracedModel:
    """The model at 64 pixels; tracing takes most of the time, and the graph is only read."""
    from yoloquant.bridge.checkpoint import load_model

    return TracedModel.of(load_model(tiny_yolo(family, task)), (64, 64))


def tiny_export_artifact(family: str = "yolo11", task: str = "detect", schemes: Any = ()) -> Any:
    """An ``Artifact`` of such a model at 64 pixels, with a calibrated plan for each scheme."""
    artifact = _calibrated(family, task, tuple(schemes))
    return replace(artifact, plans=dict(artifact.plans))


@lru_cache(maxsize=len(FAMILIES) * len(TASKS))
def _calibrated(family: str, task: str, schemes: tuple[Any, ...]) -> Any:
    from yoloquant.quantization.artifact import Artifact
    from yoloquant.quantization.calibrate import observe, solve_plan
    from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe
    from yoloquant.quantization.saturation import with_safe_weights
    from yoloquant.quantization.scheme import derive

    artifact = Artifact(tiny_traced(family, task), {})
    plans = [derive(artifact.graph, scheme) for scheme in schemes]
    seen = observe(artifact.graph, plans, tiny_images(8))
    recipe = CalibrationRecipe(*[Algorithm.MINMAX] * 5)
    solved = {plan.scheme: solve_plan(artifact.graph, plan, seen, recipe) for plan in plans}
    # as calibration does it: processors without VNNI would clamp
    clamping = [solved[s.name] for s in schemes if s.sums_in_16_bits]
    solved |= {p.scheme: p for p in with_safe_weights(artifact.graph, clamping, tiny_images(4))}
    return replace(artifact, plans=solved)


def tiny_images(count: int, seed: int = 0) -> list[Any]:
    """Blocks of colour with noise, float32 (1, 3, 64, 64), 0 to 1."""
    import numpy as np

    rng = np.random.default_rng(seed)
    blocks = [np.kron(rng.random((1, 3, 8, 8)), np.ones((1, 1, 8, 8))) for _ in range(count)]
    return [np.clip(b + rng.normal(0, 0.1, b.shape), 0, 1).astype(np.float32) for b in blocks]
