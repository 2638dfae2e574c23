"""Importance is the squared gradient of what is read, and it decides where a range is spent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from core_models import sample_images, tiny_graph
from torch import nn

from yoloquant.graph.trace import trace
from yoloquant.quantization import importance
from yoloquant.quantization.calibrate import observe, solve_plan
from yoloquant.quantization.importance import weighted
from yoloquant.quantization.observers import Histogram
from yoloquant.quantization.scheme import PORTABLE, derive
from yoloquant.targets import get
from yoloquant.types import ModelInfo, Task

INFO = ModelInfo(Task.DETECT, ("a", "b"), (32, 32))
IMAGES = [np.random.default_rng(i).random((1, 3, 32, 32), np.float32) for i in range(8)]


class _Two(nn.Module):
    """Two layers whose Jacobian is known: probabilities of a linear map of the first layer's results."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x)).flatten(2).sigmoid()


def test_the_weights_are_squared_gradients_of_the_probabilities() -> None:
    module = _Two().eval()
    graph = trace(module, INFO)
    plan = derive(graph, get("tensorrt").scheme)
    seen = observe(graph, [plan], IMAGES, gradients=len(IMAGES))
    total = 0.0
    with torch.no_grad():
        for image in IMAGES:
            p = module.b(module.a(torch.from_numpy(image))).sigmoid()
            slope = p * (1 - p)  # (1, 2, height, width)
            # expectation over random signs: sum over outputs of (dp/dlogit * weight)^2
            total += float(torch.einsum("nohw,oi->", slope.square(), module.b.weight[:, :, 0, 0].square()))
    (name,) = [n for n in seen.importance if n.startswith("a:conv2d")]
    assert float(seen.importance[name].counts.sum()) == pytest.approx(total, rel=0.05)


def test_no_weight_or_no_gradients_is_the_plain_histogram() -> None:
    seen = Histogram()
    seen.update(torch.linspace(-1, 3, 100))
    assert weighted(seen, None, 0.1) is seen
    assert weighted(seen, Histogram(), 0.1) is seen


def test_the_uniform_share_keeps_what_gradients_do_not_ask_for() -> None:
    seen, matters = Histogram(), Histogram(counts=np.zeros_like(Histogram().counts, np.float64))
    values = torch.linspace(-1, 3, 1000)
    seen.update(values)
    matters.update(values, (values < 1).float() * 7)
    mixed = weighted(seen, matters, 0.25)
    assert mixed.counts.sum() == pytest.approx(matters.counts.sum())
    above = mixed.counts[mixed.centers > 1.01].sum() / mixed.counts.sum()
    assert above == pytest.approx(0.25 * 0.5, rel=0.03)
    assert (mixed.low, mixed.high) == (seen.low, seen.high)


def test_order_does_not_matter_and_no_state_is_left() -> None:
    plan = derive(tiny_graph(), PORTABLE)
    images = sample_images(8)
    before = torch.random.get_rng_state()
    first = solve_plan(tiny_graph(), plan, observe(tiny_graph(), [plan], images))
    second = solve_plan(tiny_graph(), plan, observe(tiny_graph(), [plan], images[::-1]))
    assert first.digest() == second.digest()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(p.grad is None for p in tiny_graph().module.parameters())


def test_networks_too_large_for_gradients_are_calibrated_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importance, "LIMIT_BYTES", 1000)
    plan = derive(tiny_graph(), PORTABLE)
    seen = observe(tiny_graph(), [plan], sample_images(8))
    assert not seen.importance and "do without" in caplog.text
    assert solve_plan(tiny_graph(), plan, seen).calibrated
