"""Reading a ``.tflite``: tensors, quantization, operators, and which of them compute in float.

The schema bindings are those that the LiteRT runtime itself ships (``ai_edge_litert``); no converter is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ArtifactError

MAGIC = b"TFL3"
ALIGNMENT = 16
"""Bytes: where a buffer of a `.tflite` begins is a multiple of this."""
FLOATS = frozenset({"FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16"})
QUANTIZED = frozenset({"INT8", "UINT8", "INT16"})
CASTS = frozenset({"QUANTIZE", "DEQUANTIZE"})
_DTYPES: dict[str, type[np.generic]] = {
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
}


@dataclass(frozen=True, eq=False)
class TensorInfo:
    """One tensor.

    Attributes:
        index: Its position in the subgraph.
        name: Its name, a hint for people only.
        shape: Its dimensions.
        dtype: Element type as the schema names it, for instance ``INT8``.
        scale: float32 scales: none, one, or one per slice.
        zero_point: Zero points, as many as scales.
        axis: Axis of the slices.
        constant: Whether the file holds its values.
        dynamic: Whether a dimension is only known at run time.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int32]
    axis: int
    constant: bool
    dynamic: bool = False


@dataclass(frozen=True)
class OpInfo:
    """One operator.

    Attributes:
        index: Its position in execution order.
        kind: Its name in the schema, for instance ``CONV_2D``.
        inputs: Indices of its inputs; optional ones that are absent are left out.
        outputs: Indices of its results.
        version: Version of the operator that the file asks the runtime for.
        options: Its attributes by the schema's names in camel case, for instance ``strideW``.
    """

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    version: int = 1
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class FloatOp:
    """A float compute operator.

    Attributes:
        op: The operator.
        name: Name of its result.
        tail: Whether it lies behind the head's dequantize operations, so that no integer computation depends on it.
    """

    op: OpInfo
    name: str
    tail: bool


class Flatbuffer:
    """The first subgraph of a ``.tflite``.

    Attributes:
        content: The flatbuffer's bytes; a zip archive behind it is allowed.
        tensors: Tensors by index.
        ops: Operators in execution order.
        inputs: Indices of the graph's inputs.
        outputs: Indices of the graph's outputs.
    """

    def __init__(self, content: bytes) -> None:
        """Parse.

        Raises:
            ArtifactError: These are not the bytes of a ``.tflite``.
        """
        self.content = content
        self._model = parse(content)
        graph = self._model.subgraphs[0]
        self.tensors = tuple(self._tensor(i, t) for i, t in enumerate(graph.tensors))
        self.inputs, self.outputs = _indices(graph.inputs), _indices(graph.outputs)
        kinds = [(operator_name(code), int(code.version)) for code in self._model.operatorCodes]
        self.ops = tuple(_op(i, op, *kinds[op.opcodeIndex]) for i, op in enumerate(graph.operators))

    @classmethod
    def read(cls, path: Path) -> Flatbuffer:
        """Read a file.

        Raises:
            ArtifactError: It is missing, unreadable or no ``.tflite``.
        """
        try:
            return cls(path.read_bytes())
        except OSError as exc:
            raise ArtifactError(f"'{path}' cannot be read ({exc.strerror}); export it again") from exc

    def _tensor(self, index: int, raw: Any) -> TensorInfo:
        quantization = raw.quantization
        has_scale = quantization is not None and quantization.scale is not None
        data = self._model.buffers[raw.buffer].data
        return TensorInfo(
            index=index,
            name=raw.name.decode(errors="replace") if raw.name else "",
            shape=_indices(raw.shape, keep=True),
            dtype=_tensor_types()[raw.type],
            scale=np.array(quantization.scale if has_scale else [], np.float32),
            zero_point=np.array(quantization.zeroPoint if has_scale else [], np.int32),
            axis=int(quantization.quantizedDimension) if has_scale else 0,
            constant=data is not None and len(data) > 0,
            # `shape` holds 1 where a side is open; only the signature has -1 there.
            dynamic=any(size < 0 for size in _indices(raw.shapeSignature, keep=True)),
        )

    def values(self, index: int) -> npt.NDArray[Any]:
        """The values of a constant tensor."""
        tensor = self.tensors[index]
        data = self._model.buffers[self._model.subgraphs[0].tensors[index].buffer].data
        return np.frombuffer(bytes(data), _DTYPES[tensor.dtype]).reshape(tensor.shape)

    @cached_property
    def producers(self) -> dict[int, OpInfo]:
        """The operator that writes each tensor."""
        return {out: op for op in self.ops for out in op.outputs}

    def operands(self, op: OpInfo) -> tuple[int, ...]:
        """Indices of an operator's inputs that are not constants."""
        return tuple(i for i in op.inputs if not self.tensors[i].constant)

    def multiplies_computed(self, op: OpInfo) -> bool:
        """Whether an operator that usually has a constant weight multiplies two computed tensors.

        litert-torch 0.10 turns a batched matrix product whose batch is 1, as in attention with one head, into such a
        fully connected operator.
        """
        return op.kind == "FULLY_CONNECTED" and not self.tensors[op.inputs[1]].constant

    def is_float(self, op: OpInfo) -> bool:
        """Whether an operator computes in float; quantize and dequantize only convert."""
        tensors = [self.tensors[i] for i in (*op.inputs, *op.outputs)]
        return op.kind not in CASTS and any(t.dtype in FLOATS for t in tensors)

    def float_ops(self) -> list[FloatOp]:
        """Every float compute operator, in execution order."""
        needed: set[int] = set()  # tensors that an integer computation depends on
        found: list[FloatOp] = []
        # backwards, since a float operator belongs to the tail only if nothing behind it needs integers
        for op in reversed(self.ops):
            is_float = self.is_float(op)
            feeds_integers = bool(needed.intersection(op.outputs))
            if is_float:
                behind = self._from_quantized.issuperset(self.operands(op))
                tail = behind and not feeds_integers
                found.append(FloatOp(op, self.tensors[op.outputs[0]].name, tail))
            if feeds_integers or any(self.tensors[i].dtype in QUANTIZED for i in op.outputs):
                needed.update(op.inputs)
        return found[::-1]

    @cached_property
    def _from_quantized(self) -> frozenset[int]:
        """Tensors whose value comes from quantized tensors only, and so not from a float graph input."""
        clean: set[int] = {i for i in self.inputs if self.tensors[i].dtype not in FLOATS}
        for op in self.ops:
            if op.kind in CASTS or all(i in clean for i in self.operands(op)):
                clean.update(op.outputs)
        return frozenset(clean)


