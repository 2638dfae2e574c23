from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from yoloquant.errors import ModelError
from yoloquant.runtime.tensorrt.layers import Layer, find_kernels, parse_log
from yoloquant.targets.tensorrt import rtx
from yoloquant.targets.tensorrt.lint import lint
from yoloquant.targets.tensorrt.rtx import RtxReport, build_check

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX (module tensorrt_rtx) is not installed"
)

# From a build log of TensorRT-RTX 1.7.1: a quantized convolution "a" with SiLU and Tanh, and a float one "b"; shapes
# and strides are left out of some tensors. 0x1F separates the entries of the metadata.
LOG = """\
[INFO] Engine generation completed in 0.123 seconds.
[VERBOSE] Layers:
Name: __myl_MulMinMaxRounCast_myl0_0, LayerType: kgen, Inputs: [ { Name: images, Dimensions: [1,8,8,8], Strides: \
[512,64,8,1], StrideOrder: [3,2,1,0], Datatype: Float, Format: (Linear) Row major linear format }], Constants: [ { \
Name: __mye354_const-lit-in_myl0, Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: \
__mye203a_out_before_bias.1_2_myl0, Datatype: Int8, Format: (NHWC) Channel major format }], TacticName: \
__myl_MulMinMaxRounCast_0x72e61b0ad85c2b0edb44e8135287b026, StreamId: 0, Metadata: [ONNX Layer: images_0_Q]
Name: a_myl0_1, LayerType: correlation, Inputs: [ { Name: __mye203a_out_before_bias.1_2_myl0, Dimensions: [1,8,8,8], \
Datatype: Int8, Format: (NHWC) Channel major format }], Constants: [ { Name: __mye299dconst_myl0, Dimensions: \
[8,8,3,3], Strides: [72,1,24,8], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }, { \
Name: __mye304dconst_myl0, Datatype: Float, Format: (NHWC) Channel major format }], Outputs: [ { Name: \
__myln_k_arg__bb1_3_myl0, Datatype: Float, Format: (NHWC) Channel major format }], TacticName: __myelin_CASK_STUB, \
StreamId: 0, Metadata: [ONNX Layer: a]\x1f[ONNX Layer: images_0_DQ]\x1f[ONNX Layer: a.weight_DQ]
Name: __myl_MulAddSiluTanh_myl0_2, LayerType: kgen, Inputs: [ { Name: __myln_k_arg__bb1_3_myl0, Datatype: Float, \
Format: (NHWC) Channel major format }], Constants: [], Outputs: [ { Name: __mye295_4_myl0, Datatype: Float, Format: \
(NHWC) Channel major format }], TacticName: __myl_MulAddSiluTanh, StreamId: 0, Metadata: [ONNX Layer: a]\x1f\
[ONNX Layer: tanh_7]\x1f[ONNX Layer: act_sigmoid]\x1f[ONNX Layer: act_mul]
Name: b_myl0_3, LayerType: correlation, Inputs: [ { Name: __mye295_4_myl0, Dimensions: [1,8,8,8], Datatype: Float, \
Format: (NHWC) Channel major format }], Constants: [ { Name: __mye314dconst_myl0, Datatype: Float, Format: (NHWC) \
Channel major format }], Outputs: [ { Name: b_out, Datatype: Float, Format: (NHWC) Channel major format }], \
TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: b]
Name: __mye28184_myl0_216, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, \
EventId: 16, Metadata:\x20

I/O Tensors:
 Name: images, IOMode: Input, DataType: Float, Dimensions: [1,8,8,8], Location: Device
"""


def _save(net: Any, path: Path, output: str = "head_out") -> Path:
    onnx.save(net.model(output), path)
    return path


def test_log_layers() -> None:
    layers = parse_log(LOG.splitlines())
    assert [layer.kind for layer in layers] == ["kgen", "correlation", "kgen", "correlation", "wait"]
    assert layers[1] == Layer(
        name="a_myl0_1",
        kind="correlation",
        inputs=("Int8",),
        weights=("Int8", "Float"),
        nodes=("a", "images_0_DQ", "a.weight_DQ"),
        tactic="__myelin_CASK_STUB",
        outputs=("Float",),
    )
    assert layers[2].nodes == ("a", "tanh_7", "act_sigmoid", "act_mul")
    assert layers[4].inputs == layers[4].nodes == ()


def test_log_kernels() -> None:
    kernels = find_kernels(parse_log(LOG.splitlines()), ["a", "b", "c"])
    assert {name: [k.is_int8 for k in found] for name, found in kernels.items()} == {"a": [True], "b": [False], "c": []}


def test_log_without_layers() -> None:
    assert parse_log(["[INFO] nothing here", "Name: of nothing", ""]) == ()


def test_log_tolerates_missing_parts() -> None:
    (layer,) = parse_log(["Name: x, LayerType: gemm, Metadata: [ONNX Layer: /a/[0]/Gemm]"])
    assert (layer.kind, layer.inputs, layer.nodes) == ("gemm", (), ("/a/[0]/Gemm",))
    assert not layer.is_int8


def test_merged_convolutions_are_found_by_their_metadata() -> None:
    types = {"inputs": ("Int8",), "weights": ("Int8",), "outputs": ("Float",)}
    merged = Layer("a||b_myl0_1", "correlation", nodes=("a", "b"), **types)
    assert find_kernels([merged], ["a", "b"]) == {"a": (merged,), "b": (merged,)}


