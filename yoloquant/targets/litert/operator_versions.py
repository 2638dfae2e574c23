"""Versions of operators: the lowest that a file needs, and the highest that the Edge TPU compiler reads.

The compiler holds the operator table of an old TensorFlow and has not been updated since version 16.0 (2021). A file
that asks for a newer version of an operator than that table has is refused as a whole, even if it uses nothing new.
"""

from __future__ import annotations

import logging
from typing import Any

from .flatbuffer import Flatbuffer, OpInfo, operator_name, parse, serialize

logger = logging.getLogger(__name__)

# The version that TensorFlow gives each operator if its operands are int8 and nothing else in it is newer
# (tensorflow/lite/tools/versioning/op_version.cc of 2021, the year of compiler 16.0).
_INT8 = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "BATCH_MATMUL": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "L2_NORMALIZATION": 2,
    "LOGISTIC": 2,
    "MAXIMUM": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MINIMUM": 2,
    "PACK": 2,
    "PAD": 2,
    "PADV2": 2,
    "REDUCE_MAX": 2,
    "REDUCE_MIN": 2,
    "RELU": 2,
    "RELU6": 2,
    "SLICE": 2,
    "SOFTMAX": 2,
    "SPACE_TO_DEPTH": 2,
    "SPLIT": 2,
    "SPLIT_V": 2,
    "STRIDED_SLICE": 2,
    "SUB": 2,
    "SUM": 2,
    "TANH": 2,
    "TRANSPOSE": 2,
}
_ALWAYS_1 = frozenset({"RESHAPE"})
# Refused by compiler 16.0 with "Didn't find op for builtin opcode": google-coral/edgetpu issues 631 (CONV_2D 6) and 845
# (TRANSPOSE_CONV 4), google-coral/libedgetpu issue 71 (EXP 2).
REFUSED_FROM = {"CONV_2D": 6, "TRANSPOSE_CONV": 4, "EXP": 2}


def needed(file: Flatbuffer, op: OpInfo) -> int | None:
    """The lowest version that has everything an operator uses.

    Args:
        file: The file.
        op: The operator; only those on int8 tensors of at most four dimensions are known.

    Returns:
        The version, or None where no rule is known, so that the version must stay as it is.
    """
    if op.kind in _ALWAYS_1:
        return 1
    computed = [file.tensors[i] for i in (*file.operands(op), *op.outputs)]
    if any(t.dtype != "INT8" or len(t.shape) > 4 for t in computed):
        return None
    if op.kind in {"RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"}:
        aligned = op.options.get("alignCorners") and op.kind == "RESIZE_NEAREST_NEIGHBOR"
        return 3 if op.options.get("halfPixelCenters") or aligned else 2
    if op.kind == "MUL":
        return _multiply(file, op)
    if op.kind == "TRANSPOSE_CONV":
        return 3 if len(op.inputs) > 3 else 2
    if op.kind == "FULLY_CONNECTED":
        return 6 if len(op.inputs) == 2 else 5 if op.options.get("keepNumDims") else 4
    if op.kind == "STRIDED_SLICE" and (op.options.get("ellipsisMask") or op.options.get("newAxisMask")):
        return None
    return _INT8.get(op.kind)


def _multiply(file: Flatbuffer, op: OpInfo) -> int:
    """Version 3 allows a product of the operands' scales that is not below the result's."""
    scales = [file.tensors[i].scale for i in (*op.inputs, *op.outputs)]
    if len(scales) != 3 or any(len(s) != 1 for s in scales):
        return 3
    left, right, result = (float(s[0]) for s in scales)
    return 3 if left * right / result >= 1 else 2


def lower(content: bytes) -> bytes:
    """Rewrite a file so that every operator asks for the lowest version that has what it uses.

    Nothing but version numbers changes, so every runtime that read the file before computes the same.

    Args:
        content: A flatbuffer.

    Returns:
        The rewritten flatbuffer, or the same bytes if no version can be lowered.
    """
    model = parse(content)
    return serialize(model) if lower_versions(model, Flatbuffer(content)) else content


def lower_versions(model: Any, file: Flatbuffer) -> dict[str, tuple[int, int]]:
    """The same on the object form, in place.

    Args:
        model: The object form.
        file: The same file as read.

    Returns:
        Old and new version of every operator that was lowered.
    """
    wanted: dict[int, list[int | None]] = {}
    for op, raw in zip(file.ops, model.subgraphs[0].operators, strict=True):
        wanted.setdefault(int(raw.opcodeIndex), []).append(needed(file, op))
    changed = {}
    for index, versions in wanted.items():
        code = model.operatorCodes[index]
        known = [v for v in versions if v is not None]
        # A version belongs to a code that all operators of the kind share: lowered only if every one allows it.
        if len(model.subgraphs) == 1 and len(known) == len(versions) and max(known) < code.version:
            changed[operator_name(code)] = (int(code.version), max(known))
            code.version = max(known)
    if changed:
        logger.info("lowered operator versions: %s", changed)
    return changed
