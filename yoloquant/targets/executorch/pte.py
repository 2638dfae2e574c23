"""Reading a ``.pte``: what runs in XNNPACK and what outside, and the quantization of every value.

A program calls delegates and kernels in turn. XNNPACK's delegates hold a flatbuffer each, whose layout is
``runtime_schema.fbs`` of ExecuTorch (fields may be added there, never moved); only what is asked for here is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ArtifactError

DELEGATE = "XnnpackBackend"
_HEADER = struct.Struct("<4x4sHIIIQ")  # magic, length, flatbuffer's offset and size, constants' offset and size
_MAGIC = b"XH00"
_TENSOR, _QUANTIZED = 1, 2  # members of the union XValueUnion
_PER_CHANNEL, _PER_TENSOR = 1, 2  # members of the union XNNQuantParams
_INT8 = frozenset({3, 6})  # XNNDatatype: one scale, a scale per channel


@dataclass(frozen=True)
class _Layout:
    """Name of an operation, and which fields of its table hold ids of values."""

    kind: str
    inputs: tuple[int, ...]
    output: int
    weight: int | None = None


_LAYOUTS: Mapping[int, _Layout] = {  # by member of the union XNodeUnion
    1: _Layout("add", (0, 1), 2),
    2: _Layout("linear", (0,), 3, 1),
    3: _Layout("softmax", (0,), 1),
    4: _Layout("sigmoid", (0,), 1),
    5: _Layout("transpose", (2,), 3),
    6: _Layout("clamp", (0,), 1),
    7: _Layout("conv", (15,), 18, 16),
    10: _Layout("pad", (3,), 4),
    11: _Layout("avg_pool", (10,), 11),
    13: _Layout("conv", (15,), 18, 16),
    14: _Layout("max_pool", (10,), 11),
    15: _Layout("mul", (0, 1), 2),
    16: _Layout("sub", (0, 1), 2),
    18: _Layout("convert", (0,), 1),
    19: _Layout("avg_pool", (0,), 1),
    20: _Layout("reshape", (2,), 3),
    32: _Layout("concat", (1, 2), 5),
    33: _Layout("concat", (1, 2, 3), 5),
    34: _Layout("concat", (1, 2, 3, 4), 5),
    35: _Layout("slice", (3,), 4),
    37: _Layout("matmul", (0, 1), 2),
    38: _Layout("concat", (1, 2, 3, 4, 7), 5),
    39: _Layout("conv_transpose", (15,), 18, 16),
}


@dataclass(frozen=True, eq=False)
class XnnValue:
    """A value of a subgraph.

    Attributes:
        scale: float32 (), or (channels,); None if it is no int8.
        zero_point: int32 of the same shape.
        data: The integers of a constant, None for what is computed.
    """

    scale: npt.NDArray[np.float32] | None
    zero_point: npt.NDArray[np.int32] | None
    data: bytes | None = None


@dataclass(frozen=True)
class XnnNode:
    """An operation of a subgraph.

    Attributes:
        kind: What it does.
        inputs: Values that it reads, its parameters left out.
        output: The value that it computes.
        weight: The value of its weight.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    weight: int | None


