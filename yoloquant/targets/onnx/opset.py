"""From the oldest opset that torch's exporter writes (18) to the one that every runtime here reads (17).

Opset 18 changed few operators, and YOLO graphs use the new forms only to say the same; what they cannot say in opset 17
is refused. The changes are listed in ONNX's Changelog.md under opset 18.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import TargetError
from .pools import write_out_padding
from .reductions import REDUCTIONS, lower

if TYPE_CHECKING:
    import onnx_ir as ir

EXPORTED = 18
CANONICAL = 17

_NEW_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Split": {"num_outputs": None},  # says nothing beside the sizes
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": "stretch"},
}


def to_canonical(model: ir.Model) -> ir.Model:
    """Rewrite a model of opset 18 in place.

    Args:
        model: What torch's exporter made.

    Returns:
        The same model, of opset 17.

    Raises:
        TargetError: It is of another opset, or uses what opset 17 does not have.
    """
    version = model.opset_imports.get("")
    if version not in (EXPORTED, CANONICAL):
        raise TargetError(f"torch exported opset {version}; opset {EXPORTED} was asked for")
    if version == EXPORTED:
        for node in list(model.graph):
            _strip(node)
            if node.op_type in REDUCTIONS and len(node.inputs) > 1 and node.inputs[1] is not None:
                lower(model.graph, node, CANONICAL)
            elif node.op_type == "Pad" and len(node.inputs) > 3:
                raise TargetError(f"{node.name}: Pad with axes does not exist in opset {CANONICAL}")
            elif node.op_type == "AveragePool":
                write_out_padding(model.graph, node)
        model.opset_imports[""] = CANONICAL
    return model


def _strip(node: ir.Node) -> None:
    for name, allowed in _NEW_ATTRIBUTES.get(node.op_type, {}).items():
        attribute = node.attributes.pop(name, None)
        if attribute is not None and allowed not in (None, attribute.value):
            raise TargetError(f"{node.name}: {node.op_type} with {name} does not exist in opset {CANONICAL}")
    if node.op_type == "Split" and len(node.inputs) < 2:
        raise TargetError(f"{node.name}: Split without sizes does not exist in opset {CANONICAL}")
