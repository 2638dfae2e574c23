"""Every target exports every task: scales bit by bit, outputs as simulated, a file that plain Ultralytics loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_export_artifact, tiny_images

from yoloquant import targets
from yoloquant.errors import TargetError
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.scheme import PORTABLE
from yoloquant.quantization.simulate import simulate
from yoloquant.runtime.core.detections import Selection
from yoloquant.runtime.tasks import spec_of
from yoloquant.types import ExportedModel, HeadLayout, Task

TASKS = [task for task in Task if task is not Task.DETECT]  # which the suite in ``conformance_suite`` is about
TARGETS = ("onnxruntime", "openvino", "litert", "litert:w8a16", "edgetpu", "tensorrt")
APART = {**dict.fromkeys(TARGETS, 2**0.5), "tensorrt": 0.3}
"""How far an artifact may be from its plan's simulation, in quantization errors; see ``test_targets.py``.

TensorRT's file is simulated by float kernels, whose sums differ in their last bits: a value on the edge between two
codes may fall on the other side, which these small random models amplify.
"""


@pytest.fixture(scope="module", params=TASKS)
def artifact(request: pytest.FixtureRequest) -> Artifact:
    """A small model of a task with random weights, calibrated for every target."""
    return tiny_export_artifact("yolo11", request.param.value, [targets.get(name).scheme for name in TARGETS])


# Edge TPU files are LiteRT's with raw heads: a second conversion of each task is for nightly runs
@pytest.fixture(
    scope="module",
    params=[pytest.param(t, marks=pytest.mark.nightly if t == "edgetpu" else ()) for t in TARGETS],
)
def exported(
    request: pytest.FixtureRequest, artifact: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> ExportedModel:
    target = targets.get(request.param)
    if target.missing():
        pytest.skip(f"target '{target.name}' needs {', '.join(target.missing())}, not installed here")
    if artifact.info.task not in target.capabilities.tasks:
        with pytest.raises(TargetError, match=f"got an? {artifact.info.task.value} model"):
            target.check(artifact)
        pytest.skip(f"target '{target.name}' refuses {artifact.info.task.value} models")
    target.check(artifact)
    return target.export(artifact, tmp_path_factory.mktemp(request.param), "tiny")


def flat(values: Any) -> list[np.ndarray]:
    if isinstance(values, (tuple, list)):
        return [one for value in values for one in flat(value)]
    return [np.asarray(values)]


@pytest.mark.slow
def test_exports_as_simulated(exported: ExportedModel, artifact: Artifact, tmp_path: Path) -> None:
    import torch

    target, spec = targets.get(exported.name), spec_of(artifact.info.task)
    plan = target.plan(artifact)
    assert plan is not None
    found = target.read_scales(exported)
    for point in plan.points:
        assert point.params is not None
        assert np.array_equal(found[point.name][0], point.params.scale), point.name

    simulated, image = simulate(artifact.graph, plan), tiny_images(1, seed=1)[0]
    with torch.inference_mode():
        wanted = flat(simulated(torch.from_numpy(image)))
        exact = flat(artifact.graph.module(torch.from_numpy(image)))
    runner = target.load(exported, threads=1)
    try:
        got = runner(image)
    finally:
        runner.close()
    parts = [spec.output_parts(tuple(o), HeadLayout.DECODED, artifact.info) for o in (got, wanted, exact)]
    for name in parts[0]:
        mine, theirs, true = (p[name] for p in parts)
        assert mine.shape == theirs.shape
        error, gap = np.abs(theirs - true).mean(), np.abs(mine - theirs).mean()
        # an untrained classifier's probabilities are almost equal: single steps of its logits decide
        least = 1e-3 if artifact.info.task is Task.CLASSIFY else 1e-5
        assert gap <= APART[exported.name] * error + least, f"{name}: off by {gap:.3g}, quantization by {error:.3g}"
    assert len(spec.select(got, HeadLayout.DECODED, artifact.info, Selection(conf=0.001))) > 0


@pytest.mark.slow
def test_plain_ultralytics_loads_it(exported: ExportedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exported.drop_in:
        pytest.skip("not a drop-in, and does not claim to be")
    from ultralytics import YOLO

    monkeypatch.chdir(tmp_path)
    model: Any = YOLO(exported.path, task=exported.info.task.value)
    picture = (tiny_images(1, seed=1)[0][0].transpose(1, 2, 0)[..., ::-1] * 255).astype(np.uint8)
    (result,) = model.predict(
        np.ascontiguousarray(picture), imgsz=64, device="cpu", verbose=False, save=False, conf=0.001
    )
    assert (model.predictor.model.task, len(result.names)) == (exported.info.task.value, 3)


# Nightly: the code is what the suite runs on a detector, and each case is one more conversion.
@pytest.mark.nightly
@pytest.mark.parametrize("name", TARGETS)
def test_ranges_of_one_portable_plan_arrive_unchanged(name: str, artifact: Artifact, tmp_path: Path) -> None:
    target = targets.get(name)
    if target.missing() or artifact.info.task not in target.capabilities.tasks:
        pytest.skip(f"target '{name}' is not installed here, or refuses the task")
    portable = tiny_export_artifact("yolo11", artifact.info.task.value, [PORTABLE])
    exported = target.export(portable, tmp_path, "tiny")
    found = target.read_scales(exported)
    plan = target.plan(portable)  # 16 bits have their own scales for those ranges
    known = portable.plans[PORTABLE.name].by_name if name != "litert:w8a16" or plan is None else plan.by_name
    assert found and set(found) <= set(known)
    for point, (scale, zero_point) in found.items():
        params = known[point].params
        assert np.array_equal(scale, params.scale) and np.array_equal(zero_point, params.zero_point), point
    runner = target.load(exported, threads=1)  # not every file that holds its scales is one that its runtime takes
    try:
        assert all(np.isfinite(one).all() for one in flat(runner(tiny_images(1, seed=1)[0])))
    finally:
        runner.close()


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "litert"])
def test_the_float_file_is_the_float_model(name: str, artifact: Artifact, tmp_path: Path) -> None:
    import torch

    target, image = targets.get(name), tiny_images(1, seed=1)[0]
    if target.missing():
        pytest.skip(f"target '{name}' is not installed here")
    runner = target.load(target.export_float(artifact, tmp_path, "tiny"), threads=1)
    try:
        got = flat(runner(image))
    finally:
        runner.close()
    with torch.inference_mode():
        wanted = flat(artifact.graph.module(torch.from_numpy(image)))
    assert [one.shape for one in got] == [one.shape for one in wanted]
    for mine, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3)
