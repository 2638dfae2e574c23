"""The OpenVINO target: where it quantizes, what the IR holds, and what the plugin executes."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from executed import assert_ranges, openvino_float_convolutions
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_export_artifact, tiny_images

from yoloquant.errors import ArtifactError, TargetError
from yoloquant.graph.trace import OpKind
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.qparams import QParams, QuantSpec
from yoloquant.quantization.scheme import derive
from yoloquant.quantization.simulate import simulate
from yoloquant.targets.openvino import SCHEME, OpenVinoTarget, grid, read_ir, unreadable_weights
from yoloquant.types import ExportedModel

pytest.importorskip("openvino", reason="needs the extra openvino")


@lru_cache(maxsize=1)
def artifact() -> Artifact:
    return tiny_export_artifact("yolo11", schemes=(SCHEME,))


@pytest.fixture
def exported(tmp_path: Path, shared_export: ExportedModel) -> ExportedModel:
    return shared_export


@pytest.fixture(scope="module")
def shared_export(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return OpenVinoTarget().export(artifact(), tmp_path_factory.mktemp("openvino"), "tiny")


scales = st.floats(min_value=2.0**-30, max_value=2.0**20, width=32).map(np.float32)


@given(scale=scales, zero_point=st.integers(-128, 127), symmetric=st.booleans())
def test_range_of_a_fake_quantize_gives_the_grid_back(scale: np.float32, zero_point: int, symmetric: bool) -> None:
    spec = QuantSpec(symmetric=symmetric)
    want = QParams(scale, np.int32(0 if symmetric else zero_point))  # type: ignore[arg-type]
    low, high = want.range(spec)
    assert grid(low, high, spec, want) == want
    again = grid(low, high, spec)
    assert again.range(spec) == (low, high)
    assert again.zero_point == want.zero_point


@given(scale=scales, zero_point=st.integers(-100, 100))
def test_another_recorded_scale_is_not_believed(scale: np.float32, zero_point: int) -> None:
    true = QParams(scale, np.int32(zero_point))  # type: ignore[arg-type]
    wrong = QParams(np.float32(scale * np.float32(1.01)), np.int32(zero_point))  # type: ignore[arg-type]
    assert grid(*true.range(QuantSpec()), QuantSpec(), wrong) != wrong


def test_ends_off_the_grid_are_refused() -> None:
    with pytest.raises(TargetError, match="lies on no grid"):
        grid(np.float32(-1.0), np.float32(2.003), QuantSpec())  # type: ignore[arg-type]


def test_nothing_stands_between_a_convolution_and_its_activation() -> None:
    graph = artifact().graph
    plan = derive(graph, SCHEME)
    quantized = set(plan.by_name)
    gates = [op for op in graph.body() if op.kind is OpKind.UNIT and ".act" in op.name]
    assert gates and not quantized & {g.name for g in gates} and not quantized & {g.inputs[0] for g in gates}
    assert not quantized & {head.name for head in graph.heads}
    for op in graph.body():
        if op.kind is OpKind.CONCAT:
            assert op.name not in quantized
            roots = [graph.ops[graph.root(i)] for i in op.inputs]
            groups = {plan.by_name[r.name].tie for r in roots if r.kind is not OpKind.CONCAT}
            assert len(groups) == 1, f"{op.name} joins different ranges"


def test_ranges_are_exact(exported: ExportedModel) -> None:
    assert_ranges(OpenVinoTarget(), artifact(), exported)


def test_a_changed_range_is_noticed(exported: ExportedModel, tmp_path: Path) -> None:
    """The recorded plan is only believed where the IR agrees with it."""
    import shutil

    copy = tmp_path / "changed_openvino_model"
    shutil.copytree(exported.path, copy)
    data = yaml.safe_load((copy / "metadata.yaml").read_text(encoding="utf-8"))
    own = json.loads(data["yoloquant"])
    point = next(p for p in own["plan"]["points"] if p["kind"] == "activation" and not p["fixed"])
    true = np.float32(point["params"]["scale"])
    point["params"]["scale"] = float(np.float32(true * np.float32(1.5)))
    data["yoloquant"] = json.dumps(own)
    (copy / "metadata.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    assert abs(read_ir(copy)[point["name"]][0] / true - 1) < 1e-5


def test_planned_convolutions_run_in_integers(exported: ExportedModel) -> None:
    # the convolution behind an attention's reshape stays float, in NNCF's models too
    assert all(".attn." in name for name in openvino_float_convolutions(artifact(), exported))


def test_runs_as_simulated(exported: ExportedModel) -> None:
    import torch

    runner = OpenVinoTarget().load(exported, threads=1)
    simulated = simulate(artifact().graph, artifact().plan_for(SCHEME))
    for image in tiny_images(2, seed=1):
        x = torch.from_numpy(image)
        with torch.inference_mode():
            want, exact = simulated(x).numpy(), artifact().graph.module(x).numpy()
        assert 0 < np.abs(runner(image)[0] - want).mean() + 1e-12 <= 1.5 * np.abs(want - exact).mean()


def test_metadata_is_what_ultralytics_reads(exported: ExportedModel) -> None:
    data = yaml.safe_load((exported.path / "metadata.yaml").read_text(encoding="utf-8"))
    assert data["names"] == {0: "thing 0", 1: "thing 1", 2: "thing 2"}
    assert (data["task"], data["stride"], data["batch"], data["imgsz"]) == ("detect", 32, 1, [64, 64])


def test_damaged_artifacts(exported: ExportedModel, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no readable metadata\.yaml"):
        read_ir(tmp_path)
    with pytest.raises(ArtifactError, match=r"holds no OpenVINO \.xml"):
        OpenVinoTarget().load(ExportedModel("openvino", tmp_path, exported.info, exported.layout))
    (tmp_path / "broken.xml").write_text("<net")
    with pytest.raises(TargetError, match="cannot load"):
        OpenVinoTarget().load(ExportedModel("openvino", tmp_path, exported.info, exported.layout))


def test_weights_that_openvino_cannot_load_stay_in_float() -> None:
    """Alone they would be refused when the file is loaded; where activations are quantized too they are not."""
    left_out = unreadable_weights(artifact().graph)
    assert "model.10.m.0.attn.qkv.conv:weight" in left_out and "model.10.cv1.conv:weight" not in left_out
    everything = artifact().plan_for(SCHEME)
    alone = OpenVinoTarget.variant("weights").plan(artifact())
    assert alone is not None
    assert {p.name for p in everything.weights} - {p.name for p in alone.points} == left_out
    assert OpenVinoTarget().plan(artifact()) == everything
