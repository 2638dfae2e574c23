from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

os.environ["YOLO_AUTOINSTALL"] = "false"

from core_models import sample_images, tiny_artifact
from device_fakes import ORIN, FakeCuda, install

from yoloquant.bundle import BundleOptions, write
from yoloquant.errors import ArtifactError, PlanError, TargetError
from yoloquant.quantization.artifact import Artifact
from yoloquant.runtime.device import cuda as cuda_module
from yoloquant.runtime.device.cuda import GpuInfo
from yoloquant.runtime.tensorrt import api
from yoloquant.runtime.tensorrt.build import find_engine
from yoloquant.runtime.tensorrt.build_options import Sources
from yoloquant.runtime.tensorrt.calibration_cache import load
from yoloquant.runtime.tensorrt.header import read_header
from yoloquant.runtime.tensorrt.identity import Identity
from yoloquant.targets.tensorrt import target as target_module
from yoloquant.targets.tensorrt.device import build_here, write_device_files
from yoloquant.targets.tensorrt.plain import dla_plan, strip
from yoloquant.targets.tensorrt.target import TensorRTTarget
from yoloquant.types import ExportedModel

IMAGES = sample_images(2, seed=5)


@pytest.fixture(scope="module")
def tiny() -> Artifact:
    return tiny_artifact()


@pytest.fixture(scope="module")
def exported(tiny: Artifact, tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    folder = tmp_path_factory.mktemp("exported")
    return TensorRTTarget(compile_check=False, engine=False).export(tiny, folder, "tiny")


@pytest.fixture(scope="module")
def written(tiny: Artifact, exported: ExportedModel) -> Sources:
    files = write_device_files(exported.path, tiny)
    sources = Sources.beside(exported.path)
    assert (files.strongly_typed, files.plain, files.calibration) == (
        sources.strongly_typed,
        sources.plain,
        sources.calibration,
    )
    return sources


def _run(path: Path) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"images": image})[0] for image in IMAGES])


