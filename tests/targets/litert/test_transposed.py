"""A transposed convolution that the converter left in float becomes LiteRT's integer operator and computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from edgetpu_graphs import Op, T, build

from yoloquant.errors import TargetError
from yoloquant.targets.edgetpu.check import check
from yoloquant.targets.litert.flatbuffer import Flatbuffer, parse, serialize
from yoloquant.targets.litert.operator_versions import needed
from yoloquant.targets.litert.transposed import TransposedWeight, make_integer

RNG = np.random.default_rng(0)
WEIGHT = RNG.integers(-127, 128, (4, 2, 2, 8)).astype(np.int8)  # out, height, width, in
SCALES = np.array([0.01, 0.002, 0.02, 0.005], np.float32)
BIAS = np.array([0.5, -2.0, 0.0, 1.0], np.float32)
SOURCE, RESULT = (0.05, 3), (0.1, -5)  # scale and zero_point
STRIDE = {"strideW": 2, "strideH": 2, "padding": 1}


def converted(*, bias: bool = True, quantized: bool = True, moved: bool = False) -> bytes:
    """What litert-torch makes of it: float between a dequantize and a quantize operator.

    Args:
        bias: Whether one is added behind.
        quantized: Whether the result is quantized.
        moved: Whether channels come first outside.
    """
    outside = {"x": (1, 8, 3, 5), "y": (1, 4, 6, 10)} if moved else {"x": (1, 3, 5, 8), "y": (1, 6, 10, 4)}
    tensors = {
        "x": T(outside["x"], scale=SOURCE[0], zero_point=SOURCE[1]),
        "real": T(outside["x"], "FLOAT32", scale=0),
        "shape": T((4,), "INT32", [1, 6, 10, 4], scale=0),
        "weight": T((4, 2, 2, 8), "FLOAT32", WEIGHT * SCALES[:, None, None, None], scale=0),
        "spread": T((1, 6, 10, 4), "FLOAT32", scale=0),
    }
    ops, first, last = [Op("DEQUANTIZE", ["x"], ["real"])], "real", "spread"
    if moved:
        tensors |= {"in": T((4,), "INT32", [0, 2, 3, 1], scale=0), "out": T((4,), "INT32", [0, 3, 1, 2], scale=0)}
        tensors["last"] = T((1, 3, 5, 8), "FLOAT32", scale=0)
        ops.append(Op("TRANSPOSE", ["real", "in"], ["last"], 1))
        first = "last"
    ops.append(Op("TRANSPOSE_CONV", ["shape", "weight", first], ["spread"], 1, STRIDE))
    if bias:
        tensors |= {"bias": T((4,), "FLOAT32", BIAS, scale=0), "sum": T((1, 6, 10, 4), "FLOAT32", scale=0)}
        ops.append(Op("ADD", ["spread", "bias"], ["sum"], 1))
        last = "sum"
    if moved:
        tensors["turned"] = T(outside["y"], "FLOAT32", scale=0)
        ops.append(Op("TRANSPOSE", [last, "out"], ["turned"], 1))
        last = "turned"
    if quantized:
        tensors["y"] = T(outside["y"], scale=RESULT[0], zero_point=RESULT[1])
        ops.append(Op("QUANTIZE", [last], ["y"]))
    return build(tensors, ops)


def rewritten(content: bytes, *weights: TransposedWeight) -> bytes:
    model = parse(content)
    make_integer(model, weights)
    return serialize(model)


def wanted(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    real = (x.astype(np.float64) - SOURCE[1]) * SOURCE[0]
    spread = np.einsum("nhwi,oyxi->nhywxo", real, WEIGHT * SCALES.astype(np.float64)[:, None, None, None])
    return (spread.reshape(1, 6, 10, 4) + bias) / RESULT[0] + RESULT[1]


@pytest.mark.parametrize("optimize", [True, False], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("moved", [True, False], ids=["moved", "in place"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_it_computes_the_same_to_one_step(bias: bool, moved: bool, optimize: bool) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    weight = TransposedWeight(WEIGHT, SCALES, BIAS if bias else None)
    content = rewritten(converted(bias=bias, moved=moved), weight)
    assert not Flatbuffer(content).float_ops()
    other: dict[str, Any] = (
        {} if optimize else {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    )
    interpreter = Interpreter(model_content=content, num_threads=1, **other)
    interpreter.allocate_tensors()
    x = RNG.integers(-128, 128, (1, 3, 5, 8)).astype(np.int8)
    given = np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if moved else x
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given)
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).astype(np.float64)
    got = got.transpose(0, 2, 3, 1) if moved else got
    exact = np.clip(wanted(x, BIAS if bias else np.zeros(4)), -128, 127)
    assert np.abs(got - exact).max() < 0.51 and got.std() > 10


@pytest.mark.parametrize("optimize", [True, False], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_one_scale_for_all_channels_loads_everywhere(bias: bool, optimize: bool) -> None:
    """As portable plans have it: XNNPACK refuses a bias with more scales than the weight."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    single = np.array([0.01], np.float32)
    content = rewritten(converted(bias=bias), TransposedWeight(WEIGHT, single, BIAS if bias else None))
    file = Flatbuffer(content)
    assert [len(file.tensors[i].scale) for i in (file.ops[0].inputs[1], *file.ops[0].inputs[3:])] == [1] * (1 + bias)
    other: dict[str, Any] = (
        {} if optimize else {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    )
    interpreter = Interpreter(model_content=content, num_threads=1, **other)
    interpreter.allocate_tensors()
    x = RNG.integers(-128, 128, (1, 3, 5, 8)).astype(np.int8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).astype(np.float64)
    real = (x.astype(np.float64) - SOURCE[1]) * SOURCE[0]
    spread = np.einsum("nhwi,oyxi->nhywxo", real, WEIGHT * 0.01).reshape(1, 6, 10, 4) + (BIAS if bias else 0)
    exact = np.clip(spread / RESULT[0] + RESULT[1], -128, 127)
    assert np.abs(got - exact).max() < 0.51 and got.std() > 10


@pytest.mark.parametrize("bias", [True, False])
def test_one_operator_of_the_oldest_version_is_left(bias: bool) -> None:
    file = Flatbuffer(rewritten(converted(bias=bias), TransposedWeight(WEIGHT, SCALES, BIAS if bias else None)))
    (op,) = file.ops
    assert (op.kind, op.version) == ("TRANSPOSE_CONV", 3 if bias else 2) and needed(file, op) == op.version
    assert not file.float_ops()
    weight = file.tensors[op.inputs[1]]
    assert np.array_equal(file.values(weight.index), WEIGHT) and np.array_equal(weight.scale, SCALES)
    assert weight.axis == 0 and op.options["strideW"] == 2
    assert [verdict.place.value for verdict in check(file).operators] == ["tpu"]


def test_other_shapes_are_refused() -> None:
    weight = TransposedWeight(WEIGHT, SCALES, None)
    with pytest.raises(TargetError, match="has 1 transposed convolutions, the model 2"):
        rewritten(converted(), weight, weight)
    with pytest.raises(TargetError, match="is not quantized at once"):
        rewritten(converted(quantized=False), weight)
