"""Keep zeros in front of a max pool, which ONNX Runtime would take for padding of the pool.

ONNX Runtime 1.31 fuses a Pad of zeros into the MaxPool that reads it, at every optimization level, although a pool is
padded with nothing: at an edge where all values are negative the maximum becomes negative instead of 0. YOLOv3-tiny
has the two behind a SiLU (``findings/onnxruntime-fuses-zero-padding-into-max-pooling.sh``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

# The smallest normal number: not 0, so that nothing is fused, and lost beside any number that a network computes with.
NEARLY_ZERO = np.finfo(np.float32).tiny


def keep_zero_pads(model: ir.Model) -> int:
    """Rewrite every Pad of zeros that a MaxPool reads, in place.

    Args:
        model: An ONNX model; pads of other values and in front of other operators stay as they are.

    Returns:
        Number of rewritten places.
    """
    import onnx_ir as ir

    count = 0
    for node in model.graph:
        if not _fusible(node):
            continue
        name = f"{node.name}/nearly_zero"
        value = ir.val(name, const_value=ir.tensor(NEARLY_ZERO, name=name))
        model.graph.register_initializer(value)
        old = node.inputs[2] if len(node.inputs) > 2 else None
        node.resize_inputs(max(3, len(node.inputs)))
        node.replace_input_with(2, value)
        # several pads share one zero where the exporter has merged equal constants
        if old is not None and old.name is not None and not old.uses():
            model.graph.initializers.pop(old.name, None)
        count += 1
    return count


def _fusible(node: ir.Node) -> bool:
    if node.op_type != "Pad" or node.attributes.get_string("mode", "constant") != "constant":
        return False
    if not any(reader.op_type == "MaxPool" for reader in node.successors()):
        return False
    value = node.inputs[2] if len(node.inputs) > 2 else None
    return value is None or (value.const_value is not None and not np.any(value.const_value.numpy()))
