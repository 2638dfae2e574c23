"""Coordinates and visibilities of keypoints have ranges of their own wherever a head's raw result is quantized."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from conformance_models import IMGSZ, LAYERS, NAMES, sample_images

from yoloquant.bridge.checkpoint import load_model
from yoloquant.graph.trace import Graph
from yoloquant.graph.traced_model import TracedModel
from yoloquant.quantization.calibrate import Observations, observe, solve_plan
from yoloquant.quantization.keypoint_ranges import COORDINATES, VISIBILITY, mixed_heads, part_name
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe
from yoloquant.quantization.scheme import PORTABLE, derive
from yoloquant.quantization.simulate import simulate
from yoloquant.targets import get

COUNT = 3


@lru_cache(maxsize=2)
def pose_graph(numbers: int = 3) -> Graph:
    """A two-level pose model whose visibilities reach many times as far as its coordinates."""
    from ultralytics.nn.tasks import PoseModel

    torch.manual_seed(0)
    head = [*LAYERS["head"][:-1], [[9, 6], 1, "Pose", ["nc", "kpt_shape"]]]
    model = PoseModel({"nc": len(NAMES), "kpt_shape": [COUNT, numbers], **LAYERS, "head": head}, verbose=False)
    model.names = dict(NAMES)
    for level in model.model[-1].cv4 if numbers == 3 else ():
        with torch.no_grad():
            level[-1].bias[2::3] = torch.tensor([8.0, -8.0, 8.0])
    return TracedModel.of(load_model(model.eval()), IMGSZ).graph


@lru_cache(maxsize=1)
def seen() -> tuple[Plan, Observations]:
    plan = derive(pose_graph(), get("litert").scheme)
    return plan, observe(pose_graph(), [plan], sample_images(8), gradients=2)


def test_channels_of_a_head() -> None:
    heads = mixed_heads(pose_graph())
    assert len(heads) == 2 and all(pose_graph().ops[name].branch == "keypoint" for name in heads)
    for parts in heads.values():
        assert parts == {COORDINATES: (0, 1, 3, 4, 6, 7), VISIBILITY: (2, 5, 8)}


def test_keypoints_without_visibility_share_one_range() -> None:
    assert mixed_heads(pose_graph(2)) == {}
    assert all(p.spec.axis is None for p in derive(pose_graph(2), PORTABLE).activations)


@pytest.mark.parametrize("algorithm", [Algorithm.MSE, Algorithm.MINMAX])
def test_each_part_has_the_range_of_its_own_values(algorithm: Algorithm) -> None:
    plan, observations = seen()
    found = solve_plan(pose_graph(), plan, observations, CalibrationRecipe(*[algorithm] * 5))
    for name, parts in mixed_heads(pose_graph()).items():
        point = found.by_name[name]
        assert point.spec.axis == 1 and point.algorithm == algorithm.value
        low, high = point.params.range(point.spec)
        for part, channels in parts.items():
            values = observations.histograms[part_name(name, part)]
            rows = list(channels)
            assert len(set(point.params.scale[rows])) == len(set(point.params.zero_point[rows])) == 1
            step = point.params.scale[rows[0]]
            assert low[rows[0]] > min(values.low, 0) - 2 * step and high[rows[0]] < max(values.high, 0) + 2 * step
        wide, fine = (point.params.scale[parts[p][0]] for p in (VISIBILITY, COORDINATES))
        assert wide > 3 * fine, "the coordinates took the range of the visibilities"
    assert Plan.from_json(found.to_json()) == found
    assert "one range for coordinates, another for visibility" in str(found)


def test_the_simulation_rounds_each_part_by_its_own_step() -> None:
    plan, observations = seen()
    found = solve_plan(pose_graph(), plan, observations)
    name, parts = next(iter(mixed_heads(pose_graph()).items()))
    alone = Plan(found.scheme, found.imgsz, tuple(p for p in found.points if p.name == name))
    simulated = simulate(pose_graph(), alone)
    node = pose_graph().node(name, simulated)
    (quantized,) = (u for u in node.users if u.op == "call_module")
    x = torch.linspace(-9, 9, 9 * 64).reshape(1, 9, 8, 8)
    got = simulated.get_submodule(str(quantized.target))(x).numpy()
    params = found.by_name[name].params
    for channels in parts.values():
        for c in channels:
            steps = got[0, c] / params.scale[c]
            assert np.abs(steps - np.round(steps)).max() < 1e-3
            assert np.round(steps).min() >= -128 - params.zero_point[c]
            assert np.round(steps).max() <= 127 - params.zero_point[c]


def test_no_observation_of_a_part_enters_the_audit() -> None:
    """Its fingerprint is held against those of other images, made with or without such parts."""
    _, observations = seen()
    assert observations.statistics is not None and observations.parts
    names = set(observations.histograms) - {part for parts in observations.parts.values() for part in parts}
    assert set(observations.statistics.points) == names


def test_onnxruntime_leaves_these_results_in_float() -> None:
    """A tensor has one scale there."""
    plan = derive(pose_graph(), get("onnxruntime").scheme)
    heads = set(mixed_heads(pose_graph()))
    assert heads and not heads & set(plan.by_name)
    others = {op.name for op in pose_graph().heads} - heads
    assert others and others <= set(plan.by_name)
