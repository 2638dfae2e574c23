from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from yoloquant.graph.traced_model import TracedModel

os.environ["YOLO_AUTOINSTALL"] = "false"

from core_models import tiny_artifact

from yoloquant.bridge.checkpoint import load_model
from yoloquant.errors import PlanError, TargetError
from yoloquant.graph.ops import OpKind, OpNode
from yoloquant.graph.trace import Graph
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.calibrate import weight_of
from yoloquant.quantization.plan import Plan, Point, PointKind, Role
from yoloquant.quantization.qparams import QParams, QuantSpec
from yoloquant.quantization.scheme import PORTABLE, SYMMETRIC, WEIGHT, adapt, derive
from yoloquant.targets.onnx.emit import emit
from yoloquant.targets.tensorrt import rtx, target
from yoloquant.targets.tensorrt.lint import lint
from yoloquant.targets.tensorrt.rtx import ParserError, RtxReport
from yoloquant.targets.tensorrt.scheme import SCHEME, place
from yoloquant.targets.tensorrt.target import EMISSION, TensorRTTarget, planned_convs
from yoloquant.types import ModelInfo, Task

INFO = ModelInfo(Task.DETECT, ("a",), (64, 64))


class Ops:
    """Describes a graph operation by operation; every method returns the name of what it added."""

    def __init__(self) -> None:
        self.ops: dict[str, OpNode] = {}
        self.images = self.add(OpKind.INPUT, name="images")

    def add(self, kind: OpKind, *inputs: str, name: str = "", **fields: Any) -> str:
        name = name or f"m:{fields.pop('op', kind.value)}:{len(self.ops)}"
        weight = f"m{len(self.ops)}.weight" if kind in (OpKind.CONV, OpKind.CONV_TRANSPOSE, OpKind.LINEAR) else ""
        values = {"shape": (1, 8, 8, 8), "weight": weight, **fields}
        self.ops[name] = OpNode(name, kind, "m", inputs=inputs, **values)
        return name

    def conv(self, x: str) -> str:
        """Convolution and SiLU."""
        conv = self.add(OpKind.CONV, x)
        return self.add(OpKind.MUL, conv, self.add(OpKind.UNIT, conv))

    def end(self, *inputs: str) -> str:
        return self.add(OpKind.OTHER, *inputs, tail=True)

    def sites(self) -> dict[str, tuple[str, ...]]:
        """Consumers by quantized tensor; empty means every reader."""
        graph = Graph(None, INFO, {}, self.ops)  # type: ignore[arg-type]  # placement reads operations alone
        return {site.tensor: site.consumers for site, _ in place(graph).sites}


def test_pair_stands_behind_the_activation_not_behind_the_convolution() -> None:
    net = Ops()
    first = net.conv(net.images)
    last = net.add(OpKind.CONV, first)
    net.end(last)
    assert net.sites() == {net.images: (), first: ()}


@pytest.mark.parametrize("identity_first", [True, False])
def test_residual_identity_is_found_by_ancestry(identity_first: bool) -> None:
    net = Ops()
    x = net.conv(net.images)
    branch = net.conv(net.conv(x))
    total = net.add(OpKind.ADD, *((x, branch) if identity_first else (branch, x)))
    net.end(net.add(OpKind.CONV, total))
    sites = net.sites()
    assert branch not in sites, "the branch reaches the Add unquantized"
    assert sites[x] == () and sites[total] == ()


def test_add_of_two_branches_has_no_identity() -> None:
    net = Ops()
    x = net.conv(net.images)
    left, right = net.conv(x), net.conv(x)
    total = net.add(OpKind.ADD, left, right)
    net.end(net.add(OpKind.CONV, total))
    assert set(net.sites()) == {net.images, x, total}


def test_concat_is_tied_and_upsampling_gets_a_pair_of_its_own() -> None:
    net = Ops()
    small, big = net.conv(net.images), net.conv(net.images)
    up = net.add(OpKind.PASS, small, op="upsample_nearest2d")
    both = net.add(OpKind.CONCAT, up, big)
    net.end(net.add(OpKind.CONV, both))
    assert {small, up, big, both} <= set(net.sites())
    plan = derive(Graph(None, INFO, {}, net.ops), SCHEME)  # type: ignore[arg-type]
    assert len({plan.by_name[n].tie for n in (small, big, both)}) == 1
    assert [s.tensor for s in plan.by_name[small].sites] == [small, up], "one range, two places"


