from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from yoloquant.errors import ModelError
from yoloquant.targets.tensorrt.lint import RULES, LintFinding, Severity, lint, rules

PLANNED = ("stem", "cv1", "cv2", "last")
Mutation = Callable[[Any], onnx.ModelProto]


def _finish(net: Any) -> onnx.ModelProto:
    return net.model("head_out")


def _node(net: Any, name: str) -> onnx.NodeProto:
    return next(node for node in net.nodes if node.name == name)


def _without_pair(net: Any, name: str) -> None:
    """Remove a Q/DQ pair; its readers get the float tensor."""
    q, dq = _node(net, f"{name}_Q"), _node(net, f"{name}_DQ")
    for node in net.nodes:
        for i, tensor in enumerate(node.input):
            if tensor == dq.output[0]:
                node.input[i] = q.input[0]
    _drop_pair(net, name)


def _drop_pair(net: Any, name: str) -> None:
    """Remove a Q/DQ pair whose reader gets something else."""
    net.nodes.remove(_node(net, f"{name}_Q"))
    net.nodes.remove(_node(net, f"{name}_DQ"))


def _insert_before(net: Any, reader: str, index: int, kind: str, **attrs: Any) -> None:
    node = _node(net, reader)
    extra = helper.make_node(kind, [node.input[index]], [f"{reader}_{kind}"], name=f"{reader}_{kind}_node", **attrs)
    node.input[index] = extra.output[0]
    net.nodes.insert(net.nodes.index(node), extra)


def _pair_before(net: Any, reader: str, index: int, scale: Any = 0.05, **kwargs: Any) -> None:
    node = _node(net, reader)
    place = net.nodes.index(node)
    node.input[index] = net.qdq(node.input[index], scale, name=f"{reader}_extra", **kwargs)
    pair = net.nodes[-2:]
    del net.nodes[-2:]
    net.nodes[place:place] = pair


