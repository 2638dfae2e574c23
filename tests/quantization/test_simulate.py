"""The simulation of a plan in PyTorch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from core_models import sample_images, tiny_artifact, tiny_graph

from yoloquant.quantization.calibrate import observe, solve_plan
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.qparams import QParams, QuantSpec, fake_quantize, from_range
from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe
from yoloquant.quantization.scheme import PORTABLE, derive
from yoloquant.quantization.simulate import FixedFakeQuantize, simulate, with_rounded_weights

MINMAX = CalibrationRecipe(*[Algorithm.MINMAX] * 5)


def run(module: torch.nn.Module, seed: int = 3) -> np.ndarray:
    """Output for one image that was not calibrated on."""
    with torch.inference_mode():
        return module(torch.from_numpy(sample_images(1, seed=seed)[0])).numpy()


def with_bits(bits: int) -> Plan:
    """The portable plan at another width, its fixed points freed."""
    plan = derive(tiny_graph(), PORTABLE)
    freed = {"fixed": False, "params": None, "algorithm": ""}  # half range is of eight bits: 16-bit weights keep theirs
    points = [replace(p, spec=replace(p.spec, bits=bits, half_range=False), **freed) for p in plan.points]
    plan = replace(plan, points=tuple(points))
    images = sample_images(16) + sample_images(1, seed=3)
    return solve_plan(tiny_graph(), plan, observe(tiny_graph(), [plan], images), MINMAX)


def error(module: torch.nn.Module) -> float:
    """Mean error of boxes, in pixels."""
    return float(np.abs(run(module) - run(tiny_graph().module))[:, :4].mean())


def test_finer_grids_come_closer_to_float() -> None:
    errors = {bits: error(simulate(tiny_graph(), with_bits(bits))) for bits in (4, 8, 12, 16)}
    assert errors[4] > errors[8] > errors[12] > errors[16]
    assert errors[16] < 0.05 < errors[8], errors


@pytest.mark.parametrize("scheme", ["portable", "litert", "tensorrt", "openvino", "onnxruntime"])
def test_one_module_per_place(scheme: str) -> None:
    plan = tiny_artifact().plans[scheme]
    module = simulate(tiny_graph(), plan)
    made = [m for m in module.modules() if isinstance(m, FixedFakeQuantize)]
    assert len(made) == len(plan.weights) + sum(len(p.sites) for p in plan.activations)
    assert {m.point for m in made} == set(plan.by_name)
    for fake in made:
        params = plan.by_name[fake.point].params
        assert params is not None
        np.testing.assert_array_equal(fake.scale.numpy(), np.atleast_1d(params.scale))
        np.testing.assert_array_equal(fake.zero_point.numpy(), np.atleast_1d(params.zero_point))
    assert not np.array_equal(run(module), run(tiny_graph().module))


def test_values_lie_on_the_grid_of_their_point() -> None:
    graph, plan = tiny_graph(), tiny_artifact().plans["portable"]
    seen: dict[str, torch.Tensor] = {}
    module = simulate(graph, plan)
    for name, layer in module.named_modules():
        if isinstance(layer, FixedFakeQuantize):
            layer.register_forward_hook(lambda m, i, o, n=name: seen.setdefault(m.point, o))
    run(module)
    assert set(seen) == set(plan.by_name)
    for name, value in seen.items():
        point = plan.by_name[name]
        assert point.params is not None
        np.testing.assert_allclose(fake_quantize(value.numpy(), point.params, point.spec), value.numpy(), rtol=1e-6)


def test_a_bias_correction_shifts_the_result() -> None:
    graph, plan = tiny_graph(), tiny_artifact().plans["portable"]
    head = next(h for h in graph.heads if h.branch == "score")
    delta = np.full(3, 2.0, np.float32)
    before, after = run(simulate(graph, plan)), run(simulate(graph, plan, bias={head.module: delta}))
    assert (after[:, 4:] >= before[:, 4:]).all() and (after[:, 4:] > before[:, 4:]).any()
    np.testing.assert_array_equal(after[:, :4], before[:, :4])


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_fake_quantize_module(axis: int | None) -> None:
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    spec = QuantSpec(symmetric=axis is not None, axis=axis)
    amax = 1.0 if axis is None else np.linspace(0.5, 2, x.shape[axis])
    params = from_range(-amax, amax, spec)
    result = FixedFakeQuantize("p", params, spec)(x)
    np.testing.assert_allclose(result.numpy(), fake_quantize(x.numpy(), params, spec), rtol=1e-6, atol=1e-7)


def test_a_single_channel() -> None:
    spec = QuantSpec(symmetric=True, axis=0)
    params = QParams(np.array([0.5], np.float32), np.array([0], np.int32))
    assert FixedFakeQuantize("p", params, spec)(torch.tensor([[0.6, 100.0]])).tolist() == [[0.5, 63.5]]


def test_gradients_pass_through() -> None:
    module = simulate(tiny_graph(), tiny_artifact().plans["portable"])
    x = torch.from_numpy(sample_images(1)[0]).requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all()) and float(x.grad.abs().sum()) > 0


@pytest.mark.parametrize("scheme", ["portable", "tensorrt"])
def test_rounding_weights_once_changes_no_bit(scheme: str) -> None:
    plan = tiny_artifact().plans[scheme]
    plain, once = simulate(tiny_graph(), plan), with_rounded_weights(simulate(tiny_graph(), plan))
    np.testing.assert_array_equal(run(once), run(plain))
    left = {m.point for n, m in once.named_modules() if isinstance(m, FixedFakeQuantize) and n in _called(once)}
    assert left == {p.name for p in plan.activations}, "only activations are rounded in a forward pass"


def test_plans_that_compute_the_same_are_known_by_it() -> None:
    plans = tiny_artifact().plans
    # one of them also rounds what is only moved, to the range that it has already
    one, other = plans["litert"], plans["qnn"]
    assert one.computed == other.computed and [p.sites for p in one.points] != [p.sites for p in other.points]
    np.testing.assert_array_equal(run(simulate(tiny_graph(), one)), run(simulate(tiny_graph(), other)))
    for name in ("portable", "tensorrt", "openvino", "onnxruntime"):
        assert plans[name].computed != one.computed, name
    point = one.activations[1]
    assert point.params is not None
    wider = replace(point.params, scale=np.asarray(point.params.scale * 2, np.float32))
    assert one.with_params({point.name: wider}, "wider").computed != one.computed


def _called(module: torch.fx.GraphModule) -> set[str]:
    return {str(n.target) for n in module.graph.nodes if n.op == "call_module"}
