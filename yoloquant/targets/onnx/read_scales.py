"""Read back what quantizes in a Q/DQ ONNX model, to hold it against the plan bit for bit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ...errors import TargetError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def read_scales(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scale and zero_point that Q/DQ nodes of a model really use, in the int8 convention, by point name.

    Raises:
        TargetError: A point is missing, or a node of its place uses other constants.
    """
    import onnx_ir as ir

    # constants are named after their points when they are written, so a point is found by the constant that a node
    # reads
    used: dict[str, ir.Node] = {}
    for node in ir.from_proto(model).graph:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear", "Mul"}:
            scale = node.inputs[1]
            if scale is not None and (scale.name or "").endswith("/scale"):
                used[str(scale.name).removesuffix("/scale")] = node
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in names:
        if name not in used:
            raise TargetError(f"the artifact has no quantize or dequantize operation for point {name}")
        node = used[name]
        scales = _constant(node, 1)
        scales = scales.reshape(-1) if scales.ndim > 1 else scales
        # behind a ConvInteger, whose weights have no zero_point
        zeros = np.zeros(scales.shape, np.int8) if node.op_type == "Mul" else _constant(node, 2)
        offset = {np.uint8: 128, np.uint16: 32768}.get(zeros.dtype.type, 0)
        found[name] = (scales, zeros.astype(np.int32) - offset)
    return found


def _constant(node: ir.Node, position: int) -> np.ndarray:
    value = node.inputs[position]
    if value is None or value.const_value is None:
        raise TargetError(f"{node.name} quantizes with a scale or zero_point that is computed; export it again")
    return np.asarray(value.const_value.numpy())
