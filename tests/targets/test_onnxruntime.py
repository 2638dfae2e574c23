"""The ONNX Runtime target: what it quantizes, and that the runtime really computes in integers."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from executed import onnxruntime_operations
from tiny_models import tiny_export_artifact, tiny_images, tiny_yolo

from yoloquant.bridge.checkpoint import load_model
from yoloquant.errors import ArtifactError, TargetError
from yoloquant.graph.trace import WEIGHTED, OpKind
from yoloquant.graph.traced_model import TracedModel
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.scheme import derive, weight_point_name
from yoloquant.quantization.simulate import simulate
from yoloquant.runtime.backends import open_backend
from yoloquant.targets.onnx.emission import Emission, Weights
from yoloquant.targets.onnx.emit import emit
from yoloquant.targets.onnxruntime import SCHEME, OnnxRuntimeTarget
from yoloquant.types import ExportedModel


@lru_cache(maxsize=1)
def artifact() -> Artifact:
    return tiny_export_artifact("yolo11", schemes=(SCHEME,))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return OnnxRuntimeTarget().export(artifact(), tmp_path_factory.mktemp("onnxruntime"), "tiny")


def outputs(value: object) -> list[np.ndarray]:
    return [v.numpy() for v in (value if isinstance(value, (tuple, list)) else (value,))]  # type: ignore[attr-defined]


def assert_simulated(art: Artifact) -> None:
    """The emitted pairs, computed one by one, give what the plan's simulation gives.

    Biases stay float here: integer kernels round them, and a net without training makes pixels of one rounding flip.
    Sums in another order flip one on some images too (on one of five with AVX2), so the median image counts.
    """
    import torch

    plan = art.plan_for(SCHEME)
    model = emit(art.graph, plan, Emission(unsigned=True, weights=Weights.INT8))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    simulated = simulate(art.graph, plan)
    ratios: list[float] = []
    for image in tiny_images(5, seed=1):
        got = session.run(None, {"images": image})
        with torch.inference_mode():
            want, exact = (
                outputs(simulated(torch.from_numpy(image))),
                outputs(art.graph.module(torch.from_numpy(image))),
            )
        assert len(got) == len(want)
        for g, w, e in zip(got, want, exact, strict=True):
            assert g.shape == w.shape
            assert np.abs(w - e).mean() > 0, "the simulation quantizes nothing"
            ratios.append(float(np.abs(g - w).mean() / np.abs(w - e).mean()))
    assert float(np.median(ratios)) <= 0.05, ratios


def test_every_operation_stands_between_pairs_except_inside_attention() -> None:
    graph = artifact().graph
    plan = derive(graph, SCHEME)
    softmaxes = [op for op in graph.body() if op.kind is OpKind.UNIT and "softmax" in op.name]
    assert softmaxes, "this model has attention"
    inner = {s.name for s in softmaxes} | {graph.root(s.inputs[0]) for s in softmaxes}
    assert not inner & set(plan.by_name)
    sites = {s.tensor for p in plan.activations for s in p.sites}
    for op in graph.body():
        if op.kind in WEIGHTED or op.kind is OpKind.CONCAT:
            assert set(op.inputs) <= sites, f"an operand of {op.name} has no pair"
            assert op.name in sites


def test_every_planned_convolution_runs_in_integers(exported: ExportedModel, tmp_path: Path) -> None:
    counts = onnxruntime_operations(exported.path, tmp_path)
    plan = artifact().plan_for(SCHEME)
    assert counts["QLinearConv"] == len(plan.weights)
    assert not counts.keys() & {"Conv", "FusedConv", "QuickGelu", "QLinearSoftmax"}
    gates = sum(".act:sigmoid" in p.name for p in plan.activations)
    assert counts["QLinearSigmoid"] == counts["QLinearMul"] == gates > 0


def test_a_classifiers_linear_layer_is_integer_and_its_logits_are_float(tmp_path: Path) -> None:
    art = tiny_export_artifact("yolo11", "classify", schemes=(SCHEME,))
    (head,) = art.graph.heads
    plan = art.plan_for(SCHEME)
    assert head.name not in plan.by_name and weight_point_name(head) in plan.by_name
    counts = onnxruntime_operations(OnnxRuntimeTarget().export(art, tmp_path, "tiny").path, tmp_path)
    # the products inside attention are float by choice, the layer's is none of them
    products = sum(op.kind is OpKind.MATMUL for op in art.graph.body())
    assert counts["MatMul"] + counts["FusedMatMul"] == products > 0
    assert counts["QGemm"] == 1 and not counts.keys() & {"Gemm", "FusedGemm"}


def test_metadata_is_what_ultralytics_reads(exported: ExportedModel) -> None:
    found = {p.key: p.value for p in onnx.load(exported.path).metadata_props}
    assert ast.literal_eval(found["names"]) == {0: "thing 0", 1: "thing 1", 2: "thing 2"}
    assert ast.literal_eval(found["imgsz"]) == [64, 64]
    assert (found["task"], found["stride"], found["batch"]) == ("detect", "32", "1")


def test_simulation_is_met() -> None:
    assert_simulated(artifact())


@pytest.mark.parametrize("content", [b"", b"not an onnx file"])
def test_damaged_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(TargetError, match="cannot load"):
        open_backend("onnxruntime", path, artifact().info)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        open_backend("onnxruntime", tmp_path / "absent.onnx", artifact().info)


def test_zeros_in_front_of_a_max_pool_stay_zeros(tmp_path: Path) -> None:
    import torch
    from torch import nn

    yolo = tiny_yolo("yolov8")
    sppf = next(m for m in yolo.model.modules() if type(m).__name__ == "SPPF")
    # YOLOv3-tiny pads like this; behind a SiLU the border's maxima may be negative
    sppf.m = nn.Sequential(nn.ZeroPad2d(2), nn.MaxPool2d(5, 1, 0))
    padded = Artifact(TracedModel.of(load_model(yolo), (64, 64)), {})
    path = OnnxRuntimeTarget().export_float(padded, tmp_path, "padded").path
    (image,) = tiny_images(1)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        want = outputs(padded.graph.module(torch.from_numpy(np.asarray(image))))
    for got, value in zip(session.run(None, {"images": np.asarray(image)}), want, strict=True):
        assert np.abs(got - value).max() < 1e-3