def parse(content: bytes) -> Any:
    """The object form (``ModelT``) of a flatbuffer.

    Raises:
        ArtifactError: These are not the bytes of a ``.tflite``.
    """
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != MAGIC:
        raise ArtifactError(f"not a .tflite file: it must carry {MAGIC!r} at byte 4, got {content[4:8]!r}")
    try:
        return schema.ModelT.InitFromPackedBuf(content, 0)
    except Exception as exc:  # the generated reader raises struct, index, type and value errors on damaged bytes
        raise ArtifactError(f"the .tflite file is damaged ({exc}); export it again") from exc


def serialize(model: Any) -> bytes:
    """Bytes of an object-form flatbuffer."""
    import flatbuffers  # type: ignore[import-untyped]

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        """Puts byte vectors where the schema wants them."""

        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
            # The schema says `force_align: 16` of what buffers hold, which Python's generated code (flatbuffers 25.12)
            # does not do: microcontrollers and accelerators read weights and commands in place.
            return super().StartVector(elemSize, numElems, ALIGNMENT if elemSize == 1 else alignment)

    # Begins with a megabyte, since it copies everything whenever it grows.
    builder = Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=MAGIC)
    return bytes(builder.Output())


def operator_name(code: Any) -> str:
    """Name of an operator code; old files store it in the deprecated field."""
    # the old field holds a byte, and 127 in place of newer operators
    return _operators()[max(code.builtinCode, code.deprecatedBuiltinCode)]


def kind_for_people(kind: str, *, computed: bool) -> str:
    """An operator's kind for people, and what it multiplies: accelerators want weights that are constant."""
    return f"{kind} of computed tensors" if computed else kind


def float_ops(source: bytes | Path) -> list[FloatOp]:
    """Float compute operators of a file or of a flatbuffer's bytes."""
    return (Flatbuffer(source) if isinstance(source, bytes) else Flatbuffer.read(source)).float_ops()


def _op(index: int, raw: Any, kind: str, version: int) -> OpInfo:
    options = vars(raw.builtinOptions) if raw.builtinOptions is not None else {}
    return OpInfo(index, kind, _indices(raw.inputs), _indices(raw.outputs), version, dict(options))


def _indices(values: Any, *, keep: bool = False) -> tuple[int, ...]:
    # Optional inputs that are absent stand there as -1.
    return tuple(int(v) for v in (values if values is not None else ()) if keep or v >= 0)


@cache
def _tensor_types() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return _constants(schema.TensorType)


@cache
def _operators() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return _constants(schema.BuiltinOperator)


def _constants(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if not name.startswith("_")}