def test_plain_model_is_the_float_model(tiny: Artifact, written: Sources) -> None:
    import torch

    model = onnx.load(written.plain)
    assert not [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    with torch.inference_mode():
        wanted = np.concatenate([tiny.graph.module(torch.from_numpy(image)).numpy() for image in IMAGES])
    np.testing.assert_allclose(_run(written.plain), wanted, rtol=1e-3, atol=1e-3)


def test_every_tensor_of_the_body_has_a_scale(written: Sources) -> None:
    scales = load(written.calibration.read_text())
    model = onnx.load(written.plain)
    made = {o for n in model.graph.node for o in n.output} | {"images"}
    assert set(scales) <= made, "a scale belongs to no tensor"
    readers: dict[str, set[str]] = {}
    for node in reversed(model.graph.node):  # what a convolution reads from, directly or not
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
            for output in node.output:
                readers[name] |= readers.get(output, set())
    convs = [n for n in model.graph.node if n.op_type == "Conv" and len(n.input) == 3]
    body = {i for i in made if any(i == c.input[0] for c in convs)} | {c.output[0] for c in convs}
    body |= {
        o
        for n in model.graph.node
        for o in n.output
        if n.op_type in ("Sigmoid", "Mul")
        and n.output[0] in readers
        and "Conv" in readers[n.output[0]] - {"Softmax"}
        and "Softmax" not in readers[n.output[0]]
    }
    assert len(convs) > 20 and body <= set(scales), sorted(body - set(scales))


def test_scales_are_the_plans(tiny: Artifact, written: Sources) -> None:
    scales = set(map(np.float32, load(written.calibration.read_text()).values()))
    plan = dla_plan(tiny)
    assert {np.float32(p.params.scale) for p in plan.points if p.params is not None} == scales
    for point in tiny.plans["tensorrt"].activations:
        assert point.params is not None
        assert np.array_equal(plan.by_name[point.name].params.scale, point.params.scale), point.name  # type: ignore[union-attr]


def test_affine_range_is_covered(tiny: Artifact) -> None:
    artifact = replace(tiny, plans={"litert": tiny.plans["litert"]})
    plan, affine = dla_plan(artifact), tiny.plans["litert"].by_name
    shifted = 0
    for point in plan.points:
        source, params = affine[point.name], point.params
        assert params is not None and source.params is not None and not params.zero_point.any()
        low, high = source.params.range(source.spec)
        reach = float(params.scale) * 127
        if source.params.zero_point.any():
            assert reach >= max(-float(low), float(high)) * (1 - 1e-6)
        else:  # symmetric already, and kept: only the integer -128 has no counterpart
            assert np.array_equal(params.scale, source.params.scale) and reach >= float(high) * (1 - 1e-6)
        shifted += bool(source.params.zero_point.any())
    assert shifted > 20


def test_tied_tensors_share_one_scale(tiny: Artifact) -> None:
    plan = dla_plan(tiny)
    groups = [g for g in plan.groups().values() if len(g) > 1]
    assert groups
    for group in groups:
        assert len({float(p.params.scale) for p in group if p.params is not None}) == 1


def test_without_ranges_there_is_no_dla_model(
    tiny: Artifact, exported: ExportedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = replace(tiny, plans={"tensorrt": tiny.plans["tensorrt"]})
    with pytest.raises(PlanError, match="quantize with scheme=auto or scheme=portable"):
        dla_plan(artifact)
    copy = tmp_path / "model.onnx"
    copy.write_bytes(exported.path.read_bytes())
    with caplog.at_level(logging.WARNING):
        files = write_device_files(copy, artifact)
    assert files.plain is None and files.calibration is None and "no model for a DLA" in files.notes[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model-fp16.onnx", "model.onnx"]


def test_typed_model_alone_needs_no_artifact(exported: ExportedModel, tmp_path: Path) -> None:
    copy = tmp_path / "model.onnx"
    copy.write_bytes(exported.path.read_bytes())
    files = write_device_files(copy)
    assert files.plain is None and files.notes == ()
    half = _run(files.strongly_typed)
    assert half.shape == _run(exported.path).shape and np.isfinite(half).all()


def test_unreadable_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"junk")
    with pytest.raises(ArtifactError, match="is no readable ONNX file"):
        write_device_files(tmp_path / "model.onnx")


def test_strip_refuses_what_a_cache_cannot_hold(exported: ExportedModel) -> None:
    with pytest.raises(TargetError, match="is no symmetric pair on an activation"):
        strip(onnx.load(exported.path))  # its weights have pairs per channel


@pytest.fixture
def emitted(exported: ExportedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of a test get the model that was exported before instead of tracing anew."""
    monkeypatch.setattr(target_module, "emit", lambda *args, **kwargs: onnx.load(exported.path))


def test_nothing_is_built_without_tensorrt(exported: ExportedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "is_installed", lambda: False)
    engine, note = build_here(exported)
    assert engine == {} and "TensorRT is not installed here; build_engine in the bundle" in note


def test_nothing_is_built_without_a_gpu(exported: ExportedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    install("10.3.0", monkeypatch)

    def none(device: str = "") -> Any:
        raise TargetError("no CUDA device can be used")

    monkeypatch.setattr(cuda_module, "open_cuda", none)
    engine, note = build_here(exported)
    assert engine == {} and "no CUDA device can be used; build_engine in the bundle" in note


@pytest.mark.usefixtures("emitted")
@pytest.mark.parametrize("name", ["8.6.1", "10.3.0", "11.0.0"])
def test_export_builds_the_engine_where_both_are(
    name: str, tiny: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = install(name, monkeypatch)
    monkeypatch.setattr(cuda_module, "open_cuda", lambda device="": FakeCuda(release))
    result = TensorRTTarget(compile_check=False).export(tiny, tmp_path, "tiny")
    planned = result.metadata["planned_convs"]
    engine = tmp_path / result.metadata["engine"]["path"]
    header = read_header(engine)
    assert header.metadata["names"] == {"0": "cat", "1": "dog", "2": "bird"} and header.plan()
    assert set(header.ours["int8"]["int8"]) == set(planned)
    assert any(f"{len(planned)} of {len(planned)} planned layers run in Int8" in n for n in result.notes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny-tensorrt.engine", "tiny-tensorrt.onnx"]
    typed = any(n.op_type == "Cast" for n in release.built_with[0][0]._model.graph.node)
    assert typed == (name == "11.0.0")


def test_a_kept_engine_is_one_of_this_device_and_release(monkeypatch: pytest.MonkeyPatch) -> None:
    target = TensorRTTarget(compile_check=False)
    monkeypatch.setattr(api, "is_installed", lambda: False)
    known = [target.tools()]
    assert known == [{}]
    for name, gpu in (("10.3.0", ORIN), ("10.3.0", GpuInfo("H200", "9.0")), ("11.0.0", ORIN)):
        release = install(name, monkeypatch)
        monkeypatch.setattr(cuda_module, "open_cuda", lambda device="", r=release, g=gpu: FakeCuda(r, g))
        assert target.tools() not in known
        known.append(target.tools())
    assert TensorRTTarget(compile_check=False, engine=False).tools() == {}, "it builds none"


@pytest.mark.usefixtures("emitted")
@pytest.mark.parametrize("name", ["10.3.0", "11.0.0"])
def test_the_engine_goes_into_the_bundle_and_is_found_there(
    name: str, tiny: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = install(name, monkeypatch)
    monkeypatch.setattr(cuda_module, "open_cuda", lambda device="": FakeCuda(release))
    exported = TensorRTTarget(compile_check=False).export(tiny, tmp_path, "tiny")
    options = BundleOptions(golden_images=1, threads=1)
    made = write(tiny, exported, device="jetson", folder=tmp_path / "bundle", options=options)
    found = find_engine(made.path / made.manifest.model, Identity.of(release.name, FakeCuda(release).gpu))
    assert found.path.relative_to(made.path).as_posix() in made.manifest.files
    assert found.plan() == read_header(tmp_path / "tiny-tensorrt.engine").plan()
    assert f"an engine for Orin with TensorRT {release.name}" in (made.path / "README.md").read_text()


@pytest.mark.usefixtures("emitted")
def test_export_fails_where_the_engine_is_not_as_planned(
    tiny: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = install("10.3.0", monkeypatch)
    release.float_layers = {"model.0.conv"}
    cuda = FakeCuda(release)
    monkeypatch.setattr(cuda_module, "open_cuda", lambda device="": cuda)
    with pytest.raises(TargetError, match=r"in another type: model\.0\.conv"):
        TensorRTTarget(compile_check=False).export(tiny, tmp_path, "tiny")
    assert not list(tmp_path.glob("*.engine")) and cuda.closed
