"""A tiny quantized detector, converted once per variant."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from once import once

os.environ["YOLO_AUTOINSTALL"] = "false"
if TYPE_CHECKING:
    from yoloquant.graph.trace import Graph
    from yoloquant.graph.traced_model import TracedModel
    from yoloquant.quantization.artifact import Artifact
    from yoloquant.quantization.plan import Plan
    from yoloquant.types import ExportedModel

IMGSZ = (64, 96)
HEAD_WIDTH = 128  # channels of the attention block per attention head
CONFIG: dict[str, Any] = {
    "nc": 3,
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "C2f", [16, True]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "SPPF", ["width", 5]],
        [-1, 1, "C2PSA", ["width"]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 1, "C2f", [16]],
        [[8, 5], 1, "Detect", ["nc"]],
    ],
}


@dataclass
class Tiny:
    """A traced and calibrated tiny detector.

    Attributes:
        traced: The float model.
        plan: Its calibrated plan.
    """

    traced: TracedModel
    plan: Plan

    @property
    def graph(self) -> Graph:
        """Its canonical graph."""
        return self.traced.graph

    @property
    def host(self) -> Any:
        """The float model as Ultralytics holds it."""
        return self.traced.model

    def image(self, seed: int) -> np.ndarray:
        """A random image of whole 8-bit steps, NCHW, 0 to 1."""
        pixels = np.random.default_rng(seed).integers(0, 256, (1, 3, *IMGSZ))
        return (pixels / 255).astype(np.float32)

    def artifact(self, **changes: Any) -> Artifact:
        """What targets export."""
        from yoloquant.quantization.artifact import Artifact

        artifact = Artifact(self.traced, {"litert": self.plan})
        return replace(artifact, **changes) if changes else artifact


def _config(attention_heads: int) -> dict[str, Any]:
    width = HEAD_WIDTH * attention_heads
    layers = [[*layer[:3], [width if a == "width" else a for a in layer[3]]] for layer in CONFIG["backbone"]]
    return {**CONFIG, "backbone": layers}


def make_tiny(*, reg_max: int, end2end: bool, attention_heads: int) -> Tiny:
    import torch
    from ultralytics.nn.tasks import DetectionModel

    from yoloquant.bridge.checkpoint import load_model
    from yoloquant.graph.traced_model import TracedModel
    from yoloquant.quantization.calibrate import observe, solve_plan
    from yoloquant.quantization.scheme import derive
    from yoloquant.targets.litert.scheme import SCHEME

    torch.manual_seed(0)
    model = DetectionModel({**_config(attention_heads), "reg_max": reg_max, "end2end": end2end}, verbose=False)
    model.names = {0: "a", 1: "b", 2: "c"}
    model.task = "detect"
    model.model[-1].end2end = end2end
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # statistics that let every layer carry a signal
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_var.uniform_(0.1, 0.4)
    for branch in (*model.model[-1].cv2, *model.model[-1].cv3):
        branch[-1].weight.data.normal_(0, 0.3)
        branch[-1].bias.data.normal_(-1, 0.5)
    loaded = load_model(model)
    traced = TracedModel.of(loaded, IMGSZ)
    graph = traced.graph
    tiny = Tiny(traced, derive(graph, SCHEME))
    images = (tiny.image(seed) for seed in range(8))
    tiny.plan = solve_plan(graph, tiny.plan, observe(graph, [tiny.plan], images))
    return tiny


def export_both(tiny: Tiny, folder: Path) -> dict[str, ExportedModel]:
    """One file of each target; converting takes half a minute, so the fixtures below do it once."""
    from yoloquant.targets.edgetpu.target import EdgeTPUTarget
    from yoloquant.targets.litert.target import LiteRTTarget

    return {t.name: t().export(tiny.artifact(), folder, "tiny") for t in (LiteRTTarget, EdgeTPUTarget)}


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """A detector with a DFL head that needs NMS; its attention has one head, whose products lose their batch."""
    pytest.importorskip("litert_torch", reason="the litert extra is not installed")
    return make_tiny(reg_max=16, end2end=False, attention_heads=1)


@pytest.fixture(scope="session")
def tiny_end2end() -> Tiny:
    """A detector that regresses distances directly and selects its detections itself; two attention heads."""
    pytest.importorskip("litert_torch", reason="the litert extra is not installed")
    return make_tiny(reg_max=1, end2end=True, attention_heads=2)


@pytest.fixture(scope="session")
def exported(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportedModel]:
    """Both files of the first detector, by target."""
    return once(tmp_path_factory, "litert", lambda folder: export_both(tiny, folder))


@pytest.fixture(scope="session")
def exported_end2end(tiny_end2end: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportedModel]:
    """Both files of the second detector, by target."""
    return once(tmp_path_factory, "litert-end2end", lambda folder: export_both(tiny_end2end, folder))
