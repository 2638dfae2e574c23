"""Every documented limit of the Edge TPU, from both sides."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("ai_edge_litert", reason="the litert extra is not installed")

from edgetpu_graphs import Op, T, single

from yoloquant.targets.edgetpu.report import Status
from yoloquant.targets.edgetpu.rules import _RULES, check_operator, refused
from yoloquant.targets.litert.flatbuffer import Flatbuffer

MAP = T((1, 8, 8, 4))
INTS = {"dtype": "INT32", "scale": 0.0}
FILTER, BIAS = T((4, 3, 3, 4), values=1), T((4,), "INT32", values=0)


def constant(*values: int) -> T:
    return T((len(values),), "INT32", values, 0.0)


def matrix(rows: list[list[int]]) -> T:
    return T((len(rows), len(rows[0])), "INT32", rows, 0.0)


def case(kind: str, *tensors: T, version: int = 2, **options: Any) -> Flatbuffer:
    """A file of one operator; the last tensor is its result."""
    named = {f"t{i}": t for i, t in enumerate(tensors)}
    *inputs, output = named
    return Flatbuffer(single(Op(kind, inputs, [output], version, options), named))


MAPPED = {
    "add": case("ADD", MAP, MAP, MAP),
    "unsigned": case("ADD", *[T((1, 8, 8, 4), "UINT8")] * 3, version=1),
    "average pool": case("AVERAGE_POOL_2D", MAP, T((1, 4, 4, 4))),
    "concat": case("CONCATENATION", MAP, MAP, T((1, 8, 8, 8)), axis=3),
    "concat with zeros": case("CONCATENATION", MAP, T((1, 8, 8, 1), values=3, zero_point=3), T((1, 8, 8, 5)), axis=3),
    "conv": case("CONV_2D", MAP, FILTER, BIAS, MAP, version=3),
    "dilated conv": case("CONV_2D", MAP, FILTER, BIAS, MAP, version=3, dilationWFactor=2, dilationHFactor=2),
    "connected": case(
        "FULLY_CONNECTED", T((1, 4)), T((8, 4), values=1), T((8,), "INT32", values=0), T((1, 8)), version=4
    ),
    "max pool": case("MAX_POOL_2D", MAP, T((1, 4, 4, 4))),
    "mean over the map": case("MEAN", MAP, constant(1, 2), T((1, 4))),
    "mean over channels": case("MEAN", MAP, constant(3), T((1, 8, 8))),
    "pack": case("PACK", T((8, 4)), T((8, 4)), T((2, 8, 4)), axis=0),
    "pad": case("PAD", MAP, matrix([[0, 0], [1, 1], [1, 1], [0, 0]]), T((1, 10, 10, 4))),
    "pad two dimensions": case("PAD", T((8, 4)), matrix([[1, 1], [0, 0]]), T((10, 4))),
    "requantize": case("QUANTIZE", T((1, 8, 8, 4), "UINT8"), MAP, version=1),
    "reshape that only drops ones": case("RESHAPE", T((1, 1, 8, 4)), constant(8, 4), T((8, 4)), version=1),
    "doubling": case("RESIZE_NEAREST_NEIGHBOR", MAP, constant(16, 16), T((1, 16, 16, 4))),
    "short softmax": case("SOFTMAX", T((1, 16_000)), T((1, 16_000))),
    "slice": case("SLICE", MAP, constant(0, 0, 0, 0), constant(1, 8, 8, 2), T((1, 8, 8, 2))),
    "split": case("SPLIT", constant(3), MAP, T((1, 8, 8, 2))),
    "squeeze": case("SQUEEZE", T((1, 1, 8, 4)), T((8, 4)), version=1),
    "strided slice": case("STRIDED_SLICE", MAP, *[constant(0, 0, 0, 0)] * 2, constant(1, 1, 1, 1), MAP),
    "sum": case("SUM", MAP, constant(-1), T((1, 8, 8))),
}
REFUSED = {
    "BATCH_MATMUL": (case("BATCH_MATMUL", T((8, 4)), T((4, 8)), T((8, 8))), "not among"),
    "float": (case("ADD", *[T((1, 8, 8, 4), "FLOAT32")] * 3), "FLOAT32"),
    "16 bits": (case("ADD", *[T((1, 8, 8, 4), "INT16")] * 3), "INT16"),
    "float result": (case("QUANTIZE", T((1, 8, 8, 4), "FLOAT32", scale=0), MAP), "FLOAT32"),
    "no scale": (case("ADD", *[T((1, 8, 8, 4), scale=0)] * 3), "scale"),
    "dynamic": (case("ADD", *[T((1, 8, 8, 4), dynamic=True)] * 3), "run time"),
    "batch of 2": (case("LOGISTIC", T((2, 8, 8, 4)), T((2, 8, 8, 4))), "3 innermost"),
    "five dimensions": (case("LOGISTIC", T((1, 3, 8, 8, 4)), T((1, 3, 8, 8, 4))), "3 innermost"),
    "fused pool": (case("MAX_POOL_2D", MAP, MAP, fusedActivationFunction=1), "fused"),
    "fused concat": (case("CONCATENATION", MAP, MAP, T((1, 8, 8, 8)), fusedActivationFunction=1), "fused"),
    "constant in concat": (case("CONCATENATION", MAP, T((1, 8, 8, 1), values=1), T((1, 8, 8, 5)), axis=3), "zeros"),
    "uneven dilation": (case("CONV_2D", MAP, FILTER, BIAS, MAP, version=3, dilationWFactor=2), "dilation 2"),
    "computed weight": (case("CONV_2D", MAP, T((4, 3, 3, 4)), BIAS, MAP, version=3), "computed"),
    "product": (case("FULLY_CONNECTED", T((1, 4)), T((8, 4)), T((1, 8)), version=6), "two computed tensors"),
    "connected map": (
        case("FULLY_CONNECTED", T((8, 4)), T((8, 4), values=1), T((8,), "INT32", values=0), T((8, 8)), version=4),
        "one-dimensional",
    ),
    "shuffled weights": (
        case("FULLY_CONNECTED", T((1, 4)), T((8, 4), values=1), T((1, 8)), version=6, weightsFormat=1),
        "default format",
    ),
    "mean over the batch": (case("MEAN", MAP, constant(0), T((8, 8, 4))), "batch"),
    "mean over 3 channels": (case("MEAN", T((1, 8, 8, 3)), constant(-1), T((1, 8, 8))), "multiple of 4"),
    "packed batch": (case("PACK", T((8, 8, 4)), T((8, 8, 4)), T((1, 8, 8, 4)), axis=0), "batch"),
    "padded batch": (case("PAD", T((1, 8, 8, 4)), matrix([[0, 1], *[[0, 0]] * 3]), T((1, 8, 8, 4))), "batch"),
    "long softmax": (case("SOFTMAX", T((1, 16_001)), T((1, 16_001))), "16,000"),
    "inner squeeze": (case("SQUEEZE", T((1, 5, 1, 10)), T((5, 10)), version=1), "leading"),
    "step of 2": (case("STRIDED_SLICE", MAP, *[constant(0, 0, 0, 0)] * 2, constant(1, 2, 2, 1), MAP), "stride"),
    "new axis": (
        case("STRIDED_SLICE", MAP, *[constant(0, 0, 0, 0)] * 2, constant(1, 1, 1, 1), MAP, newAxisMask=1),
        "new axis",
    ),
    "split batch": (case("SPLIT", constant(0), MAP, MAP), "batch"),
    "computed axis": (case("SPLIT", T((1,), **INTS), MAP, MAP), "computed"),
    "sum over the batch": (case("SUM", MAP, constant(0), T((8, 8, 4))), "batch"),
    "sine": (case("SIN", MAP, MAP, version=1), "not among"),
}
UNDECIDED = {
    "broadcast": (case("MUL", MAP, T((1, 1, 1, 4)), MAP), "broadcasts 1x8x8x4 and 1x1x1x4"),
    "scalar": (case("MUL", MAP, T((), values=1), MAP), "scalar"),
    "half pixels": (
        case("RESIZE_NEAREST_NEIGHBOR", MAP, constant(16, 16), T((1, 16, 16, 4)), version=3, halfPixelCenters=True),
        "half pixel",
    ),
    "corners": (
        case("RESIZE_NEAREST_NEIGHBOR", MAP, constant(16, 16), T((1, 16, 16, 4)), version=3, alignCorners=True),
        "corners",
    ),
    "odd resize": (case("RESIZE_NEAREST_NEIGHBOR", MAP, constant(12, 12), T((1, 12, 12, 4))), "every size"),
    "bilinear": (case("RESIZE_BILINEAR", MAP, constant(16, 16), T((1, 16, 16, 4))), "every size"),
    "new version": (case("ADD", MAP, MAP, MAP, version=4), "version 4, though 2"),
    "relayout": (case("RESHAPE", MAP, constant(64, 4), T((64, 4)), version=1), "large tensors"),
    "attention softmax": (case("SOFTMAX", T((1, 2, 100, 100)), T((1, 2, 100, 100))), "1x2x100x100"),
    "transpose": (case("TRANSPOSE", MAP, constant(0, 3, 1, 2), T((1, 4, 8, 8))), "larger"),
    "unpack": (case("UNPACK", MAP, MAP), "differ"),
}


@pytest.mark.parametrize("name", MAPPED)
def test_mapped(name: str) -> None:
    file = MAPPED[name]
    found = check_operator(file, file.ops[0])
    assert (found.status, found.reason) == (Status.MAPPED, "")
    assert not refused(file)


@pytest.mark.parametrize("name", REFUSED)
def test_on_the_host(name: str) -> None:
    file, reason = REFUSED[name]
    found = check_operator(file, file.ops[0])
    assert found.status is Status.FALLBACK and reason in found.reason


@pytest.mark.parametrize("name", UNDECIDED)
def test_undecided(name: str) -> None:
    file, reason = UNDECIDED[name]
    found = check_operator(file, file.ops[0])
    assert found.status is Status.UNKNOWN and reason in found.reason


@pytest.mark.parametrize(("kind", "first"), [("CONV_2D", 6), ("TRANSPOSE_CONV", 4), ("EXP", 2)])
def test_versions_that_the_compiler_cannot_read(kind: str, first: int) -> None:
    assert not refused(case(kind, MAP, MAP, version=first - 1))
    assert f"{kind} version {first}" in refused(case(kind, MAP, MAP, version=first))


def test_every_documented_operator_exists_in_the_schema() -> None:
    from ai_edge_litert import schema_py_generated as schema

    assert set(vars(schema.BuiltinOperator)) >= set(_RULES)