@dataclass(frozen=True, eq=False)
class Subgraph:
    """What one delegate runs.

    Attributes:
        values: By id.
        nodes: In execution order.
    """

    values: Mapping[int, XnnValue]
    nodes: tuple[XnnNode, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A ``.pte``.

    Attributes:
        subgraphs: What XNNPACK runs, in execution order.
        kernels: Operators that run outside, in execution order.
    """

    subgraphs: tuple[Subgraph, ...]
    kernels: tuple[str, ...]

    @classmethod
    def read(cls, content: bytes) -> Program:
        """Read a file.

        Args:
            content: The whole of it.

        Raises:
            ArtifactError: It is no such file, or damaged.
        """
        try:
            return _read(content)
        except Exception as exc:  # struct.error, IndexError, and whatever ExecuTorch's reader raises
            raise ArtifactError(f"this is not a readable .pte of ExecuTorch ({exc!r}); export it again") from exc

    @classmethod
    def load(cls, path: Path) -> Program:
        """The same from a file.

        Raises:
            ArtifactError: It cannot be read.
        """
        try:
            return cls.read(path.read_bytes())
        except OSError as exc:
            raise ArtifactError(f"'{path}' cannot be read ({exc}); export it again") from exc

    @property
    def delegated(self) -> int:
        """Operations that XNNPACK runs."""
        return sum(len(s.nodes) for s in self.subgraphs)


def _read(content: bytes) -> Program:
    from executorch.exir._serialize._program import deserialize_pte_binary

    file = deserialize_pte_binary(content)
    named: dict[str, bytes] = {}
    if file.named_data is not None:
        buffers = file.named_data.buffers
        named = {key: bytes(buffers[entry.buffer_index]) for key, entry in file.named_data.pte_data.items()}
    (plan,) = file.program.execution_plan
    subgraphs, kernels = [], []
    for instruction in (i.instr_args for chain in plan.chains for i in chain.instructions):
        if hasattr(instruction, "delegate_index"):
            delegate = plan.delegates[instruction.delegate_index]
            if delegate.id != DELEGATE:
                raise ValueError(f"it calls the delegate {delegate.id}")
            data = file.program.backend_delegate_data[delegate.processed.index].data
            subgraphs.append(_subgraph(bytes(data), named))
        elif hasattr(instruction, "op_index"):
            kernels.append(plan.operators[instruction.op_index].name)
    return Program(tuple(subgraphs), tuple(kernels))


class _FlatTable:
    """A table of a flatbuffer."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position
        self._vtable = position - self._number("<i", position)
        self._size = self._number("<H", self._vtable)

    def _number(self, form: str, position: int) -> Any:
        return struct.unpack_from(form, self._data, position)[0]

    def _field(self, index: int) -> int:
        """Where a field is; 0 if it is absent."""
        entry = 4 + 2 * index
        offset = self._number("<H", self._vtable + entry) if entry < self._size else 0
        return self._position + offset if offset else 0

    def number(self, index: int, form: str = "<I", default: Any = 0) -> Any:
        """A scalar."""
        at = self._field(index)
        return self._number(form, at) if at else default

    def table(self, index: int) -> _FlatTable:
        """Another table."""
        at = self._field(index)
        if not at:
            raise ValueError(f"field {index} is missing")
        return _FlatTable(self._data, at + self._number("<I", at))

    def tables(self, index: int) -> Iterator[_FlatTable]:
        """A vector of tables."""
        start, length = self._vector(index)
        for at in range(start, start + 4 * length, 4):
            yield _FlatTable(self._data, at + self._number("<I", at))

    def text(self, index: int) -> str:
        """A string."""
        start, length = self._vector(index)
        return self._data[start : start + length].decode()

    def floats(self, index: int) -> npt.NDArray[np.float32]:
        """A vector of floats."""
        start, length = self._vector(index)
        return np.frombuffer(self._data, "<f4", length, start) if length else np.zeros(0, np.float32)

    def _vector(self, index: int) -> tuple[int, int]:
        at = self._field(index)
        if not at:
            return 0, 0
        start = at + self._number("<I", at)
        return start + 4, self._number("<I", start)


def _subgraph(data: bytes, named: Mapping[str, bytes]) -> Subgraph:
    magic, _, at, size, constants_at, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("a delegate's header is not XNNPACK's")
    flat = data[at : at + size]
    root = _FlatTable(flat, struct.unpack_from("<I", flat)[0])
    constants = [_constant(entry, data[constants_at:], named) for entry in root.tables(8)]
    values = dict(_value(v, constants) for v in root.tables(2))
    return Subgraph(values, tuple(_node(n) for n in root.tables(1)))


def _constant(entry: _FlatTable, data: bytes, named: Mapping[str, bytes]) -> bytes:
    key, offset, size = entry.text(2), entry.number(0, "<Q"), entry.number(1, "<Q")
    return named[key] if key else data[offset : offset + size]


def _value(entry: _FlatTable, constants: list[bytes]) -> tuple[int, XnnValue]:
    kind, value = entry.number(0, "<B"), entry.table(1)
    tensor = value if kind == _TENSOR else value.table(0)
    index = tensor.number(3)
    # The first entry is a placeholder, so 0 stands for a value that is computed.
    data = constants[index] if index else None
    scale: npt.NDArray[np.float32] | None = None
    zero_point: npt.NDArray[np.int32] | None = None
    if kind == _QUANTIZED and tensor.number(0, "<h") in _INT8:
        form, params = value.number(1, "<B"), value.table(2)
        if form == _PER_TENSOR:
            scale = np.asarray(params.number(0, "<f", 0.0), np.float32)
            zero_point = np.asarray(params.number(1, "<i"), np.int32)
        elif form == _PER_CHANNEL:
            scale = params.floats(0)
            if not len(scale):
                # long vectors of scales are stored with the weights
                scale = np.frombuffer(constants[params.number(2)], "<f4", params.number(3))
            # Weights are symmetric: the format holds no zero points per channel.
            zero_point = np.zeros(scale.shape, np.int32)
    return tensor.number(6), XnnValue(scale, zero_point, data)


def _node(entry: _FlatTable) -> XnnNode:
    layout, table = _LAYOUTS.get(entry.number(0, "<B")), entry.table(1)
    if layout is None:
        # it is only counted: whatever is not listed carries no point
        return XnnNode("other", (), -1, None)
    weight = None if layout.weight is None else table.number(layout.weight)
    return XnnNode(layout.kind, tuple(table.number(i) for i in layout.inputs), table.number(layout.output), weight)
