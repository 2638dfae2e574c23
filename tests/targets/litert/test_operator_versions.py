"""Operator versions are lowered without changing what a file computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="the litert extra is not installed")

from edgetpu_graphs import Op, T, build, single

from yoloquant.targets.litert.flatbuffer import Flatbuffer, operator_name, parse, serialize
from yoloquant.targets.litert.operator_versions import lower, needed

if TYPE_CHECKING:
    from yoloquant.types import ExportedModel

MAP = T((1, 8, 8, 4))
BIG = T((1, 16, 16, 4))
SIZE = T((2,), "INT32", 16, 0.0)


def versions(content: bytes) -> list[int]:
    return [op.version for op in Flatbuffer(content).ops]


def resize(version: int, **options: Any) -> bytes:
    op = Op("RESIZE_NEAREST_NEIGHBOR", ["x", "s"], ["y"], version, options)
    return single(op, {"x": MAP, "s": SIZE, "y": BIG})


@pytest.mark.parametrize(
    ("options", "expected"), [({}, 2), ({"halfPixelCenters": True}, 3), ({"alignCorners": True}, 3)]
)
def test_resize_needs_version_3_for_half_pixels_and_corners_only(options: dict[str, bool], expected: int) -> None:
    assert versions(lower(resize(4, **options))) == [expected]


@pytest.mark.parametrize(
    ("kind", "version", "expected"), [("CONV_2D", 5, 3), ("CONV_2D", 3, 3), ("CONV_2D", 1, 1), ("LOGISTIC", 3, 2)]
)
def test_versions_go_down_only(kind: str, version: int, expected: int) -> None:
    tensors = {"x": MAP, "w": T((4, 1, 1, 4), values=1), "b": T((4,), "INT32", values=0), "y": MAP}
    inputs = ["x", "w", "b"] if kind == "CONV_2D" else ["x"]
    assert versions(lower(single(Op(kind, inputs, ["y"], version), tensors))) == [expected]


@pytest.mark.parametrize(("scale", "expected"), [(0.5, 2), (0.25, 3), (0.1, 3)])
def test_multiplying_needs_version_3_where_the_result_is_finer(scale: float, expected: int) -> None:
    """0.5 * 0.5 over the result's scale is at least 1 from a scale of 0.25 down."""
    coarse = T((1, 8, 8, 4), scale=0.5)
    content = single(Op("MUL", ["x", "w"], ["y"], 5), {"x": coarse, "w": coarse, "y": T((1, 8, 8, 4), scale=scale)})
    assert versions(lower(content)) == [expected]


@pytest.mark.parametrize(("bias", "keep", "expected"), [(True, False, 4), (True, True, 5), (False, False, 6)])
def test_fully_connected(bias: bool, keep: bool, expected: int) -> None:
    tensors = {"x": T((1, 4)), "w": T((8, 4), values=1), "b": T((8,), "INT32", values=0), "y": T((1, 8))}
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    options = {"keepNumDims": keep}
    assert versions(lower(single(Op("FULLY_CONNECTED", inputs, ["y"], 9, options), tensors))) == [expected]


@pytest.mark.parametrize("dtype", ["INT16", "FLOAT32", "UINT8"])
def test_other_types_keep_their_version(dtype: str) -> None:
    tensor = T((1, 8, 8, 4), dtype)
    content = single(Op("ADD", ["x", "x"], ["y"], 4), {"x": tensor, "y": tensor})
    assert lower(content) == content


def test_operators_that_share_a_code_get_what_the_most_demanding_needs() -> None:
    tensors = {"x": MAP, "s": SIZE, "y": BIG, "z": BIG}
    ops = [
        Op("RESIZE_NEAREST_NEIGHBOR", ["x", "s"], ["y"], 4),
        Op("RESIZE_NEAREST_NEIGHBOR", ["x", "s"], ["z"], 4, {"halfPixelCenters": True}),
    ]
    model = parse(build(tensors, ops))
    model.operatorCodes = model.operatorCodes[:1]
    model.subgraphs[0].operators[1].opcodeIndex = 0
    assert versions(lower(serialize(model))) == [3, 3]


def raised(content: bytes) -> bytes:
    """The same file as a generous converter would stamp it, within what this interpreter knows."""
    model = parse(content)
    for code in model.operatorCodes:
        code.version = max(code.version, {"RESIZE_NEAREST_NEIGHBOR": 3, "CONV_2D": 5}.get(operator_name(code), 3))
        if operator_name(code) in {"RESHAPE", "QUANTIZE"}:
            code.version = 1
    return serialize(model)


def outputs(content: bytes, seed: int) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    image = np.random.default_rng(seed).integers(-128, 128, entry["shape"]).astype(np.int8)
    interpreter.set_tensor(entry["index"], image)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]).copy() for d in interpreter.get_output_details()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exported", "exported_end2end"])
def test_the_network_computes_the_same_integers(name: str, request: pytest.FixtureRequest) -> None:
    models: dict[str, ExportedModel] = request.getfixturevalue(name)
    from yoloquant.targets.litert.metadata import read

    _, content = read(models["edgetpu"].path)
    high = raised(content)
    assert max(versions(high)) == 5 and versions(lower(high)) == versions(content)
    file = Flatbuffer(content)
    assert all(op.version <= (needed(file, op) or 0) for op in file.ops)
    for seed in range(3):
        before, after = outputs(high, seed), outputs(lower(high), seed)
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        assert len({a.tobytes() for a in before}) == len(before)