def test_max_pooling_gets_its_inputs_pair_again() -> None:
    net = Ops()
    x = net.conv(net.images)
    pool = net.add(OpKind.POOL_MAX, x)
    net.end(net.add(OpKind.CONV, net.add(OpKind.CONCAT, x, pool)))
    plan = derive(Graph(None, INFO, {}, net.ops), SCHEME)  # type: ignore[arg-type]
    assert [s.tensor for s in plan.by_name[x].sites] == [x, pool]
    assert pool not in plan.by_name


def test_float_reader_of_a_split_keeps_its_float_input() -> None:
    net = Ops()
    qkv = net.add(OpKind.CONV, net.images)
    split = net.add(OpKind.PASS, qkv, op="split_with_sizes", shape=None)
    query, value = (net.add(OpKind.PASS, split, op="getitem") for _ in range(2))
    attention = net.add(OpKind.MATMUL, query, value)
    encoding = net.add(OpKind.CONV, value)
    net.end(attention, encoding)
    assert net.sites() == {net.images: (), value: (encoding,)}


def test_split_that_only_integer_operations_read_is_quantized_once_before() -> None:
    net = Ops()
    x = net.conv(net.images)
    split = net.add(OpKind.PASS, x, op="split_with_sizes", shape=None)
    left, right = (net.add(OpKind.PASS, split, op="getitem") for _ in range(2))
    net.end(net.add(OpKind.CONV, left), net.add(OpKind.CONV, right))
    assert net.sites() == {net.images: (), x: ()}


def test_transposed_convolution_stays_float() -> None:
    net = Ops()
    x = net.conv(net.images)
    up = net.add(OpKind.CONV_TRANSPOSE, x)
    last = net.add(OpKind.CONV, up)
    net.end(last)
    graph = Graph(None, INFO, {}, net.ops)  # type: ignore[arg-type]
    assert up not in place(graph).weighted and last in place(graph).weighted
    assert x not in net.sites()


def _plan(*points: Point) -> Any:
    plan = Plan("litert", (64, 64), points)
    return SimpleNamespace(plan_for=lambda scheme: plan)


def _point(name: str, zero_point: int = 0, **spec: Any) -> Point:
    params = QParams(np.float32(0.1), np.int32(zero_point))
    return Point(name, PointKind.ACTIVATION, Role.OTHER, QuantSpec(**spec), params=params)


def test_check_counts_shifted_points_and_names_the_fix() -> None:
    artifact = _plan(_point("a", -3), _point("b"), _point("c", 5))
    with pytest.raises(PlanError, match=r"2 of 3 points .* first a; quantize with scheme=tensorrt or scheme=portable"):
        TensorRTTarget().check(artifact)


@pytest.mark.parametrize("spec", [{"bits": 4}, {"axis": 1}, {"axis": 0}])
def test_check_refuses_what_tensorrt_cannot_represent(spec: dict[str, int]) -> None:
    with pytest.raises(PlanError, match="1 other points, first b"):
        TensorRTTarget().check(_plan(_point("a"), _point("b", **spec)))


def test_affine_point_that_is_centred_anyway_is_accepted() -> None:
    TensorRTTarget().check(_plan(_point("a", symmetric=False), _point("b", symmetric=True)))


@pytest.fixture(scope="module")
def tiny() -> Artifact:
    return tiny_artifact()


@pytest.fixture(scope="module")
def emitted(tiny: Artifact) -> onnx.ModelProto:
    return emit(tiny.graph, tiny.plans["tensorrt"], EMISSION)


@pytest.fixture
def prebuilt(emitted: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """A copy of the emitted model, which every export of the test gets instead of emitting anew."""
    model = onnx.ModelProto()
    model.CopyFrom(emitted)
    monkeypatch.setattr(target, "emit", lambda *args, **kwargs: model)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["tensorrt", "portable"])
def test_export_is_clean_and_really_int8(tiny: Artifact, tmp_path: Path, scheme: str) -> None:
    artifact = replace(tiny, plans={scheme: tiny.plans[scheme]})
    exported = TensorRTTarget().export(artifact, tmp_path, "tiny")
    assert exported.metadata["lint"] == {"errors": 0, "warnings": []}
    planned = exported.metadata["planned_convs"]
    assert len(planned) == len([op for op in tiny.graph.body() if op.weight])
    assert any("simulated" in note for note in exported.notes)
    if not rtx.is_available():
        pytest.skip("TensorRT-RTX is not installed, so nothing compiles here")
    compiled = exported.metadata["tensorrt_rtx"]
    assert compiled["built"] and compiled["int8_convs"] == len(planned)
    assert compiled["summary"] in exported.notes


