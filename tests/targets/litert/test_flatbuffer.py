"""Reading and editing flatbuffers, on graphs assembled by hand: no converter needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="the litert extra is not installed")

from yoloquant.errors import ArtifactError, TargetError  # noqa: E402
from yoloquant.targets.litert.flatbuffer import Flatbuffer, float_ops, parse, serialize  # noqa: E402
from yoloquant.targets.litert.surgery import finish  # noqa: E402

SHAPE = (1, 2, 2, 3)
Q = (0.5, -3)
IMAGE = (1 / 255, -128)


class Assembly:
    """Builds a one-subgraph model from chains of operators over tensors of one shape."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes, self.model.signatureDefs = [], []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(self, dtype: str, quantization: tuple[float, int] | None = None, shape: Any = SHAPE) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape = f"t{len(self.graph.tensors)}".encode(), np.array(shape, np.int32)
        tensor.hasRank = True
        tensor.type = getattr(schema.TensorType, dtype)
        tensor.quantization = schema.QuantizationParametersT()
        if quantization:
            tensor.quantization.scale = np.array([quantization[0]], np.float32)
            tensor.quantization.zeroPoint = np.array([quantization[1]], np.int64)
        self.model.buffers.append(schema.BufferT())
        tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, values: np.ndarray) -> int:
        index = self.tensor({"int32": "INT32", "float32": "FLOAT32"}[values.dtype.name], shape=values.shape)
        self.model.buffers[self.graph.tensors[index].buffer].data = np.frombuffer(values.tobytes(), np.uint8)
        return index

    def op(self, kind: str, inputs: list[int], output: int) -> int:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = 2
        self.model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = len(self.model.operatorCodes) - 1
        op.inputs, op.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if kind == "RESIZE_NEAREST_NEIGHBOR":
            op.builtinOptionsType = schema.BuiltinOptions.ResizeNearestNeighborOptions
            op.builtinOptions = schema.ResizeNearestNeighborOptionsT()
            op.builtinOptions.halfPixelCenters = True
        self.graph.operators.append(op)
        return output

    def finish(self, inputs: list[int], outputs: list[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        return serialize(self.model)


def drop_in() -> bytes:
    """Integer body, then a float tail behind a dequantize."""
    a = Assembly()
    image = a.tensor("INT8", IMAGE)
    logistic = a.op("LOGISTIC", [image], a.tensor("INT8", (1 / 256, -128)))
    real = a.op("DEQUANTIZE", [logistic], a.tensor("FLOAT32"))
    shifted = a.op("ADD", [real, a.constant(np.ones(3, np.float32))], a.tensor("FLOAT32"))
    return a.finish([image], [a.op("LOGISTIC", [shifted], a.tensor("FLOAT32"))])


def test_reading_tensors_and_operators() -> None:
    file = Flatbuffer(drop_in())
    assert [op.kind for op in file.ops] == ["LOGISTIC", "DEQUANTIZE", "ADD", "LOGISTIC"]
    image = file.tensors[file.inputs[0]]
    assert (image.dtype, image.shape, image.zero_point.tolist()) == ("INT8", SHAPE, [-128])
    assert image.scale.dtype == np.float32
    assert image.scale[0] == np.float32(1 / 255)
    add = file.ops[2]
    assert len(file.operands(add)) == 1
    np.testing.assert_array_equal(file.values(add.inputs[1]), np.ones(3, np.float32))


def test_float_operators_behind_dequantize_are_the_tail() -> None:
    assert [(f.op.kind, f.tail) for f in float_ops(drop_in())] == [("ADD", True), ("LOGISTIC", True)]


def test_a_float_operator_that_integers_depend_on_is_body() -> None:
    a = Assembly()
    image = a.tensor("INT8", IMAGE)
    real = a.op("DEQUANTIZE", [image], a.tensor("FLOAT32"))
    relu = a.op("RELU", [real], a.tensor("FLOAT32"))
    again = a.op("QUANTIZE", [relu], a.tensor("INT8", Q))
    content = a.finish([image], [a.op("LOGISTIC", [again], a.tensor("INT8", (1 / 256, -128)))])
    assert [(f.op.kind, f.tail) for f in float_ops(content)] == [("RELU", False)]


def test_a_float_operator_on_a_float_input_is_body() -> None:
    a = Assembly()
    image = a.tensor("FLOAT32")
    content = a.finish([image], [a.op("RELU", [image], a.tensor("FLOAT32"))])
    assert [(f.op.kind, f.tail) for f in float_ops(content)] == [("RELU", False)]


def test_index_arithmetic_of_the_tail_does_not_make_it_body() -> None:
    a = Assembly()
    image = a.tensor("INT8", IMAGE)
    real = a.op("DEQUANTIZE", [image], a.tensor("FLOAT32"))
    best = a.op("RELU", [real], a.tensor("FLOAT32"))
    index = a.op("CAST", [best], a.tensor("INT32"))
    content = a.finish([image], [a.op("FLOOR_MOD", [index, a.constant(np.full(3, 2, np.int32))], a.tensor("INT32"))])
    assert all(f.tail for f in float_ops(content))


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\x1c\0\0\0TFL3" + b"\xff" * 40])
def test_damaged_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError):
        Flatbuffer(content)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        float_ops(tmp_path / "absent.tflite")


def _run(content: bytes, image: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def test_every_input_type_computes_the_same() -> None:
    pixels = np.arange(12).reshape(SHAPE) * 23
    real = (pixels / 255).astype(np.float32)
    inputs = {"float32": real, "int8": (pixels - 128).astype(np.int8), "uint8": pixels.astype(np.uint8)}
    results = {t: _run(finish(drop_in(), input_type=t), image) for t, image in inputs.items()}
    expected = 1 / (1 + np.exp(-(np.round(256 / (1 + np.exp(-real))) / 256 + 1)))
    np.testing.assert_allclose(results["int8"], expected, atol=2 / 256)
    np.testing.assert_array_equal(results["float32"], results["int8"])
    np.testing.assert_array_equal(results["uint8"], results["int8"])


def test_an_integer_output_of_a_drop_in_becomes_float_and_stays_an_integer_otherwise() -> None:
    """Prototypes of masks end the body: no operator of the tail makes them float."""
    a = Assembly()
    image = a.tensor("INT8", IMAGE)
    quantized = a.op("LOGISTIC", [image], a.tensor("INT8", (1 / 256, -128)))
    real = a.op("DEQUANTIZE", [image], a.tensor("FLOAT32"))
    signature, entry = schema.SignatureDefT(), schema.TensorMapT()
    entry.name, entry.tensorIndex = b"output_0", quantized
    signature.inputs, signature.outputs, signature.signatureKey = [], [entry], b"serving_default"
    a.model.signatureDefs = [signature]
    content = a.finish([image], [quantized, a.op("RELU", [real], a.tensor("FLOAT32"))])

    def ends(input_type: str) -> list[str]:
        file = Flatbuffer(finish(content, input_type=input_type))
        assert parse(file.content).signatureDefs[0].outputs[0].tensorIndex == file.outputs[0]
        return [file.tensors[i].dtype for i in file.outputs]

    assert (ends("float32"), ends("int8"), ends("uint8")) == (["FLOAT32"] * 2, *[["INT8", "FLOAT32"]] * 2)
    pixels = np.arange(12).reshape(SHAPE) * 23
    got = _run(finish(content, input_type="float32"), (pixels / 255).astype(np.float32))
    stored = _run(finish(content, input_type="int8"), (pixels - 128).astype(np.int8))
    np.testing.assert_array_equal(got, (stored.astype(np.float32) + 128) / 256)


def test_input_types_are_validated() -> None:
    with pytest.raises(TargetError, match="allowed are float32, int8, uint8"):
        finish(drop_in(), input_type="int16")
    a = Assembly()
    image = a.tensor("FLOAT32")
    content = a.finish([image], [a.op("RELU", [image], a.tensor("FLOAT32"))])
    with pytest.raises(TargetError, match="int8 input"):
        finish(content, input_type="float32")


@pytest.mark.parametrize(("factor", "half_pixel"), [(2, False), (3, False), (1.5, True)])
def test_half_pixel_centers_are_cleared_only_for_whole_factors(factor: float, half_pixel: bool) -> None:
    a = Assembly()
    image = a.tensor("INT8", IMAGE)
    size = int(2 * factor)
    output = a.tensor("INT8", IMAGE, shape=(1, size, size, 3))
    content = a.finish(
        [image], [a.op("RESIZE_NEAREST_NEIGHBOR", [image, a.constant(np.full(2, size, np.int32))], output)]
    )
    edited = finish(content, input_type="int8")
    assert parse(edited).subgraphs[0].operators[0].builtinOptions.halfPixelCenters is half_pixel
    pixels = np.random.default_rng(0).integers(-128, 128, SHAPE).astype(np.int8)
    np.testing.assert_array_equal(_run(edited, pixels), _run(content, pixels))


def test_buffers_begin_where_the_schema_wants_them() -> None:
    content = drop_in()
    for _ in range(2):
        model = schema.Model.GetRootAs(content, 0)
        starts = {
            buffer._tab.Vector(buffer._tab.Offset(4))
            for buffer in map(model.Buffers, range(model.BuffersLength()))
            if buffer.DataLength()
        }
        assert starts and all(start % 16 == 0 for start in starts)
        content = serialize(parse(content))
    assert Flatbuffer(content).values(Flatbuffer(content).ops[2].inputs[1]).tolist() == [1, 1, 1]