def _mutations() -> list[tuple[str, str, Mutation]]:
    """Rule, label, and a function that breaks exactly this rule in the good network."""
    cases: list[tuple[str, str, Mutation]] = []

    def case(rule: str, label: str = "") -> Callable[[Mutation], Mutation]:
        def add(mutate: Mutation) -> Mutation:
            cases.append((rule, label or mutate.__name__, mutate))
            return mutate

        return add

    for opset in (12, 18, 21):

        def set_opset(net: Any, opset: int = opset) -> onnx.ModelProto:
            net.opset = opset
            return _finish(net)

        cases.append(("TRT001", f"opset_{opset}", set_opset))

    @case("TRT002")
    def dynamic_batch(net: Any) -> onnx.ModelProto:
        model = _finish(net)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
        return model

    @case("TRT002")
    def unknown_output_shape(net: Any) -> onnx.ModelProto:
        model = _finish(net)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        return model

    @case("TRT003")
    def microsoft_domain(net: Any) -> onnx.ModelProto:
        _node(net, "stem_act_mul").domain = "com.microsoft"
        return _finish(net)

    @case("TRT004")
    def qlinear_conv(net: Any) -> onnx.ModelProto:
        _node(net, "head").op_type = "QLinearConv"
        return _finish(net)

    @case("TRT004")
    def dynamic_quantize(net: Any) -> onnx.ModelProto:
        net.op("DynamicQuantizeLinear", "images", name="dynamic")
        return _finish(net)

    @case("TRT005")
    def repeated_name(net: Any) -> onnx.ModelProto:
        _node(net, "stem_act_mul").name = "cv1_act_mul"
        return _finish(net)

    @case("TRT006")
    def no_name(net: Any) -> onnx.ModelProto:
        _node(net, "stem_act_mul").name = ""
        return _finish(net)

    @case("TRT007")
    def identity_before_weight(net: Any) -> onnx.ModelProto:
        _insert_before(net, "cv1.weight_Q", 0, "Identity")
        return _finish(net)

    @case("TRT007")
    def cast_before_activation(net: Any) -> onnx.ModelProto:
        _insert_before(net, "images_Q", 0, "Cast", to=TensorProto.FLOAT)
        return _finish(net)

    @case("TRT007")
    def scale_in_constant_node(net: Any) -> onnx.ModelProto:
        scale = numpy_helper.from_array(net.consts.pop("images_scale"))
        net.nodes.insert(0, helper.make_node("Constant", [], ["images_scale"], name="constant", value=scale))
        return _finish(net)

    @case("TRT008")
    def dynamic_scale(net: Any) -> onnx.ModelProto:
        del net.consts["images_scale"]
        net.nodes.insert(0, helper.make_node("ReduceMax", ["images"], ["images_scale"], name="max", keepdims=0))
        return _finish(net)

    @case("TRT009")
    def half_scale(net: Any) -> onnx.ModelProto:
        net.consts["images_scale"] = np.float16(0.05)
        return _finish(net)

    for label, value in (("zero", 0.0), ("negative", -0.1), ("nan", np.nan), ("infinite", np.inf)):

        def set_scale(net: Any, value: float = value) -> onnx.ModelProto:
            net.consts["cv1.weight_scale"][3] = value
            return _finish(net)

        cases.append(("TRT010", f"scale_{label}", set_scale))

    @case("TRT011")
    def two_inputs(net: Any) -> onnx.ModelProto:
        for name in ("branch_Q", "branch_DQ"):
            del _node(net, name).input[2:]
        return _finish(net)

    for dtype in (np.uint8, np.int16):

        def set_dtype(net: Any, dtype: Any = dtype) -> onnx.ModelProto:
            net.consts["branch_zero_point"] = dtype(0)
            return _finish(net)

        cases.append(("TRT012", f"zero_point_{dtype.__name__}", set_dtype))

    @case("TRT013")
    def offset(net: Any) -> onnx.ModelProto:
        net.consts["branch_zero_point"] = np.int8(-3)
        return _finish(net)

    @case("TRT014")
    def scale_of_one_entry(net: Any) -> onnx.ModelProto:
        net.consts["branch_scale"] = np.array([0.05], np.float32)
        net.consts["branch_zero_point"] = np.array([0], np.int8)
        return _finish(net)

    @case("TRT014")
    def wrong_channel_count(net: Any) -> onnx.ModelProto:
        net.consts["cv1.weight_scale"] = np.full(7, 0.01, np.float32)
        net.consts["cv1.weight_zero_point"] = np.zeros(7, np.int8)
        return _finish(net)

    @case("TRT014")
    def zero_point_shape(net: Any) -> onnx.ModelProto:
        net.consts["cv1.weight_zero_point"] = np.int8(0)
        return _finish(net)

    @case("TRT015")
    def integer_output(net: Any) -> onnx.ModelProto:
        model = _finish(net)
        model.graph.output.append(helper.make_tensor_value_info("branch_Q_out", TensorProto.INT8, (1, 8, 8, 8)))
        return model

    @case("TRT015")
    def unused_q(net: Any) -> onnx.ModelProto:
        net.op("QuantizeLinear", "images", "images_scale", "images_zero_point", name="unused")
        return _finish(net)

    @case("TRT015")
    def lone_dq(net: Any) -> onnx.ModelProto:
        cast = helper.make_node("Cast", ["images"], ["bytes"], name="cast", to=TensorProto.INT8)
        clip = helper.make_node("Abs", ["bytes"], ["positive"], name="abs")
        net.nodes[:0] = [cast, clip]
        net.nodes.remove(_node(net, "images_Q"))
        _node(net, "images_DQ").input[0] = "positive"
        return _finish(net)

    @case("TRT016")
    def pair_of_two_scales(net: Any) -> onnx.ModelProto:
        _node(net, "branch_DQ").input[1] = net.const("another_scale", np.float32(0.04))
        return _finish(net)

    @case("TRT017")
    def half_weight(net: Any) -> onnx.ModelProto:
        net.consts["cv1.weight"] = net.consts["cv1.weight"].astype(np.float16)
        return _finish(net)

    @case("TRT018")
    def stored_integers(net: Any) -> onnx.ModelProto:
        q = _node(net, "cv1.weight_Q")
        scale = net.consts["cv1.weight_scale"].reshape(-1, 1, 1, 1)
        net.const(q.output[0], np.rint(net.consts.pop("cv1.weight") / scale).astype(np.int8))
        net.nodes.remove(q)
        return _finish(net)

    @case("TRT020")
    def integer_bias(net: Any) -> onnx.ModelProto:
        net.const("bias_q", np.zeros(8, np.int32))
        net.const("bias_scale", np.full(8, 0.01, np.float32))
        net.const("bias_zero_point", np.zeros(8, np.int32))
        inputs = ["bias_q", "bias_scale", "bias_zero_point"]
        net.nodes.insert(0, helper.make_node("DequantizeLinear", inputs, ["bias_dq"], name="bias_DQ", axis=0))
        _node(net, "cv1").input[2] = "bias_dq"
        return _finish(net)

    @case("TRT021")
    def weight_axis_1(net: Any) -> onnx.ModelProto:
        for name in ("cv1.weight_Q", "cv1.weight_DQ"):
            _node(net, name).attribute[0].i = 1
        return _finish(net)

    for kind, shape, attrs, axis in (
        ("MatMul", (8, 8), {}, 0),
        ("Gemm", (8, 8), {"transB": 1}, 1),
        ("Gemm", (8, 8), {"transB": 0}, 0),
        ("ConvTranspose", (8, 8, 1, 1), {}, 1),
    ):

        def wrong_axis(
            net: Any, kind: str = kind, shape: Any = shape, attrs: Any = attrs, axis: int = axis
        ) -> onnx.ModelProto:
            net.op(kind, "identity_DQ_out", net.weight("extra", shape, axis), name="extra", **attrs)
            return _finish(net)

        cases.append(("TRT021", f"{kind}{attrs or ''}_axis_{axis}", wrong_axis))

    for axis in (None, 0):

        def conv_transpose(net: Any, axis: int | None = axis) -> onnx.ModelProto:
            net.op("ConvTranspose", "identity_DQ_out", net.weight("up", (8, 8, 2, 2), axis), name="up", strides=[2, 2])
            return _finish(net)

        cases.append(("TRT022", f"conv_transpose_{axis}", conv_transpose))

    @case("TRT023")
    def per_channel_activation(net: Any) -> onnx.ModelProto:
        net.consts["branch_scale"] = np.full(8, 0.05, np.float32)
        net.consts["branch_zero_point"] = np.zeros(8, np.int8)
        return _finish(net)

    @case("TRT024")
    def weight_only(net: Any) -> onnx.ModelProto:
        _without_pair(net, "branch")
        return _finish(net)

    @case("TRT024")
    def activation_only(net: Any) -> onnx.ModelProto:
        _without_pair(net, "cv1.weight")
        return _finish(net)

    @case("TRT024")
    def resize_between(net: Any) -> onnx.ModelProto:
        conv = _node(net, "cv2")
        sizes = net.const("sizes", np.array([1, 8, 8, 8]))
        conv.input[0] = net.op("Resize", conv.input[0], "", "", sizes, name="resize", mode="nearest")
        net.nodes.insert(net.nodes.index(conv), net.nodes.pop())
        return _finish(net)

    @case("TRT025")
    def pair_before_silu(net: Any) -> onnx.ModelProto:
        sigmoid, mul = _node(net, "cv1_act_sigmoid"), _node(net, "cv1_act_mul")
        _pair_before(net, "cv1_act_sigmoid", 0)
        mul.input[0] = sigmoid.input[0]
        return _finish(net)

    @case("TRT025")
    def pair_before_relu(net: Any) -> onnx.ModelProto:
        x = net.conv("extra", "identity_DQ_out")
        net.conv("after", net.qdq(net.op("Relu", net.qdq(x))))
        return _finish(net)

    @case("TRT026")
    def float_identity(net: Any) -> onnx.ModelProto:
        _node(net, "residual").input[0] = "stem_act_mul_out"
        return _finish(net)

    @case("TRT027")
    def quantized_branch(net: Any) -> onnx.ModelProto:
        _pair_before(net, "residual", 1)
        return _finish(net)

    @case("TRT028")
    def concat_of_two_scales(net: Any) -> onnx.ModelProto:
        _drop_pair(net, "right")
        _node(net, "concat").input[1] = net.qdq("pre_out", 0.07)
        net.op("Tanh", "images", name="pre")
        return _finish(net)

    @case("TRT028")
    def concat_result_of_another_scale(net: Any) -> onnx.ModelProto:
        net.consts["both_scale"] = np.float32(0.06)
        return _finish(net)

    @case("TRT029")
    def concat_with_float_input(net: Any) -> onnx.ModelProto:
        _drop_pair(net, "right")
        _node(net, "concat").input[1] = "stem_act_mul_out"
        return _finish(net)

    @case("TRT029")
    def float_concat(net: Any) -> onnx.ModelProto:
        _drop_pair(net, "right")
        _node(net, "concat").input[:] = ["stem_act_mul_out", "cv1_act_mul_out"]
        return _finish(net)

    @case("TRT029")
    def float_pool(net: Any) -> onnx.ModelProto:
        _node(net, "pool").input[0] = "residual_out"
        return _finish(net)

    @case("TRT030")
    def pool_of_two_scales(net: Any) -> onnx.ModelProto:
        pool = net.op("MaxPool", "identity_DQ_out", name="extra_pool", kernel_shape=[1, 1])
        net.conv("after", net.qdq(pool, 0.03))
        return _finish(net)

    @case("TRT031")
    def quantized_output(net: Any) -> onnx.ModelProto:
        x = net.qdq("head_out", name="wasted")
        return net.model(x)

    @case("TRT031")
    def quantized_softmax(net: Any) -> onnx.ModelProto:
        net.op("Softmax", net.qdq("cv1_act_mul_out", 0.05, name="wasted"), name="softmax")
        return _finish(net)

    @case("TRT032")
    def two_scales(net: Any) -> onnx.ModelProto:
        net.conv("extra", net.qdq("cv1_act_mul_out", 0.02))
        return _finish(net)

    @case("TRT033")
    def planned_but_float(net: Any) -> onnx.ModelProto:
        _without_pair(net, "images")
        _without_pair(net, "stem.weight")
        return _finish(net)

    @case("TRT033")
    def planned_but_missing(net: Any) -> onnx.ModelProto:
        _node(net, "stem").name = "renamed"
        return _finish(net)

    return cases


