"""Weights are rounded for their results: on inputs that are bright together, errors of one channel must cancel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_export_artifact, tiny_images
from torch import fx, nn

from yoloquant.quantization.calibrate import RESULT, observe, solve_plan
from yoloquant.quantization.observers import compute_weight_qparams
from yoloquant.quantization.qparams import QuantSpec, fake_quantize
from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe
from yoloquant.quantization.scheme import PORTABLE, derive
from yoloquant.quantization.weight_inputs import LARGEST, WeightInputs

SPEC = QuantSpec(symmetric=True, narrow_range=True, axis=0)


def test_a_scale_is_chosen_whose_errors_cancel() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (16, 3, 3, 3)).astype(np.float32)
    pixels = (rng.random((4096, 1)) + 0.05 * rng.normal(size=(4096, 27))).astype(np.float64)  # bright together
    moments = pixels.T @ pixels / len(pixels)

    def lost(params: object) -> np.ndarray:
        errors = (fake_quantize(weight, params, SPEC) - weight).reshape(16, 27)  # type: ignore[arg-type]
        return np.square(pixels @ errors.T).mean(0)

    plain, aware = (compute_weight_qparams(weight, SPEC, Algorithm.MSE, m) for m in (None, moments))
    assert (lost(aware) <= lost(plain)).all() and lost(aware).sum() < lost(plain).sum() / 10
    assert (aware.zero_point == 0).all() and aware.scale.dtype == np.float32


def test_moments_are_those_of_the_columns() -> None:
    artifact = tiny_export_artifact()
    graph = artifact.graph
    inputs, (image,) = WeightInputs(graph), tiny_images(1)
    point = "model.0.conv:weight"

    class Walk(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            inputs.add(n, self.map_nodes_to_values(n.args, n))  # type: ignore[arg-type]
            return super().run_node(n)

    with torch.inference_mode():
        Walk(graph.module).run(torch.from_numpy(image))
    found = inputs.moments[point]
    columns = nn.functional.unfold(torch.from_numpy(image), 3, padding=1, stride=2)[0].double().numpy()
    exact = columns @ columns.T / columns.shape[1]
    assert found.shape == (27, 27) and np.allclose(found, exact, atol=0.05)  # 128 of 1024 places
    sizes = {p: int(np.prod(graph.module.get_parameter(p.replace(":", ".")).shape[1:])) for p in inputs.moments}
    assert max(sizes.values()) <= LARGEST


@pytest.mark.parametrize("aware", [True, False])
def test_the_plan_says_which_weights_were_rounded_for_their_results(aware: bool) -> None:
    graph = tiny_export_artifact().graph
    plan = derive(graph, PORTABLE)
    recipe = CalibrationRecipe(output_aware=aware)
    solved = solve_plan(graph, plan, observe(graph, [plan], tiny_images(8), gradients=0), recipe)
    first = solved.by_name["model.0.conv:weight"]
    assert first.algorithm == (RESULT if aware else "mse")
    assert {p.algorithm for p in solved.weights} == ({RESULT, "mse"} if aware else {"mse"})
