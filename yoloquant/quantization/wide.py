"""Activations of 16 bits on the ranges of an 8-bit plan, so that nothing is calibrated anew.

A calibrated range gives up its outermost values for finer steps. With 256 times as many steps nothing has to be given
up: every range becomes 16 times as wide and its steps 16 times as fine, so that each scale stays a power of two away
from the plan's. A learned range keeps its ends: a network that was trained with them may count on what they cut off.

Where a runtime wants 0 in the middle, half of the codes may go unused; with steps 16 times as fine they still reach at
least eight times as far as the 8-bit range does. A learned range keeps the end that is further away.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .plan import Point
from .qparams import QParams, from_range

BITS = 16
FINER = 16
_CODES = 257  # 65535 / 255: so many of its codes stand for one of uint8
_LEARNED = "learned"


def widened(point: Point) -> Point:
    """A calibrated 8-bit activation with 16 bits."""
    assert point.params is not None
    low = 1 << (BITS - 1)
    zero = (point.params.zero_point.astype(np.int64) + 128) * _CODES - low
    scale: Any = point.params.scale
    if point.fixed:  # 0 to 1, as the NPU prescribes it for 16 bits
        scale, zero = np.full_like(scale, 1 / (1 << BITS)), np.full_like(zero, -low)
    elif point.algorithm == _LEARNED:
        scale = scale / np.float32(_CODES)
    else:
        scale = scale / np.float32(FINER)
    return replace(point, spec=replace(point.spec, bits=BITS), params=QParams(scale, zero.astype(np.int32)))


def widened_around_zero(point: Point) -> Point:
    """The same with a zero_point of 0."""
    assert point.params is not None
    spec = replace(point.spec, bits=BITS, symmetric=True)
    scale: Any = point.params.scale
    if point.fixed:  # 0 to 1, as LiteRT prescribes it for 16 bits
        scale = np.full_like(scale, 1 / (1 << (BITS - 1)))
    elif point.algorithm == _LEARNED:
        scale = from_range(*point.params.range(point.spec), spec).scale
    else:
        scale = scale / np.float32(FINER)
    return replace(point, spec=spec, params=QParams(scale, np.zeros_like(point.params.zero_point)))
