"""What an inference costs: multiply-accumulates, parameters, and activations that are alive at once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import prod

import numpy as np

from ..litert.flatbuffer import Flatbuffer, OpInfo
from .report import Memory

_BYTES = {"INT8": 1, "UINT8": 1, "BOOL": 1, "INT16": 2, "FLOAT16": 2, "INT32": 4, "FLOAT32": 4, "INT64": 8}


def macs(file: Flatbuffer, op: OpInfo) -> int:
    """Multiply-accumulates of one operator; 0 for those that have none."""
    count = _MACS.get(op.kind)
    return count(file, op) if count else 0


def _shape(file: Flatbuffer, index: int) -> tuple[int, ...]:
    return file.tensors[index].shape


def _conv(file: Flatbuffer, op: OpInfo) -> int:
    """Every output sums over one filter: (out, height, width, in)."""
    return prod(_shape(file, op.outputs[0])) * prod(_shape(file, op.inputs[1])[1:])


def _depthwise(file: Flatbuffer, op: OpInfo) -> int:
    """Every output sums over one channel's filter: (1, height, width, out)."""
    return prod(_shape(file, op.outputs[0])) * prod(_shape(file, op.inputs[1])[1:3])


def _transposed(file: Flatbuffer, op: OpInfo) -> int:
    """Every input (the third operand) is spread over a filter: (out, height, width, in)."""
    return prod(_shape(file, op.inputs[2])) * prod(_shape(file, op.inputs[1])[:3])


def _connected(file: Flatbuffer, op: OpInfo) -> int:
    return prod(_shape(file, op.outputs[0])) * _shape(file, op.inputs[1])[-1]


def _product(file: Flatbuffer, op: OpInfo) -> int:
    left = _shape(file, op.inputs[0])
    return prod(_shape(file, op.outputs[0])) * left[-2 if op.options.get("adjX") else -1]


_MACS: dict[str, Callable[[Flatbuffer, OpInfo], int]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _connected,
    "BATCH_MATMUL": _product,
}


def memory(file: Flatbuffer, chosen: Collection[int]) -> Memory:
    """Bytes that some operators need.

    Args:
        file: The file.
        chosen: Indices of the operators.

    Returns:
        Their parameters, and the activations of the whole file: each tensor is counted from the operator that writes it
        to the last that reads it, as if none could share memory with another.
    """
    constants = {i for op in file.ops if op.index in chosen for i in op.inputs if file.tensors[i].constant}
    # shapes and axes are constants too, and are not cached on the chip
    parameters = sum(_bytes(file, i) for i in constants if len(file.tensors[i].scale))
    steps = len(file.ops) + 1
    change = np.zeros(steps + 1, np.int64)
    first = dict.fromkeys(file.inputs, 0)
    first.update({out: op.index for op in file.ops for out in op.outputs})
    last = {i: op.index for op in file.ops for i in op.inputs}
    # Outputs must still be there when all is done.
    last.update(dict.fromkeys(file.outputs, steps - 1))
    for index, start in first.items():
        change[start] += _bytes(file, index)
        # a difference array: its running sum is what is alive at every step
        change[last.get(index, start) + 1] -= _bytes(file, index)
    largest = max((_bytes(file, i) for i in first), default=0)
    return Memory(parameters, int(change.cumsum().max(initial=0)), largest)


def _bytes(file: Flatbuffer, index: int) -> int:
    tensor = file.tensors[index]
    return prod(tensor.shape) * _BYTES.get(tensor.dtype, 4)
