"""A whole plan with activations of 16 bits, and the opset that can say so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...quantization.wide import BITS, widened

if TYPE_CHECKING:
    import onnx_ir as ir

    from ...quantization.plan import Plan

_OPSET, _IR_VERSION = 21, 10  # the first whose QuantizeLinear has 16 bits


def widen(plan: Plan) -> Plan:
    """The plan with activations of 16 bits, see ``quantization.wide``; weights stay int8."""
    weights = {p.name for p in plan.weights}
    # those of w8a16 layers are wide already
    points = tuple(p if p.name in weights or p.spec.bits == BITS else widened(p) for p in plan.points)
    return replace(plan, points=points)


def to_wide_opset(model: ir.Model) -> None:
    """Say that a model is of the first opset with 16-bit quantization; what bodies hold means the same in both."""
    model.opset_imports[""] = _OPSET
    model.ir_version = _IR_VERSION