CASES = _mutations()


def test_good_model_has_no_findings(good_net: Any) -> None:
    model = _finish(good_net)
    onnx.checker.check_model(model, full_check=True)
    assert lint(model, planned_convs=PLANNED) == ()


@pytest.mark.parametrize(("rule", "mutate"), [(r, m) for r, _, m in CASES], ids=[f"{r}-{n}" for r, n, _ in CASES])
def test_each_rule_fires_alone(good_net: Any, rule: str, mutate: Mutation) -> None:
    findings = lint(mutate(good_net), planned_convs=PLANNED)
    assert {f.rule for f in findings} == {rule}
    assert all(f.severity is RULES[rule].severity and f.message and f.fix for f in findings)


def test_every_rule_has_a_mutation() -> None:
    assert {rule for rule, _, _ in CASES} == {rule.id for rule in rules()}


def test_rules_are_documented() -> None:
    for rule in rules():
        assert rule.id.startswith("TRT") and len(rule.id) == 6
        assert rule.title and rule.why and rule.check.__doc__


@pytest.mark.parametrize(
    "kind",
    ["Slice", "Split", "Reshape", "Transpose", "Pad", "MaxPool", "Concat"],
)
def test_moving_operators_keep_the_grid(new_net: Callable[[], Any], kind: str) -> None:
    net = new_net()
    x = net.qdq("images", name="images")
    channels = 8
    if kind == "Slice":
        bounds = [net.const(n, np.array([v])) for n, v in (("starts", 4), ("ends", 8), ("axes", 1))]
        x, channels = net.op(kind, x, *bounds), 4
    elif kind == "Split":
        net.nodes.append(helper.make_node(kind, [x], ["first", "second"], name="split", axis=1))
        x, channels = "second", 4
    elif kind == "Reshape":
        x = net.op(kind, x, net.const("shape", np.array([1, 8, 8, 8])))
    elif kind == "Transpose":
        x = net.op(kind, x, perm=[0, 1, 3, 2])
    elif kind == "Pad":
        x = net.op(kind, x, net.const("pads", np.zeros(8, np.int64)))
    elif kind == "MaxPool":
        x = net.op(kind, x, kernel_shape=[1, 1])
    else:
        x, channels = net.op(kind, x, x, axis=1), 16
    assert lint(net.model(net.conv("conv", x, cin=channels)), planned_convs=["conv"]) == ()