def test_broken_rule_raises_and_writes_nothing(tiny: Artifact, prebuilt: onnx.ModelProto, tmp_path: Path) -> None:
    prebuilt.graph.node[1].name = prebuilt.graph.node[0].name
    with pytest.raises(TargetError, match=r"breaks 1 rules of TensorRT: TRT005 .*fix: "):
        TensorRTTarget(compile_check=False).export(tiny, tmp_path, "tiny")
    assert list(tmp_path.iterdir()) == []


def test_lint_warnings_become_notes(tiny: Artifact, prebuilt: onnx.ModelProto, tmp_path: Path) -> None:
    prebuilt.graph.node[1].name = ""
    exported = TensorRTTarget(compile_check=False).export(tiny, tmp_path, "tiny")
    (warning,) = exported.metadata["lint"]["warnings"]
    assert warning.startswith("TRT006 ") and f"lint: {warning}" in exported.notes
    assert any("as asked" in n for n in exported.notes)


def _compiled(monkeypatch: pytest.MonkeyPatch, **result: Any) -> None:
    def build_check(path: Path, *, planned_convs: Any) -> RtxReport:
        assert path.is_file()
        return RtxReport(available=True, version="9.9", **result)

    monkeypatch.setattr(rtx, "is_available", lambda: True)
    monkeypatch.setattr(rtx, "build_check", build_check)


@pytest.mark.usefixtures("prebuilt")
def test_parser_error_raises_and_writes_nothing(
    tiny: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _compiled(monkeypatch, parser_errors=(ParserError("stem", "Conv", "too odd"),))
    with pytest.raises(TargetError, match=r"not parsed: stem \[Conv\]: too odd"):
        TensorRTTarget().export(tiny, tmp_path, "tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("prebuilt")
def test_float_convolution_is_reported(
    tiny: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _compiled(monkeypatch, parsed=True, built=True, int8_convs=("a",), float_convs=("b",))
    with caplog.at_level(logging.WARNING):
        exported = TensorRTTarget().export(tiny, tmp_path, "tiny")
    assert exported.metadata["tensorrt_rtx"]["float_convs"] == ["b"]
    assert any("1 of 2 planned convolutions run in Int8; in float: b" in n for n in exported.notes)
    assert "in float: b" in caplog.text


@pytest.mark.usefixtures("prebuilt")
def test_missing_compiler_is_said(tiny: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx, "is_available", lambda: False)
    exported = TensorRTTarget().export(tiny, tmp_path, "tiny")
    assert exported.metadata["tensorrt_rtx"]["available"] is False
    assert any("TensorRT-RTX (module tensorrt_rtx) is not installed" in n for n in exported.notes)


def _with_some_ranges(graph: Graph, plan: Plan) -> Plan:
    """Ranges that have nothing to do with data: placement and form are what is tested."""
    params = {}
    for point in plan.points:
        channels = weight_of(graph, point).shape[0] if point.spec.axis is not None else None
        scale = np.full(() if channels is None else channels, 0.02, np.float32)
        params[point.name] = QParams(scale, np.zeros(scale.shape, np.int32))
    return plan.with_params(params, "test")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov9t", "yolo12n", "yolo26n"])
def test_families_follow_every_rule(name: str) -> None:
    """Average pooling before convolutions, area attention, and an identity at an Add's second input."""
    from ultralytics import YOLO

    host = load_model(YOLO(f"{name}.yaml"))
    artifact = Artifact(TracedModel.of(host, (64, 64)), {})
    graph = artifact.graph
    portable = _with_some_ranges(graph, derive(graph, PORTABLE))
    for plan in (_with_some_ranges(graph, derive(graph, SCHEME)), adapt(graph, portable, SCHEME)):
        assert planned_convs(plan) == tuple(op.weight.rsplit(".", 1)[0] for op in graph.body() if op.weight)
        specs = [replace(p.spec, half_range=False) for p in plan.points]  # portable keeps its first convolution's
        assert all(spec in (SYMMETRIC, replace(WEIGHT, axis=spec.axis)) for spec in specs)
        assert lint(emit(graph, plan, EMISSION), planned_convs=planned_convs(plan)) == ()
