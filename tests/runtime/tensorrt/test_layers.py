"""The inspector's answers in the forms of several releases: their keys and words, fewer of their numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from yoloquant.runtime.errors import TargetError
from yoloquant.runtime.tensorrt.layers import Int8Report, Layer, check, parse

INT8 = "Thirty-two wide channel vectorized row major Int8 format"


def _entry(name: str, kind: str = "CaskConvolution", inputs: tuple[str, ...] = (INT8,), **more: Any) -> dict[str, Any]:
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": f"t{i}", "Location": "Device", "Format/Datatype": t} for i, t in enumerate(inputs)],
        "Outputs": [{"Name": "y", "Format/Datatype": INT8}],
        **more,
    }


def _check(entries: list[Any], *planned: str) -> Int8Report:
    return check(parse(json.dumps({"Layers": entries, "Bindings": ["images", "output0"]})), planned)


WEIGHTS = {"Weights": {"Type": "Int8", "Count": 36864}, "Bias": {"Type": "Float", "Count": 64}}


def test_trt_8_convolutions_with_all_that_is_fused() -> None:
    """Names and keys as in the resnet examples of NVIDIA's trt-engine-explorer."""
    report = _check(
        [
            _entry("QuantizeLinear_2", "Reformat", ("Row major linear FP32",)),
            _entry(
                "conv1.weight + QuantizeLinear_7 + Conv_9 + MaxPool_12",
                "ConvActPool",
                ("Row major Int8 format",),
                ConvWeights={"Type": "Int8", "Count": 9408},
            ),
            _entry(
                "layer1.0.conv2.weight + QuantizeLinear_32 + Conv_34 + Add_42 + Relu_43", inputs=(INT8, INT8), **WEIGHTS
            ),
            _entry("fc.weight + Gemm_1", inputs=("Row major linear FP32",), Weights={"Type": "Float", "Count": 4}),
        ],
        *("Conv_9", "Conv_34", "Gemm_1"),
    )
    assert report.int8 == ("Conv_9", "Conv_34") and report.other == ("Gemm_1",) and not report.ok
    assert report.summary() == "2 of 3 planned layers run in Int8; in another type: Gemm_1"


def test_convolution_with_silu_and_merged_ones() -> None:
    report = _check(
        [
            _entry("model.0.conv:weight/quantize + model.0.conv + PWN(PWN(node_sigmoid), node_mul)", **WEIGHTS),
            _entry("model.1.conv || model.2.conv", **WEIGHTS),
        ],
        *("model.0.conv", "model.1.conv", "model.2.conv"),
    )
    assert report.ok and len(report.int8) == 3


def test_name_that_is_the_start_of_another_is_not_it() -> None:
    report = _check([_entry("model.10.conv", **WEIGHTS)], "model.1", "model.10.conv")
    assert report.int8 == ("model.10.conv",) and report.missing == ("model.1",)


def test_reformatting_before_a_convolution_is_not_the_convolution() -> None:
    report = _check(
        [
            _entry("Reformatting CopyNode for Input Tensor 0 to model.0.conv + x", "Reformat", (INT8,)),
            _entry("model.0.conv", inputs=("Row major linear FP32",), Weights={"Type": "Float"}),
        ],
        "model.0.conv",
    )
    assert report.other == ("model.0.conv",)


def test_trt_10_tells_the_nodes_in_its_metadata() -> None:
    separator = "\x1e"
    report = _check(
        [
            _entry(
                "__myl_fused_7",
                "gemm",
                ("Int8",),
                TacticName="sm80_xmma_gemm_i8f32_i8i32_f32",
                Metadata=f"[ONNX Layer: w_dequantize]{separator}[ONNX Layer: model.10.attn.qkv.conv]",
            ),
            _entry("__myl_cast", "kgen", ("Half",), Metadata="[ONNX Layer: model.10.attn.qkv.conv]"),
        ],
        "model.10.attn.qkv.conv",
    )
    assert report.int8 == ("model.10.attn.qkv.conv",)


def test_myelins_names_and_separate_datatype() -> None:
    """As TensorRT-RTX 1.7.1 words it in its log: ``Datatype`` and ``Constants``."""
    entry = {
        "Name": "model.0.conv_myl0_1",
        "LayerType": "correlation",
        "Inputs": [{"Name": "x", "Datatype": "Int8", "Format": "(NHWC) Channel major format"}],
        "Constants": [{"Name": "w", "Datatype": "Int8"}, {"Name": "b", "Datatype": "Float"}],
    }
    floating = {**entry, "Constants": [{"Name": "w", "Datatype": "Float"}]}
    cast = {**entry, "LayerType": "runtime_fusion"}
    assert _check([entry], "model.0.conv").ok
    assert _check([floating], "model.0.conv").other == ("model.0.conv",)
    assert _check([cast], "model.0.conv").other == ("model.0.conv",)


def test_hidden_region_is_told_apart_from_a_missing_layer() -> None:
    region = _entry("{ForeignNode[model.10.m.0.attn...model.10.cv2.conv]}", "Myelin", ("Half",))
    report = _check([region, _entry("model.0.conv", **WEIGHTS)], "model.0.conv", "model.10.ffn.conv")
    assert report.hidden == ("model.10.ffn.conv",) and report.ok
    assert "inside a region that the inspector does not show: model.10.ffn.conv" in report.summary()


def test_engine_with_names_only_cannot_be_checked() -> None:
    report = _check(["model.0.conv + x", "model.1.conv"], "model.0.conv")
    assert report.named_only and not report.ok and "only the names" in report.summary()


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"Bindings": []}', '{"Layers": [{"LayerType": "x"}]}'])
def test_other_answers_are_an_error(text: str) -> None:
    with pytest.raises(TargetError, match="is not understood"):
        parse(text)


def test_int8_input_with_float_weights_is_not_int8() -> None:
    assert not Layer("c", "CaskConvolution", (INT8,), ("Half",)).is_int8
    assert not Layer("c", "CaskConvolution", ("Half", INT8), ("Int8",)).is_int8
    assert Layer("c", "CaskConvolution", (INT8,)).is_int8


def test_names_of_nodes_may_hold_brackets() -> None:
    node = "/model.10/m/[0]/Gemm"
    entry = _entry(
        "__myl_fused_7", "gemm", ("Int8",), Metadata=f"[ONNX Layer: x_DQ]\x1e[ONNX Layer: {node}]", **WEIGHTS
    )
    assert _check([entry], node).int8 == (node,)
    assert _check([_entry(f"{node}_myl0_3", "gemm", ("Int8",), **WEIGHTS)], node).int8 == (node,)


def test_a_kernel_that_lists_a_node_first_comes_before_those_that_list_it_too() -> None:
    """As in a build log, where what follows a float convolution may read Int8 for another one."""
    first = Layer("__myl_a", "correlation", ("Float",), ("Float",), ("a", "b_DQ"))
    later = Layer("__myl_b", "correlation", ("Int8",), ("Int8",), ("b", "a"))
    assert check((later, first), ["a", "b"]) == Int8Report(int8=("b",), other=("a",))
