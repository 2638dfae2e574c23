"""Files of hand-written operators with 16-bit activations, read by the interpreter itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="the litert extra is not installed")

from edgetpu_graphs import Op, T, build, single

from yoloquant.errors import TargetError
from yoloquant.targets.litert.flatbuffer import Flatbuffer
from yoloquant.targets.litert.sixteen_bits import widen_file

RNG = np.random.default_rng(0)
COARSE = 0.5
"""Scale of the 8-bit grids; theirs of 16 bits is a 256th."""


def run(content: bytes, *inputs: np.ndarray) -> np.ndarray:
    """The real values of the only output for real values, which are put on the inputs' grids."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        assert detail["dtype"] is np.int16
        codes = np.rint(values / detail["quantization"][0]).clip(-32768, 32767).astype(np.int16)
        interpreter.set_tensor(detail["index"], codes)
    interpreter.invoke()
    (out,) = interpreter.get_output_details()
    scale, zero = out["quantization"]
    assert zero == 0
    return interpreter.get_tensor(out["index"]) * scale


def grids(content: bytes) -> dict[str, tuple[str, list[float], list[int]]]:
    tensors = Flatbuffer(content).tensors
    return {t.name: (t.dtype, t.scale.tolist(), t.zero_point.tolist()) for t in tensors}


def test_a_sum_has_finer_steps_and_the_version_that_knows_them() -> None:
    tensors = {name: T((1, 8), scale=COARSE) for name in ("a", "b", "c")}
    content = widen_file(single(Op("ADD", ["a", "b"], ["c"], options={"potScaleInt16": False}), tensors), {})
    assert list(grids(content).values()) == [("INT16", [COARSE / 256], [0])] * 3
    assert [op.version for op in Flatbuffer(content).ops] == [3]
    a, b = RNG.uniform(-20, 20, (2, 1, 8))
    np.testing.assert_allclose(run(content, a, b), a + b, atol=2 * COARSE / 256)


def test_a_sigmoid_gets_the_scale_that_litert_prescribes() -> None:
    tensors = {"x": T((1, 64), scale=COARSE / 8), "y": T((1, 64), scale=1 / 256, zero_point=-128)}
    content = widen_file(single(Op("LOGISTIC", ["x"], ["y"]), tensors), {})
    assert grids(content)["y"] == ("INT16", [1 / 32768], [0])
    x = np.linspace(-7, 7, 64)[None]
    np.testing.assert_allclose(run(content, x), 1 / (1 + np.exp(-x)), atol=1e-3)


@pytest.mark.parametrize(("code", "zero_point"), [(77, 0), (-128, 127), (127, -128)])
def test_a_constant_factor_keeps_its_value_exactly(code: int, zero_point: int) -> None:
    factor = (code - zero_point) * 0.013
    constant = T((1,), values=[code], scale=0.013, zero_point=zero_point)
    tensors = {"x": T((1, 8), scale=COARSE), "k": constant, "y": T((1, 8), scale=2.0)}
    content = widen_file(single(Op("MUL", ["x", "k"], ["y"]), tensors), {})
    file = Flatbuffer(content)
    assert file.values(1).tolist() == [code - zero_point] and grids(content)["k"][1:] == ([np.float32(0.013)], [0])
    x = RNG.uniform(-20, 20, (1, 8))
    np.testing.assert_allclose(run(content, x), x * factor, atol=4 * 2 / 256)


def test_a_product_of_computed_tensors_reads_both_in_16_bits() -> None:
    """As an attention with one head is converted."""
    tensors = {"a": T((3, 4), scale=0.02), "b": T((5, 4), scale=0.02), "c": T((3, 5), scale=0.2)}
    content = widen_file(single(Op("FULLY_CONNECTED", ["a", "b"], ["c"]), tensors), {})
    assert {dtype for dtype, *_ in grids(content).values()} == {"INT16"}
    assert [(op.kind, op.version) for op in Flatbuffer(content).ops] == [("FULLY_CONNECTED", 7)]
    a, b = RNG.uniform(-2, 2, (3, 4)), RNG.uniform(-2, 2, (5, 4))
    np.testing.assert_allclose(run(content, a, b), a @ b.T, atol=3e-3)


@pytest.mark.parametrize("known", [True, False])
def test_a_bias_is_rounded_to_the_finer_steps_of_the_sum(known: bool) -> None:
    """From the float where that is known: its int32 codes are 256 times as coarse."""
    weight = RNG.integers(-127, 128, (4, 8))
    tensors = {
        "x": T((1, 8), scale=COARSE),
        "w": T((4, 8), values=weight, scale=0.01),
        "b": T((4,), "INT32", values=[100, -3, 0, 7], scale=COARSE * 0.01),
        "y": T((1, 4), scale=8.0),
    }
    bias = np.array([0.5003, -0.0151, 0.0011, 0.0347]) if known else np.array([100, -3, 0, 7]) * COARSE * 0.01
    content = widen_file(
        single(Op("FULLY_CONNECTED", ["x", "w", "b"], ["y"]), tensors), {2: bias.astype(np.float32)} if known else {}
    )
    file = Flatbuffer(content)
    found: Any = grids(content)
    assert found["w"] == ("INT8", [np.float32(0.01)], [0]) and file.values(1).tolist() == weight.tolist()
    assert found["b"][0] == "INT64" and found["b"][1] == pytest.approx([COARSE / 256 * 0.01])
    step = COARSE / 256 * 0.01
    assert np.abs(file.values(2) * step - bias).max() <= step / 2 * 1.01
    x = RNG.uniform(-20, 20, (1, 8))
    np.testing.assert_allclose(run(content, x), x @ (weight * 0.01).T + bias, atol=8 / 256 + 0.02)


def test_codes_are_not_copied_from_one_scale_to_another() -> None:
    """LiteRT's int8 kernel refuses such a file, its int16 kernel does not look."""
    tensors = {"a": T((1, 4), scale=COARSE), "b": T((1, 4), scale=2 * COARSE), "c": T((1, 8), scale=COARSE)}
    op = Op("CONCATENATION", ["a", "b"], ["c"], options={"axis": 1})
    with pytest.raises(TargetError, match="CONCATENATION joins tensors of several scales"):
        widen_file(single(op, tensors), {})
    same = {**tensors, "b": T((1, 4), scale=COARSE)}
    a, b = RNG.uniform(-20, 20, (2, 1, 4))
    np.testing.assert_allclose(run(widen_file(single(op, same), {}), a, b), np.hstack([a, b]), atol=COARSE / 256)


def test_an_operator_without_such_a_kernel_is_named() -> None:
    tensors = {name: T((1, 4), scale=COARSE) for name in ("a", "b", "c")}
    with pytest.raises(TargetError, match=r"no 16-bit kernel of DIV.*export litert \(int8\) or litert:fp32"):
        widen_file(single(Op("DIV", ["a", "b"], ["c"]), tensors), {})


def test_float_operators_stay_as_they_are() -> None:
    tensors = {
        "x": T((1, 4), scale=COARSE),
        "f": T((1, 4), "FLOAT32", scale=0),
        "y": T((1, 4), "FLOAT32", scale=0),
    }
    content = widen_file(build(tensors, [Op("DEQUANTIZE", ["x"], ["f"]), Op("EXP", ["f"], ["y"], 1)]), {})
    assert [(op.kind, op.version) for op in Flatbuffer(content).ops] == [("DEQUANTIZE", 3), ("EXP", 1)]
    assert [t.dtype for t in Flatbuffer(content).tensors] == ["INT16", "FLOAT32", "FLOAT32"]
