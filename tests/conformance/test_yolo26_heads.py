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
LEAST = 5e-4
"""Of scores: those of a random network hardly differ, and single steps decide. A wrong decode is off by tenths."""
Outputs = tuple[np.ndarray, ...]


def outputs(module: torch.nn.Module, images: list[np.ndarray]) -> list[Outputs]:
    with torch.inference_mode():
        found = [module(torch.from_numpy(image)) for image in images]
    return [tuple(v.numpy() for v in (f if isinstance(f, (tuple, list)) else (f,))) for f in found]


def further_apart(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """How far values behind the class are apart, and how far chance would have them; rows (n, 6 + values).

    Rows of almost equal scores change places, so each is held against the one with the nearest box.
    """
    nearest = np.abs(mine[:, None, :4] - theirs[None, :, :4]).sum(2).argmin(1)
    gap = np.abs(mine[:, 6:] - theirs[nearest, 6:])
    return float(np.median(gap)), float(np.median(np.abs(mine[:, 6:] - theirs[nearest[::-1], 6:])))


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
    plan, layout, images = artifact.plan_for(target.scheme), artifact.info.layout, tiny_images(4, seed=1)
    exported = target.export(artifact, tmp_path, "small")
    found = target.read_scales(exported)
    assert {n: found[n][0].tolist() for n in plan.by_name} == {p.name: p.params.scale.tolist() for p in plan.points}
    runner = target.load(exported, threads=1)
    try:
        got = [tuple(runner(image)) for image in images]
    finally:
        runner.close()
    wanted, exact = outputs(simulate(artifact.graph, plan), images), outputs(artifact.graph.module, images)
    assert [[v.shape for v in g] for g in got] == [[v.shape for v in w] for w in wanted]
    parts = [[task.output_parts(o, layout, artifact.info) for o in values] for values in (got, wanted, exact)]
    for part in parts[0][0]:
        mine, theirs, true = (np.stack([p[part] for p in values]) for values in parts)
        error, gap = np.abs(theirs - true).mean(), np.abs(mine - theirs).mean()
        assert gap <= APART * error + LEAST, f"{part}: off by {gap:.3g}, quantization by {error:.3g}"
    if end2end:
        apart = np.array([further_apart(g[0][0], w[0][0]) for g, w in zip(got, wanted, strict=True)]).mean(0)
        assert apart[0] < apart[1] / 3, f"off by {apart[0]:.3g}, rows at random by {apart[1]:.3g}"
    assert all(len(task.select(g, layout, artifact.info, Selection(conf=0.001))) > 0 for g in got)


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["onnxruntime", "litert"])
def test_a_float_file_of_an_end_to_end_head_is_the_model(name: str, head: str, tmp_path: Path) -> None:
    """Row by row, coefficients, keypoints and angles included."""
    target, artifact, (image,) = target_named(name), artifact_of(head, True), tiny_images(1, seed=1)
    runner = target.load(target.export_float(artifact, tmp_path, "small"), threads=1)
    try:
        got = runner(image)
    finally:
        runner.close()
    for mine, theirs in zip(got, outputs(artifact.graph.module, [image])[0], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3)
