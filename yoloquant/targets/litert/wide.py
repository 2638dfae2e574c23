"""Activations of 16 bits ("16x8"): the plan of such a file, and the 8-bit one that stands for it in the converter.

litert-torch 0.10 cannot make such files from a plan's own ranges. A 16-bit grid is one of 8 bits with 256 times as fine
steps: the converter gets that coarse grid, with the same ties and the same layout, and what it wrote is made finer
(``sixteen_bits``). 256 is a power of two, so that every scale survives both steps bit by bit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...quantization.plan import Plan, Point
from ...quantization.qparams import UNIT_QPARAMS, QParams
from ...quantization.wide import BITS, widened_around_zero

COARSER = np.float32(1 << (BITS - 8))
_UNIT_SCALE = np.float32(1 / (1 << (BITS - 1)))


def widen(plan: Plan) -> Plan:
    """The plan with activations of 16 bits around 0, see ``quantization.wide``; weights stay int8."""
    weights = {p.name for p in plan.weights}
    return replace(plan, points=tuple(p if p.name in weights else widened_around_zero(p) for p in plan.points))


def is_wide(plan: Plan) -> bool:
    """Whether a plan's activations have 16 bits."""
    return any(p.spec.bits == BITS for p in plan.activations)


def coarse(plan: Plan) -> Plan:
    """The 8-bit plan that the converter gets in place of a wide one."""
    weights = {p.name for p in plan.weights}
    return replace(plan, points=tuple(p if p.name in weights else _coarse(p) for p in plan.points))


def _coarse(point: Point) -> Point:
    assert point.params is not None
    # the converter accepts a sigmoid with its own 8-bit range alone
    params = UNIT_QPARAMS if point.fixed else QParams(point.params.scale * COARSER, point.params.zero_point)
    return replace(point, spec=replace(point.spec, bits=8, symmetric=False), params=params)


def fine_scale(scale: np.ndarray, zero_point: np.ndarray) -> np.ndarray:
    """The 16-bit scale that a coarse grid stands for; a sigmoid's is the one whose zero_point is not 0."""
    return np.where(zero_point == 0, scale / COARSER, _UNIT_SCALE).astype(np.float32)
