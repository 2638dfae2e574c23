"""Ranges in front of a head's last layer: the known optimum is found, whatever channels are called and families do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from core_models import family_graph, sample_images, tiny_graph
from torch import nn

from yoloquant.graph.trace import Graph, trace
from yoloquant.quantization.calibrate import Observations, observe, solve_plan
from yoloquant.quantization.head_ranges import ALGORITHM
from yoloquant.quantization.plan import Plan, Role
from yoloquant.quantization.qparams import QParams, fake_quantize
from yoloquant.quantization.range_options import CalibrationRecipe
from yoloquant.quantization.scheme import PORTABLE, derive
from yoloquant.targets import get
from yoloquant.types import ModelInfo, Task

PLAIN = CalibrationRecipe(output_aware=False)
OUTLIER = 100.0


class _Scores(nn.Module):
    """ReLU features, one of which reaches far and is not read; then class logits and boxes.

    Args:
        order: Permutation of the eight feature channels.
        reads: Weight of the far channel in the class logits.
    """

    def __init__(self, order: list[int] | None = None, reads: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        self.features, self.logits, self.boxes = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), nn.Conv2d(3, 4, 1)
        order = order or list(range(8))
        with torch.no_grad():
            weight, bias, out = draw(8, 3, 1, 1), draw(8), draw(3, 8, 1, 1)
            weight[7] = OUTLIER
            out[:, 7] = reads
            self.features.weight.copy_(weight[order])
            self.features.bias.copy_(bias[order])
            self.logits.weight.copy_(out[:, order])
            self.logits.bias.fill_(0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.features(x).relu()
        return torch.cat((self.boxes(x).flatten(2), self.logits(features).flatten(2).sigmoid()), 1)


POINT = "features:relu:0"
INFO = ModelInfo(Task.DETECT, ("a", "b", "c"), (32, 32))
IMAGES = [np.random.default_rng(i).random((1, 3, 32, 32), np.float32) for i in range(8)]


def solved(module: nn.Module, recipe: CalibrationRecipe | None = None) -> tuple[Graph, Plan]:
    name = next(n for n, _ in module.named_children())
    assert name == "features"
    graph = trace(module.eval(), INFO)
    plan = derive(graph, get("tensorrt").scheme)
    return graph, solve_plan(graph, plan, observe(graph, [plan], IMAGES), recipe)


def point_of(plan: Plan, graph: Graph) -> tuple[float, str]:
    head = next(op for op in graph.heads if op.module == "logits")
    point = plan.by_name[head.inputs[0]]
    assert point.params is not None
    return float(point.params.range(point.spec)[1]), point.algorithm


def test_a_channel_that_is_not_read_takes_no_range() -> None:
    graph, plan = solved(_Scores())
    high, algorithm = point_of(plan, graph)
    assert algorithm == ALGORITHM and high < OUTLIER / 4
    plain, _ = point_of(solved(_Scores(), PLAIN)[1], graph)
    assert plain > OUTLIER, "the squared error of the values cannot know that"


def test_a_channel_that_decides_keeps_its_range() -> None:
    """Logits of the far channel between -0.3 and +0.3: cutting it would be seen, so the range stays."""
    graph, plan = solved(_Scores(reads=0.001))
    wide, _ = point_of(plan, graph)
    narrow, _ = point_of(solved(_Scores())[1], graph)
    assert wide > 2 * narrow


def test_the_range_is_the_best_of_a_fine_grid() -> None:
    module = _Scores()
    graph, plan = solved(module)
    high, _ = point_of(plan, graph)
    point = plan.by_name[next(op for op in graph.heads if op.module == "logits").inputs[0]]
    with torch.no_grad():
        features = module.features(torch.from_numpy(np.concatenate(IMAGES))).relu()
        truth = module.logits(features).sigmoid()

        def loss(top: float) -> float:
            params = QParams(np.float32(top / 127), np.int32(0))  # type: ignore[arg-type]
            cut = torch.from_numpy(fake_quantize(features.numpy(), params, point.spec))
            return float((module.logits(cut).sigmoid() - truth).square().sum())

        best = min(loss(float(top)) for top in np.geomspace(0.5, 3 * OUTLIER, 400))
        assert loss(high) <= best * 1.1 + 1e-9  # the search sees 128 anchors an image, the grid all of them


@pytest.mark.parametrize("seed", [0, 1])
def test_permuting_channels_changes_nothing(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(8).tolist()
    graph, plan = solved(_Scores())
    again, permuted = solved(_Scores(order))
    assert point_of(permuted, again)[0] == pytest.approx(point_of(plan, graph)[0], rel=1e-4)
    for mine, theirs in zip(plan.activations, permuted.activations, strict=True):
        assert mine.params is not None and theirs.params is not None
        assert float(theirs.params.scale) == pytest.approx(float(mine.params.scale), rel=1e-4)


def test_the_pre_activation_in_front_follows() -> None:
    plan = derive(tiny_graph(), get("litert").scheme)
    found = solve_plan(tiny_graph(), plan, observe(tiny_graph(), [plan], sample_images(8)))
    aware = [p for p in found.activations if p.algorithm == ALGORITHM]
    assert {Role.PRE_ACTIVATION, Role.ACTIVATION} <= {p.role for p in aware}
    assert Plan.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("family", "task", "end2end"),
    [("yolov8", "segment", None), ("yolo11", "obb", None), ("yolov10n", "detect", True), ("yolo26", "pose", True),
     ("yolo12", "detect", None), ("yolo11", "classify", None)],
)  # fmt: skip
def test_every_family_is_solved(family: str, task: str, end2end: bool | None) -> None:
    graph = family_graph(family, task, end2end)
    plans = [derive(graph, scheme) for scheme in (PORTABLE, get("tensorrt").scheme)]
    seen = observe(graph, plans, sample_images(8), gradients=2)
    for plan in plans:
        found = solve_plan(graph, plan, seen)
        assert found.calibrated
        aware = {p.name for p in found.activations if p.algorithm == ALGORITHM}
        read = {op.inputs[0] for op in graph.heads if not found.by_name[graph.root(op.inputs[0])].tie}
        assert {name for name in read if name in found.by_name} <= aware


def test_without_gradients_or_heads_there_are_still_ranges() -> None:
    plan = derive(tiny_graph(), PORTABLE)
    seen = observe(tiny_graph(), [plan], sample_images(8), gradients=0)
    assert not seen.importance
    bare = Observations(seen.histograms, seen.images)
    assert solve_plan(tiny_graph(), plan, bare) == solve_plan(tiny_graph(), plan, bare, PLAIN)
    assert solve_plan(tiny_graph(), plan, seen) != solve_plan(tiny_graph(), plan, seen, replace(PLAIN))
