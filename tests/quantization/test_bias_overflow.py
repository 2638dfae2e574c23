"""Biases beside dead weights must fit into int32."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from yoloquant.graph.trace import Graph, trace  # noqa: E402
from yoloquant.quantization.bias_overflow import LIMIT, without_bias_overflow  # noqa: E402
from yoloquant.quantization.calibrate import observe, solve_plan  # noqa: E402
from yoloquant.quantization.plan import Plan  # noqa: E402
from yoloquant.quantization.scheme import PORTABLE, derive  # noqa: E402
from yoloquant.types import ModelInfo, Task  # noqa: E402


@pytest.fixture(scope="module")
def dead_channel() -> tuple[Graph, Plan]:
    """A network whose first convolution has one channel of almost zero weights beside a bias of -2."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.SiLU(), torch.nn.Conv2d(4, 2, 1)).eval()
    module[0].weight.data[1] *= 1e-10
    module[0].bias.data[1] = -2
    info = ModelInfo(Task.DETECT, ("a", "b"), (32, 32))
    graph = trace(module.requires_grad_(False), info)
    plan = derive(graph, PORTABLE)
    images = (np.random.default_rng(i).random((1, 3, 32, 32), dtype=np.float32) for i in range(8))
    return graph, solve_plan(graph, plan, observe(graph, [plan], images))


def _steps(graph: Graph, plan: Plan, bias: np.ndarray) -> np.ndarray:
    """The first convolution's bias in int32 steps."""
    source, weight = plan.activations[0].params, plan.weights[0].params
    assert source is not None
    assert weight is not None
    return np.abs(bias) / (source.scale.astype(np.float64) * weight.scale.astype(np.float64))


def test_dead_channel_gets_room_and_others_stay(dead_channel: tuple[Graph, Plan]) -> None:
    graph, plan = dead_channel
    bias = dict(graph.module.named_parameters())["0.bias"].detach().numpy()
    roomy = without_bias_overflow(graph, plan)
    assert (_steps(graph, roomy, bias) <= LIMIT * (1 + 1e-6)).all()
    before, after = plan.weights[0].params, roomy.weights[0].params
    assert before is not None
    assert after is not None
    others = [0, 2, 3]
    np.testing.assert_array_equal(after.scale[others], before.scale[others])
    assert after.scale[1] >= before.scale[1]
    assert roomy.activations == plan.activations


def test_a_bias_of_a_million_fits_too(dead_channel: tuple[Graph, Plan]) -> None:
    graph, plan = dead_channel
    bias = dict(graph.module.named_parameters())["0.bias"].detach().numpy()
    before = bias.copy()
    bias += np.array([0, -1e6, 0, 0], np.float32)  # in place: it is the graph's own
    try:
        assert (_steps(graph, without_bias_overflow(graph, plan), bias) <= LIMIT * (1 + 1e-6)).all()
    finally:
        bias[:] = before


def test_a_plan_with_room_stays_equal(dead_channel: tuple[Graph, Plan]) -> None:
    graph, plan = dead_channel
    roomy = without_bias_overflow(graph, plan)
    assert without_bias_overflow(graph, roomy) == roomy
