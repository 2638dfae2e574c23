"""Every integer operation computes what the simulation computes, to one step, when both are given the same operands.

Comparing outputs of whole networks cannot show that: a flip of one step grows from layer to layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from yoloquant.quantization.simulate import FixedFakeQuantize, simulate

if TYPE_CHECKING:
    from conftest import Tiny

    from yoloquant.types import ExportedModel

pytestmark = pytest.mark.slow
TOLERANCE = 1e-3  # of a step: float error of dequantized values


class Follower(fx.Interpreter):
    """Runs a simulation, but goes on from the file's value behind every point.

    Attributes:
        steps: Largest and mean distance of the two values, in steps, by point.
    """

    def __init__(self, module: fx.GraphModule, interpreter: Any, tensors: dict[str, int]) -> None:
        super().__init__(module)
        self.interpreter, self.tensors = interpreter, tensors
        self.steps: dict[str, tuple[float, float]] = {}

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        simulated = super().call_module(target, args, kwargs)
        module = self.module.get_submodule(target)
        if not isinstance(module, FixedFakeQuantize) or module.point.endswith(":weight"):
            return simulated
        integers = torch.from_numpy(self.interpreter.get_tensor(self.tensors[module.point])).float()
        found = _in_layout_of(simulated, (integers - module.zero_point) * module.scale)
        off = ((found - simulated) / module.scale).abs()
        self.steps[module.point] = float(off.max()), float(off.mean())
        return found


def _in_layout_of(reference: Tensor, values: Tensor) -> Tensor:
    """The file has convolutions as NHWC and attention in few dimensions; the image is not square, so shapes tell."""
    if values.dim() == 4 and values.shape != reference.shape:
        values = values.permute(0, 3, 1, 2)
    return values.reshape(reference.shape)


def _follow(tiny: Tiny, model: ExportedModel) -> dict[str, tuple[float, float]]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from yoloquant.targets.litert.metadata import read

    own, content = read(model.path)
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    image = tiny.image(20)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    follower = Follower(simulate(tiny.graph, tiny.plan), interpreter, own["tensors"])
    with torch.no_grad():
        follower.run(torch.from_numpy(image))
    return follower.steps


@pytest.mark.parametrize("kind", ["", "_end2end"])
def test_every_operation_is_within_one_step(kind: str, request: pytest.FixtureRequest) -> None:
    tiny, exported = request.getfixturevalue(f"tiny{kind}"), request.getfixturevalue(f"exported{kind}")
    steps = _follow(tiny, exported["litert"])
    assert set(steps) == {p.name for p in tiny.plan.activations}
    worst = max(steps, key=lambda name: steps[name])
    assert steps[worst][0] <= 1 + TOLERANCE, f"{worst} is {steps[worst][0]:.2f} steps off"
    often = {name: mean for name, (_, mean) in steps.items() if mean > 0.05}
    assert not often, f"more than 5 % of the results are rounded otherwise: {often}"


def test_whole_network_stays_closer_to_the_simulation_than_quantization_moves_it(
    exported: dict[str, ExportedModel], tiny: Tiny
) -> None:
    from yoloquant.targets.litert.target import LiteRTTarget

    simulated, runner = simulate(tiny.graph, tiny.plan), LiteRTTarget().load(exported["litert"], threads=1)
    differences, effects = [], []
    for seed in range(20, 24):
        image = torch.from_numpy(tiny.image(seed))
        with torch.inference_mode():
            reference, floating = simulated(image).numpy(), tiny.graph.module(image).numpy()
        result = runner(tiny.image(seed))[0]
        differences.append(np.abs(result - reference)[:, 4:].mean())
        effects.append(np.abs(floating - reference)[:, 4:].mean())
    assert np.mean(differences) < np.mean(effects) * 2**0.5
