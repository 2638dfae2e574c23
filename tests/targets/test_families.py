"""Every family and task through the runtimes that start from ONNX; each model is traced and calibrated once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from executed import assert_ranges, onnxruntime_operations, openvino_float_convolutions
from tiny_models import FAMILIES, TASKS, by_age, tiny_export_artifact, tiny_images

from yoloquant import targets
from yoloquant.graph.trace import OpKind
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.keypoint_ranges import mixed_heads
from yoloquant.targets.base import Target

pytestmark = pytest.mark.slow
MODELS = [(f, "detect") for f in FAMILIES if f != "yolo11"] + [("yolo11", t) for t in TASKS if t != "detect"]


@pytest.fixture(
    scope="module", params=[pytest.param(p.values, marks=p.marks, id="-".join(p.values)) for p in by_age(MODELS)]
)
def artifact(request: pytest.FixtureRequest) -> Artifact:
    family, task = request.param
    return tiny_export_artifact(family, task, [targets.get(name).scheme for name in ("onnxruntime", "openvino")])


def outputs_of(artifact: Artifact) -> list[torch.Tensor]:
    value = artifact.graph.module(torch.from_numpy(tiny_images(1)[0]))
    return list(value) if isinstance(value, (tuple, list)) else [value]


def target_named(name: str) -> Target:
    target = targets.get(name)
    if target.missing():
        pytest.skip(f"target '{name}' needs {', '.join(target.missing())}, not installed here")
    return target


def assert_images_never_meet(path: Path) -> None:
    """The exported file, made for two images, gives what it gives each of them alone."""
    import onnx
    import onnx_ir as ir
    import onnxruntime

    from yoloquant.targets.onnx.batch import with_batch

    def run(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return list(session.run(None, {"images": images}))

    images, alone = np.concatenate(tiny_images(2)), onnx.load(path)
    made = ir.from_proto(alone)
    with_batch(2)(made)
    several = run(ir.to_proto(made), images)
    each = [run(alone, image[None]) for image in images]
    for index, got in enumerate(several):
        np.testing.assert_array_equal(got, np.concatenate([outputs[index] for outputs in each]))


def test_onnxruntime_runs_every_convolution_in_integers_but_for_keypoints(artifact: Artifact, tmp_path: Path) -> None:
    target = target_named("onnxruntime")
    found = target.export(artifact, tmp_path, "tiny")
    assert_ranges(target, artifact, found)
    assert_images_never_meet(found.path)
    counts = onnxruntime_operations(found.path, tmp_path)
    floats = len(mixed_heads(artifact.graph))  # raw keypoints, whose coordinates and visibilities share no scale
    assert counts["QLinearConv"] == sum(op.kind is OpKind.CONV for op in artifact.graph.body()) - floats
    assert counts["Conv"] + counts["FusedConv"] == floats == (3 if artifact.info.kpt_shape else 0)
    # no comparison with the simulation: in a net without training one rounding flip grows to pixels
    got, want = target.load(found, threads=1)(tiny_images(1)[0]), outputs_of(artifact)
    assert [g.shape for g in got] == [tuple(w.shape) for w in want]
    assert all(np.isfinite(g).all() for g in got)


def test_openvino_runs_every_convolution_in_integers_but_for_attention(artifact: Artifact, tmp_path: Path) -> None:
    target = target_named("openvino")
    found = target.export(artifact, tmp_path, "tiny")
    assert_ranges(target, artifact, found)
    assert all(".attn" in name for name in openvino_float_convolutions(artifact, found))
    assert all(np.isfinite(g).all() for g in target.load(found, threads=1)(tiny_images(1)[0]))