@pytest.mark.parametrize(
    ("kind", "axis", "attrs"),
    [("MatMul", 1, {}), ("MatMul", None, {}), ("Gemm", 0, {"transB": 1}), ("Gemm", 1, {})],
)
def test_linear_operators(new_net: Callable[[], Any], kind: str, axis: int | None, attrs: dict[str, int]) -> None:
    net = new_net()
    x = net.op("Reshape", net.qdq("images"), net.const("shape", np.array([64, 8])))
    out = net.op(kind, x, net.weight("linear", (8, 8), axis), name="linear", **attrs)
    assert lint(net.model(out, (64, 8)), planned_convs=["linear"]) == ()


def _stack(net: Any, blocks: list[str]) -> str:
    """A network of canonically quantized blocks; returns its result."""

    def conv(x: str, cin: int = 8) -> str:
        name = f"c{len(net.nodes)}"
        return net.silu(net.conv(name, x, cin), f"{name}_act")

    x = net.qdq("images")
    for block in blocks:
        if block == "conv":
            x = net.qdq(conv(x))
        elif block == "residual":
            x = net.qdq(net.op("Add", x, conv(net.qdq(conv(x)))))
        elif block == "residual_reversed":
            x = net.qdq(net.op("Add", conv(net.qdq(conv(x))), x))
        elif block == "pool":
            x = net.qdq(net.op("MaxPool", x, kernel_shape=[1, 1]))
        else:
            x = net.qdq(conv(net.qdq(net.op("Concat", x, net.qdq(conv(x)), axis=1)), 16))
    return net.conv("end", x)


