"""YOLO26's segment, pose and rotated heads, one-to-many and end-to-end, through every runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_heads import HEADS, small_artifact
from tiny_models import tiny_images

from yoloquant import targets
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.simulate import simulate
from yoloquant.runtime.core.detections import Selection
from yoloquant.runtime.tasks import spec_of
from yoloquant.targets.base import Target

TARGETS = ("onnxruntime", "openvino", "litert", "tensorrt", "edgetpu")
CASES = [("litert", task, True) for task in HEADS] + [("onnxruntime", "pose", True), ("openvino", "obb", True)]
"""At every change: LiteRT's decode is written anew, the others' is the traced one. The rest is for ``make nightly``."""
REST = [(n, t, e) for t in HEADS for e in (True, False) for n in TARGETS if (n, t, e) not in CASES]
APART = 2**0.5
"""How far integer kernels may be from the plan's simulation, in quantization errors; see ``test_targets.py``."""


def outputs(module: torch.nn.Module, image: np.ndarray) -> tuple[np.ndarray, ...]:
    with torch.inference_mode():
        found = module(torch.from_numpy(image))
    return tuple(value.numpy() for value in (found if isinstance(found, (tuple, list)) else (found,)))


def artifact_of(task: str, end2end: bool) -> Artifact:
    return small_artifact(task, end2end, tuple(targets.get(name).scheme for name in TARGETS))


def target_named(name: str) -> Target:
    target = targets.get(name)
    if target.missing():
        pytest.skip(f"target '{name}' needs {', '.join(target.missing())}, not installed here")
    return target


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head", "end2end"), [*CASES, *(pytest.param(*case, marks=pytest.mark.nightly) for case in REST)]
)
def test_exports_as_simulated(name: str, head: str, end2end: bool, tmp_path: Path) -> None:
    target, artifact = target_named(name), artifact_of(head, end2end)
    task = spec_of(artifact.info.task)
    plan, layout, image = artifact.plan_for(target.scheme), artifact.info.layout, tiny_images(1, seed=1)[0]
    exported = target.export(artifact, tmp_path, "small")
    found = target.read_scales(exported)
    assert {n: found[n][0].tolist() for n in plan.by_name} == {p.name: p.params.scale.tolist() for p in plan.points}
    runner = target.load(exported, threads=1)
    try:
        got = runner(image)
    finally:
        runner.close()
    wanted, exact = outputs(simulate(artifact.graph, plan), image), outputs(artifact.graph.module, image)
    assert [g.shape for g in got] == [w.shape for w in wanted]
    parts = [task.output_parts(tuple(o), layout, artifact.info) for o in (got, wanted, exact)]
    for part in parts[0]:
        mine, theirs, true = (p[part] for p in parts)
        error, gap = np.abs(theirs - true).mean(), np.abs(mine - theirs).mean()
        assert gap <= APART * error + 1e-5, f"{part}: off by {gap:.3g}, quantization by {error:.3g}"
    assert len(task.select(tuple(got), layout, artifact.info, Selection(conf=0.001))) > 0


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["onnxruntime", "litert"])
def test_a_float_file_of_an_end_to_end_head_is_the_model(name: str, head: str, tmp_path: Path) -> None:
    """Row by row, coefficients, keypoints and angles included."""
    target, artifact, image = target_named(name), artifact_of(head, True), tiny_images(1, seed=1)[0]
    runner = target.load(target.export_float(artifact, tmp_path, "small"), threads=1)
    try:
        got = runner(image)
    finally:
        runner.close()
    for mine, theirs in zip(got, outputs(artifact.graph.module, image), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3)
