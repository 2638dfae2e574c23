"""Biases of a classifier that put its layers' results back."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from core_models import family_graph, sample_images, tiny_graph
from torch import nn

from yoloquant.graph.trace import Graph, trace
from yoloquant.quantization import layer_shift
from yoloquant.quantization.calibrate import observe, solve_plan
from yoloquant.quantization.insert import copy_module
from yoloquant.quantization.layer_shift import affordable, fitted, is_shifted, layer_shifts, silu_slope
from yoloquant.quantization.plan import Plan, Role
from yoloquant.quantization.raw_heads import end_at_heads
from yoloquant.quantization.scheme import derive
from yoloquant.quantization.score_shift import with_note
from yoloquant.quantization.simulate import simulate
from yoloquant.targets import get
from yoloquant.types import ModelInfo, Task


def _image(seed: int) -> np.ndarray:
    """Patches of colour: neighbouring pixels are bright together, as in photographs."""
    generator = np.random.default_rng(seed)
    return np.kron(generator.random((1, 3, 4, 4)) * generator.random(), np.ones((8, 8))).astype(np.float32)


IMAGES = [_image(i) for i in range(16)]
OTHERS = [_image(100 + i) for i in range(16)]
INFO = ModelInfo(Task.CLASSIFY, ("a", "b", "c"), (32, 32))


class _Small(nn.Module):
    """Half of the first layer's channels hardly change, and decide the class; the second layer runs twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 3)
        self.act = nn.SiLU()
        with torch.no_grad():
            self.a.weight[:4].mul_(0.05)
            self.a.weight[4:].mul_(20)
            self.a.bias[:4] = torch.tensor([0.4, 0.7, 1.0, 1.3])
            self.b.weight.mul_(0.01).add_(torch.eye(8)[:, :, None, None])
            self.c.weight[:, :4].mul_(6)
            self.c.weight[:, 4:].mul_(0.05)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.b(self.act(self.b(self.act(self.a(x))))))
        return self.c(x.mean((2, 3), keepdim=True).flatten(1)).softmax(1)


@lru_cache
def small() -> Graph:
    return trace(_Small().eval(), INFO)


@lru_cache
def coarse(scheme: str = "tensorrt") -> Plan:
    """A plan whose activations have few steps, so that values of one channel are off together."""
    graph = small()
    derived = derive(graph, get(scheme).scheme)
    derived = derived.with_specs(lambda p: replace(p.spec, bits=5) if p.role is Role.ACTIVATION else p.spec)
    return solve_plan(graph, derived, observe(graph, [derived], IMAGES))


def logits(
    images: list[np.ndarray], plan: Plan | None = None, bias: dict[str, np.ndarray] | None = None
) -> torch.Tensor:
    graph = small()
    module = end_at_heads(graph, copy_module(graph) if plan is None else simulate(graph, plan, bias=bias))
    with torch.inference_mode():
        return torch.cat([module(torch.from_numpy(x))[0] for x in images])


def divergence(exact: torch.Tensor, got: torch.Tensor) -> float:
    p, q = exact.double().log_softmax(1), got.double().log_softmax(1)
    return float((p.exp() * (p - q)).sum(1).mean())


@pytest.mark.parametrize("scheme", ["tensorrt", "litert"])
def test_other_images_diverge_less(scheme: str) -> None:
    plan = coarse(scheme)
    shifts = layer_shifts(small(), [plan], IMAGES)[scheme]
    exact = logits(OTHERS)
    before, after = divergence(exact, logits(OTHERS, plan)), divergence(exact, logits(OTHERS, plan, shifts))
    assert after < 0.5 * before, (before, after)


def test_the_last_layer_s_mean_results_are_the_float_model_s() -> None:
    """Nothing lets these results through by more or less, and a simulation with all shifts is what was fitted on."""
    plan = coarse()
    shifts = layer_shifts(small(), [plan], IMAGES)["tensorrt"]
    exact = logits(IMAGES).mean(0)
    before, after = logits(IMAGES, plan).mean(0) - exact, logits(IMAGES, plan, shifts).mean(0) - exact
    assert float(before.abs().max()) > 1e-3
    # what the ridge leaves of the last layer's own share
    assert float(after.abs().max()) < 0.002 * float(np.abs(shifts["c"]).max()) + 1e-6


def test_a_layer_that_runs_twice_keeps_its_bias() -> None:
    shifts = layer_shifts(small(), [coarse()], IMAGES)["tensorrt"]
    assert sorted(shifts) == ["a", "c"]
    assert {name: (value.shape, value.dtype) for name, value in shifts.items()} == {
        "a": ((8,), np.dtype(np.float32)),
        "c": ((3,), np.dtype(np.float32)),
    }


def test_a_known_shift_is_found() -> None:
    exact = [torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    shift = torch.tensor([0.3, -0.2, 0.0, 1.0])
    found = fitted(exact, [x - shift[None, :, None, None] for x in exact], silu_slope, 1)
    assert torch.allclose(found, shift, rtol=0.01, atol=1e-6)


def test_results_that_the_activation_rules_out_do_not_count() -> None:
    """Large values are clipped by 1, and twice as many negative ones are right: a mean would raise all by a third."""
    exact = torch.cat([torch.full((1, 1, 10, 30), 6.0), torch.full((1, 1, 20, 30), -12.0)], 2)
    found = fitted([exact], [exact - (exact > 0).float()], silu_slope, 1)
    assert float(found) == pytest.approx(1.0, abs=0.01)
    assert float(fitted([exact], [exact - (exact > 0).float()], torch.ones_like, 1)) == pytest.approx(1 / 3, abs=0.01)


def test_a_channel_that_is_never_let_through_stays() -> None:
    exact = torch.cat([torch.full((1, 1, 4, 4), -80.0), torch.ones(1, 1, 4, 4)], 1)
    found = fitted([exact], [exact - 0.5], silu_slope, 1)
    assert float(found[0]) == pytest.approx(0.0, abs=1e-3) and float(found[1]) == pytest.approx(0.5, abs=0.01)


def test_the_slope_is_torch_s() -> None:
    x = torch.linspace(-8, 8, 33, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.nn.functional.silu(x).sum(), x)
    assert torch.allclose(silu_slope(x.detach()), slope)


def test_classifiers_alone_are_shifted_layer_by_layer() -> None:
    assert is_shifted(family_graph("yolo11", "classify"))
    assert not is_shifted(tiny_graph())


def test_large_activations_take_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = family_graph("yolo11", "classify")
    assert affordable(graph) == layer_shift.IMAGES
    monkeypatch.setattr(layer_shift, "LIMIT_BYTES", 1)
    assert affordable(graph) == layer_shift.LEAST_IMAGES


def test_a_real_classifier_with_attention_and_splits_is_shifted() -> None:
    graph = family_graph("yolo11", "classify")
    plans = [derive(graph, get(name).scheme) for name in ("litert", "openvino")]
    seen = observe(graph, plans, sample_images(8), gradients=2)
    solved = [solve_plan(graph, plan, seen) for plan in plans]
    calls: list[tuple[int, int]] = []
    found = layer_shifts(graph, solved, sample_images(8), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    biased = {name.removesuffix(".bias") for name, _ in graph.module.named_parameters() if name.endswith(".bias")}
    for plan in solved:
        assert set(found[plan.scheme]) == biased
        assert all(np.isfinite(value).all() for value in found[plan.scheme].values())
        assert f"the results of {len(biased)} layers are moved" in with_note(plan, found[plan.scheme]).notes[-1]