BLOCKS = st.lists(st.sampled_from(["conv", "residual", "residual_reversed", "pool", "concat"]), max_size=6)


@given(blocks=BLOCKS)
@settings(max_examples=25, deadline=None)
def test_canonical_networks_are_clean(new_net: Callable[[], Any], blocks: list[str]) -> None:
    net = new_net()
    model = net.model(_stack(net, blocks))
    onnx.checker.check_model(model, full_check=True)
    assert lint(model, planned_convs=[n.name for n in net.nodes if n.op_type == "Conv"]) == ()


@given(blocks=BLOCKS, data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_bad_scale_is_found_where_it_is(new_net: Callable[[], Any], blocks: list[str], data: st.DataObject) -> None:
    net = new_net()
    output = _stack(net, blocks)
    name = data.draw(st.sampled_from([n for n in net.consts if n.endswith("_scale")]))
    net.consts[name] = net.consts[name] * np.float32(0)
    nodes = {n.name for n in net.nodes if name in n.input}
    assert {f.node for f in lint(net.model(output)) if f.rule == "TRT010"} == nodes and len(nodes) == 2


def test_attention_may_stay_float(good_net: Any) -> None:
    good_net.op("MatMul", "identity_DQ_out", "cv1_act_mul_out", name="attention")
    model = _finish(good_net)
    assert lint(model, planned_convs=PLANNED) == ()
    assert [f.rule for f in lint(model, planned_convs=[*PLANNED, "attention"])] == ["TRT024"]


def test_planned_names_are_optional(good_net: Any) -> None:
    assert lint(_finish(good_net)) == ()


def test_path_and_model_agree(good_net: Any, tmp_path: Path) -> None:
    good_net.consts["branch_zero_point"] = np.int8(1)
    model = _finish(good_net)
    onnx.save(model, tmp_path / "model.onnx")
    assert lint(tmp_path / "model.onnx") == lint(model) != ()


def test_bad_files_are_model_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no ONNX file"):
        lint(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\xff not a protobuf")
    with pytest.raises(ModelError, match="no readable ONNX"):
        lint(tmp_path / "broken.onnx")


def test_findings_are_frozen() -> None:
    finding = LintFinding("TRT001", Severity.ERROR, "", "message", "fix")
    with pytest.raises(AttributeError):
        finding.rule = "TRT002"  # type: ignore[misc]
