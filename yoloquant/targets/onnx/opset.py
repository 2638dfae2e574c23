"""From the oldest opset that torch's exporter writes (18) to the one that every runtime here reads (17).

Opset 18 changed few operators, and YOLO graphs use the new forms only to say the same; what they cannot say in opset 17
is refused. The changes are listed in ONNX's Changelog.md under opset 18.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import TargetError

if TYPE_CHECKING:
    import onnx

EXPORTED = 18
CANONICAL = 17

_REDUCTIONS = frozenset(
    f"Reduce{name}" for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)
_NEW_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Split": {"num_outputs": None},  # says nothing beside the sizes
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"},
}


def to_canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a model of opset 18 in place.

    Args:
        model: What torch's exporter wrote.

    Returns:
        The same model, of opset 17.

    Raises:
        TargetError: It is of another opset, or uses what opset 17 does not have.
    """
    opset = next((o for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    if opset is None or opset.version not in (EXPORTED, CANONICAL):
        raise TargetError(f"torch exported opset {opset and opset.version}; opset {EXPORTED} was asked for")
    if opset.version == EXPORTED:
        constants = {i.name: i for i in model.graph.initializer}
        for node in model.graph.node:
            _strip(node)
            if node.op_type in _REDUCTIONS and len(node.input) > 1 and node.input[1]:
                _axes_to_attribute(node, constants)
            elif node.op_type == "Pad" and len(node.input) > 3:
                raise TargetError(f"{node.name}: Pad with axes does not exist in opset {CANONICAL}")
        opset.version = CANONICAL
    return model


def _strip(node: onnx.NodeProto) -> None:
    from onnx import helper

    kept, new = [], _NEW_ATTRIBUTES.get(node.op_type, {})
    for attribute in node.attribute:
        if attribute.name not in new:
            kept.append(attribute)
        elif new[attribute.name] not in (None, helper.get_attribute_value(attribute)):
            raise TargetError(f"{node.name}: {node.op_type} with {attribute.name} does not exist in opset {CANONICAL}")
    if node.op_type == "Split" and len(node.input) < 2:
        raise TargetError(f"{node.name}: Split without sizes does not exist in opset {CANONICAL}")
    del node.attribute[:]
    node.attribute.extend(kept)


def _axes_to_attribute(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> None:
    from onnx import helper, numpy_helper

    if node.input[1] not in constants:
        raise TargetError(f"{node.name}: {node.op_type} over computed axes does not exist in opset {CANONICAL}")
    axes = [int(a) for a in numpy_helper.to_array(constants[node.input[1]])]
    del node.input[1:]
    kept = [a for a in node.attribute if a.name != "noop_with_empty_axes"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("axes", axes)])
