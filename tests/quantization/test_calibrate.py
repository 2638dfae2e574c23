"""Calibration: one pass, the same result in any order, and clear errors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from core_models import sample_images, tiny_artifact, tiny_graph
from torch import nn

from yoloquant.errors import CalibrationError
from yoloquant.graph.trace import trace
from yoloquant.quantization.calibrate import MIN_IMAGES, RESULT, Solver, observe, solve_plan, weight_of
from yoloquant.quantization.plan import Role
from yoloquant.quantization.qparams import QParams
from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe
from yoloquant.quantization.scheme import PORTABLE, derive
from yoloquant.targets import get
from yoloquant.types import ModelInfo, Task

IMAGES = sample_images(MIN_IMAGES)
PLAN = derive(tiny_graph(), PORTABLE)


def test_deterministic_and_independent_of_the_order() -> None:
    first = solve_plan(tiny_graph(), PLAN, observe(tiny_graph(), [PLAN], IMAGES))
    again = solve_plan(tiny_graph(), PLAN, observe(tiny_graph(), [PLAN], IMAGES))
    shuffled = solve_plan(tiny_graph(), PLAN, observe(tiny_graph(), [PLAN], IMAGES[::-1]))
    assert first.digest() == again.digest() == shuffled.digest() and first.calibrated


def test_one_pass_serves_many_plans() -> None:
    litert = derive(tiny_graph(), get("litert").scheme)
    together = observe(tiny_graph(), [PLAN, litert], iter(IMAGES))
    solver = Solver(together)
    alone = solve_plan(tiny_graph(), litert, observe(tiny_graph(), [litert], IMAGES))
    assert solve_plan(tiny_graph(), litert, together, solver=solver) == alone
    assert solve_plan(tiny_graph(), PLAN, together, solver=solver) == solve_plan(tiny_graph(), PLAN, together)


def test_observations_hold_what_the_graph_computes() -> None:
    seen = observe(tiny_graph(), [PLAN], IMAGES)
    assert seen.images == len(IMAGES)
    assert set(seen.histograms) == {p.name for p in PLAN.activations if not p.fixed}
    stack = np.concatenate(IMAGES)
    assert (seen.histograms["images"].low, seen.histograms["images"].high) == (stack.min(), stack.max())
    first = next(o for o in tiny_graph().ops.values() if o.name.startswith("model.0.conv:conv2d"))
    weight, bias = (tiny_graph().module.get_parameter(f"model.0.conv.{n}") for n in ("weight", "bias"))
    with torch.no_grad():
        values = torch.nn.functional.conv2d(torch.from_numpy(stack), weight, bias, stride=2, padding=1)
    hist = seen.histograms[first.name]
    assert hist.counts.sum() == values.numel()
    assert hist.high == pytest.approx(float(values.max()), rel=1e-5)


def test_progress_and_streaming() -> None:
    calls: list[int] = []
    alive = 0

    def stream() -> object:
        nonlocal alive
        for image in IMAGES:
            alive += 1
            yield image

    observe(tiny_graph(), [PLAN], stream(), progress=lambda done, what: calls.append(done - alive))  # type: ignore[arg-type]
    assert calls == [0] * len(IMAGES), "each image is used before the next is read"


@pytest.mark.parametrize("count", [0, 1, MIN_IMAGES - 1])
def test_too_few_images(count: int) -> None:
    with pytest.raises(CalibrationError, match=f"got {count} images; at least {MIN_IMAGES}"):
        observe(tiny_graph(), [PLAN], IMAGES[:count])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_values_name_the_layer(value: float) -> None:
    image = IMAGES[0].copy()
    image[0, 0, 0, 0] = value
    with pytest.raises(CalibrationError, match="NaN or infinite values at images"):
        observe(tiny_graph(), [PLAN], [image])


class _Exploding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


def test_an_exploding_layer_is_named() -> None:
    module = _Exploding().eval()
    with torch.no_grad():
        module.b.weight.fill_(3e38)
        module.a.weight.fill_(100)
    graph = trace(module, ModelInfo(Task.DETECT, ("a",), (32, 32)))
    images = [np.ones((1, 3, 32, 32), np.float32)] * 8
    with pytest.raises(CalibrationError, match="values at b:conv2d:0"):
        observe(graph, [derive(graph, PORTABLE)], images)


def test_constant_activations_are_warned_about_and_exact(caplog: pytest.LogCaptureFixture) -> None:
    module = _Exploding().eval()
    with torch.no_grad():
        module.a.weight.fill_(0)
        module.a.bias.fill_(0.75)
    graph = trace(module, ModelInfo(Task.DETECT, ("a",), (32, 32)))
    plan = derive(graph, PORTABLE)
    images = [np.random.default_rng(i).random((1, 3, 32, 32), np.float32) for i in range(8)]
    solved = solve_plan(graph, plan, observe(graph, [plan], images))
    assert "constant" in caplog.text and "a:conv2d:0" in caplog.text
    point = solved.by_name["a:conv2d:0"]
    assert point.params is not None and float(point.params.range(point.spec)[1]) == pytest.approx(0.75)


def test_existing_ranges_are_kept_unless_told_otherwise() -> None:
    seen = observe(tiny_graph(), [PLAN], IMAGES)
    learned = QParams(np.float32(0.123), np.int32(0))  # type: ignore[arg-type]
    tied = next(members for members in PLAN.groups().values() if len(members) > 2)
    start = PLAN.with_params({"images": learned, tied[1].name: learned}, "learned")
    kept = solve_plan(tiny_graph(), start, seen)
    assert kept.by_name["images"].params == learned and kept.by_name["images"].algorithm == "learned"
    assert {kept.by_name[m.name].params.scale.item() for m in tied} == {np.float32(0.123).item()}  # type: ignore[union-attr]
    assert kept.by_name[tied[0].name].algorithm == "tied"
    anew = solve_plan(tiny_graph(), start, seen, keep=False)
    assert anew == solve_plan(tiny_graph(), PLAN, seen)
    fixed = [p for p in PLAN.points if p.fixed]
    assert fixed and all(anew.by_name[p.name].params == p.params for p in fixed)


def test_the_recipe_decides_per_kind() -> None:
    recipe = CalibrationRecipe(
        Algorithm.PERCENTILE, Algorithm.MSE, Algorithm.MINMAX, Algorithm.ENTROPY, Algorithm.MINMAX, output_aware=False
    )
    solved = solve_plan(tiny_graph(), PLAN, observe(tiny_graph(), [PLAN], IMAGES), recipe)
    for point in solved.points:
        if point.fixed:
            assert point.algorithm == "fixed"
        elif point.tie:
            assert point.algorithm == "percentile"
        else:
            assert point.algorithm == recipe.algorithm(point.role).value
    roles = {p.role for p in solved.points}
    assert {Role.SCORE, Role.HEAD, Role.PRE_ACTIVATION, Role.WEIGHT} <= roles


def test_tied_points_cover_all_their_members() -> None:
    recipe = CalibrationRecipe(activation=Algorithm.MINMAX)
    seen = observe(tiny_graph(), [PLAN], IMAGES)
    solved = solve_plan(tiny_graph(), PLAN, seen, recipe)
    for members in (m for m in solved.groups().values() if len(m) > 1):
        params = members[0].params
        assert params is not None and all(m.params == params for m in members)
        low, high = params.range(members[0].spec)
        assert low <= min(seen.histograms[m.name].low for m in members) + params.scale
        assert high >= max(seen.histograms[m.name].high for m in members) - params.scale * 1e-3


def test_unobserved_points_are_an_error() -> None:
    seen = observe(tiny_graph(), [replace(PLAN, points=PLAN.points[:1])], IMAGES)
    with pytest.raises(CalibrationError, match="was not observed"):
        solve_plan(tiny_graph(), PLAN, seen)


@pytest.mark.parametrize("aware", [False, True])
def test_weights_are_those_of_the_graph(aware: bool) -> None:
    seen = replace(observe(tiny_graph(), [PLAN], IMAGES), moments={})
    plain = solve_plan(tiny_graph(), PLAN, seen)
    for point in PLAN.weights:
        weight = weight_of(tiny_graph(), point)
        solved = (tiny_artifact().plans["portable"] if aware else plain).by_name[point.name]
        assert solved.params is not None and solved.params.scale.shape == (weight.shape[0],)
        amax = np.abs(weight).reshape(len(weight), -1).max(1)
        wider = 2 if solved.spec.safe_pairs else 1  # two equal weights side by side double the scale
        if solved.algorithm == RESULT:
            assert aware, "without moments no weight is rounded for its results"
            wider *= 1.2  # where errors cancel best may lie a little beyond the largest weight
        assert (solved.params.scale * solved.spec.qmax <= wider * amax * (1 + 1e-6) + 1e-30).all()