def test_runtime_fusion_is_not_int8() -> None:
    fused = Layer("__myl_CastMulFc_myl0_1", "runtime_fusion", ("Int8",), ("Int8",), ("fc",), outputs=("Float",))
    assert not fused.is_int8


@needs_rtx
def test_good_network_runs_in_int8(good_net: Any, tmp_path: Path) -> None:
    report = build_check(_save(good_net, tmp_path / "good.onnx"), planned_convs=["stem", "cv1", "cv2", "last"])
    assert report.ok and report.available and report.parsed and report.built and not report.crashed
    assert report.int8_convs == ("stem", "cv1", "cv2", "last")
    assert report.parser_errors == report.float_convs == report.unseen_convs == ()
    assert report.version and report.seconds > 0
    assert "4 of 4 planned convolutions run in Int8" in report.summary()


@needs_rtx
def test_float_and_missing_convolutions_are_reported(good_net: Any, tmp_path: Path) -> None:
    report = build_check(_save(good_net, tmp_path / "good.onnx"), planned_convs=["head", "absent", "stem"])
    assert (report.int8_convs, report.float_convs, report.unseen_convs) == (("stem",), ("head",), ("absent",))
    assert report.built and not report.ok
    assert "in float: head; not found in the engine: absent" in report.summary()


@needs_rtx
def test_residual_and_concat_move_int8(good_net: Any, tmp_path: Path) -> None:
    report = build_check(_save(good_net, tmp_path / "good.onnx"))
    (residual,) = (layer for layer in report.layers if "residual" in layer.nodes)
    assert "Int8" in residual.inputs and set(residual.outputs) == {"Int8"}
    pools = [layer for layer in report.layers if layer.kind == "maxpool"]
    assert pools and all(pool.inputs == pool.outputs == ("Int8",) for pool in pools)


def _weight_only(net: Any) -> str:
    return net.conv("conv", "images")


def _activation_only(net: Any) -> str:
    return net.conv("conv", net.qdq("images"), quantized=False)


def _weight_axis_1(net: Any) -> str:
    return net.op("Conv", net.qdq("images"), net.weight("conv", (8, 8, 3, 3), 1), name="conv", pads=[1, 1, 1, 1])


def _per_channel_activation(net: Any) -> str:
    return net.conv("conv", net.qdq("images", np.full(8, 0.05), axis=1))


def _scale_of_one_entry(net: Any) -> str:
    return net.conv("conv", net.qdq("images", [0.05]))


def _relu_between(net: Any) -> str:
    return net.conv("conv", net.op("Relu", net.qdq("images")))


@needs_rtx
@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (_weight_only, "TRT024"),
        (_activation_only, "TRT024"),
        (_weight_axis_1, "TRT021"),
        (_per_channel_activation, "TRT023"),
        (_scale_of_one_entry, "TRT014"),
        (_relu_between, "TRT024"),
    ],
)
def test_what_the_linter_calls_silently_float_is(
    new_net: Callable[[], Any], tmp_path: Path, build: Callable[[Any], str], rule: str
) -> None:
    net = new_net()
    path = _save(net, tmp_path / "model.onnx", build(net))
    assert rule in {f.rule for f in lint(path)}
    report = build_check(path, planned_convs=["conv"])
    assert report.built and report.float_convs == ("conv",) and not report.ok


@needs_rtx
def test_parser_errors_name_the_node(good_net: Any, tmp_path: Path) -> None:
    good_net.consts["branch_zero_point"] = np.int8(1)
    report = build_check(_save(good_net, tmp_path / "bad.onnx"), planned_convs=["cv2"])
    assert not report.parsed and not report.built and not report.crashed and not report.ok
    assert report.parser_errors[0].node == "branch_Q" and "zero point" in report.parser_errors[0].message.lower()
    assert "branch_Q" in report.summary() and "ERROR" in report.log_excerpt


@needs_rtx
def test_a_crash_is_a_result(good_net: Any, tmp_path: Path) -> None:
    del good_net.consts["images_scale"]
    good_net.nodes.insert(0, helper.make_node("ReduceMax", ["images"], ["images_scale"], name="max", keepdims=0))
    report = build_check(_save(good_net, tmp_path / "dynamic.onnx"), planned_convs=["stem"])
    assert report.available and report.crashed and not report.built and not report.ok
    assert report.version and "ended with code" in report.log_excerpt
    assert "crashed" in report.summary()


@needs_rtx
def test_a_timeout_counts_as_a_crash(good_net: Any, tmp_path: Path) -> None:
    report = build_check(_save(good_net, tmp_path / "good.onnx"), timeout_s=0.01)
    assert report.crashed and "stopped after 0.01 s" in report.log_excerpt


@needs_rtx
def test_garbage_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "garbage.onnx").write_bytes(b"\xff not a protobuf")
    report = build_check(tmp_path / "garbage.onnx")
    assert not report.parsed and not report.ok


def test_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no ONNX file"):
        build_check(tmp_path / "absent.onnx")


def test_without_tensorrt_rtx(good_net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx, "is_available", lambda: False)
    report = build_check(_save(good_net, tmp_path / "good.onnx"), planned_convs=["stem"])
    assert report == RtxReport(available=False)
    assert not report.ok and "not installed" in report.summary()
