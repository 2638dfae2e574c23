"""SQNR: equal to separate runs of the float and of the simulated graph, and as far apart as bits are."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from core_models import family_graph, sample_images, tiny_artifact
from torch import fx

from yoloquant.quantization.calibrate import observe, solve_plan, weight_of
from yoloquant.quantization.plan import Plan, PointKind
from yoloquant.quantization.scheme import PORTABLE, derive
from yoloquant.quantization.simulate import FixedFakeQuantize, simulate
from yoloquant.quantization.sqnr import Stage, activation_sqnr, sqnr_db, weight_sqnr

FAMILIES = ("two-level", "yolo11", "yolo11 classify")


def images(count: int = 3) -> list[np.ndarray]:
    return sample_images(count, seed=3)


def stage(family: str = "two-level", bits: int = 8) -> Stage:
    if family == "two-level":
        artifact = tiny_artifact()
        return Stage(artifact.graph, artifact.plans["portable"])
    graph = family_graph(*family.split())
    plan = derive(graph, PORTABLE).with_specs(lambda p: replace(p.spec, bits=bits))
    return Stage(graph, solve_plan(graph, plan, observe(graph, (plan,), sample_images(8, seed=1))))


class Values(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.__dict__.setdefault("found", {})[n.name] = result
        return result


def separate(of: Stage, batch: list[np.ndarray]) -> dict[str, float]:
    """By two runs one after the other, everything kept."""
    module = simulate(of.graph, of.plan)
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for image in batch:
        plain, quantized = Values(of.graph.module), Values(module)
        with torch.no_grad():
            plain.run(torch.from_numpy(image))
            quantized.run(torch.from_numpy(image))
        for node in module.graph.nodes:
            found = module.get_submodule(str(node.target)) if node.op == "call_module" else None
            if not isinstance(found, FixedFakeQuantize) or of.plan.by_name[found.point].kind is PointKind.WEIGHT:
                continue
            before = plain.__dict__["found"][node.args[0].name].double()
            after = quantized.__dict__["found"][node.name].double()
            signal[found.point] = signal.get(found.point, 0.0) + float((before**2).sum())
            noise[found.point] = noise.get(found.point, 0.0) + float(((before - after) ** 2).sum())
    return {n: 10 * float(np.log10(signal[n] / noise[n])) for n in signal if signal[n] > 0 and noise[n] > 0}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_equal_separate_runs(family: str) -> None:
    of = stage(family)
    found = activation_sqnr(of, images())
    assert found.keys() == separate(of, images()).keys() and len(found) > 5
    assert found == pytest.approx(separate(of, images()), abs=1e-9)


def test_the_reference_may_be_another_model_of_the_same_shape() -> None:
    """A reference 1.5 times as large is 1/3 of itself away."""
    of = stage()
    other = copy.copy(of.graph)
    other.module = copy.deepcopy(of.graph.module)
    assert activation_sqnr(of, images(1), other) == activation_sqnr(of, images(1))
    with torch.no_grad():
        for parameter in other.module.parameters():
            parameter.mul_(1.5)
    far = activation_sqnr(of, images(1), other)
    near = activation_sqnr(of, images(1))
    first = next(p.name for p in of.plan.activations if p.name.endswith("conv2d:0"))
    assert far[first] == pytest.approx(20 * np.log10(1.5 / 0.5), abs=0.5) and near[first] > far[first] + 10


def test_weights_equal_the_fake_quantized_weights_of_the_simulation() -> None:
    of = stage()
    module = simulate(of.graph, of.plan)
    found = weight_sqnr(of)
    assert len(found) == len(of.plan.weights)
    for quantizer in (m for m in module.modules() if isinstance(m, FixedFakeQuantize) and m.point in found):
        weight = torch.from_numpy(weight_of(of.graph, of.plan.by_name[quantizer.point]))
        noise = (quantizer(weight).double() - weight.double()).square().sum()
        assert found[quantizer.point] == pytest.approx(
            float(10 * torch.log10(weight.double().square().sum() / noise)), abs=1e-3
        )


def test_four_bits_fewer_cost_about_24_db() -> None:
    """Each bit halves the step: 6.02 dB."""
    wide, narrow = weight_sqnr(stage("yolo11", 8)), weight_sqnr(stage("yolo11", 4))
    drop = np.median([wide[name] - narrow[name] for name in wide.keys() & narrow.keys()])
    assert 20 < drop < 28


def test_the_graph_is_left_as_it_was() -> None:
    of = stage()
    before = {k: v.clone() for k, v in of.graph.module.state_dict().items()}
    nodes = [n.name for n in of.graph.module.graph.nodes]
    activation_sqnr(of, images(1))
    assert all(torch.equal(v, before[k]) for k, v in of.graph.module.state_dict().items())
    assert nodes == [n.name for n in of.graph.module.graph.nodes]


def test_a_plan_without_ranges_is_refused() -> None:
    graph = tiny_artifact().graph
    empty: Plan = derive(graph, PORTABLE)
    with pytest.raises(Exception, match="no range"):
        activation_sqnr(Stage(graph, empty), images(1))


@pytest.mark.parametrize(("signal", "noise", "expected"), [(1.0, 0.01, 20.0), (0.0, 1.0, None), (1.0, 0.0, None)])
def test_decibels(signal: float, noise: float, expected: float | None) -> None:
    assert sqnr_db(signal, noise) == (None if expected is None else pytest.approx(expected))
