"""The arithmetic of uniform quantization: ``q = clamp(round(x / scale) + zero_point, qmin, qmax)``.

Everything is float32, as the runtimes store it, so that a scale survives every artifact bit for bit. Activations use
the int8 convention throughout (zero_point within -128..127); a runtime that wants uint8 adds 128 to both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PlanError

Array = npt.NDArray[np.float32]

HALF = 64  # the largest weight of which two, times 255 each, fit into a signed 16-bit register
MIN_SCALE = float(np.finfo(np.float32).tiny) * 128


@dataclass(frozen=True)
class QuantSpec:
    """How a kind of tensor is represented.

    Attributes:
        bits: Width of the integer.
        symmetric: Whether zero_point is always 0.
        narrow_range: Whether the most negative integer stays unused (-127 instead of -128).
        axis: Axis of one scale per slice; None for one scale per tensor.
        half_range: Whether no integer exceeds 64, so that any two products with uint8 fit into a signed 16-bit register
            (255 * (64 + 64) = 32640); see ``quantization.saturation``.
        safe_pairs: Whether the scale is such that weights which kernels add in pairs fit there together; the grid stays
            whole. See ``quantization.safe_pairs``.
    """

    bits: int = 8
    symmetric: bool = False
    narrow_range: bool = False
    axis: int | None = None
    half_range: bool = False
    safe_pairs: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise PlanError(f"bits={self.bits} is not supported; allowed are 2 to 16")

    @property
    def qmin(self) -> int:
        """Smallest integer."""
        # without -128 a weight's range is symmetric
        full = -(1 << (self.bits - 1)) + int(self.narrow_range)
        return max(full, -HALF) if self.half_range else full

    @property
    def qmax(self) -> int:
        """Largest integer."""
        full = (1 << (self.bits - 1)) - 1
        return min(full, HALF) if self.half_range else full


@dataclass(frozen=True, eq=False)
class QParams:
    """Scale and zero_point of one point.

    Attributes:
        scale: float32, shape () or (channels,).
        zero_point: int32 of the same shape.
    """

    scale: Array
    zero_point: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        scale = np.asarray(self.scale, np.float32)
        zero_point = np.asarray(self.zero_point, np.int32)
        # runtimes know one scale per tensor or per slice of one axis, nothing between
        if scale.shape != zero_point.shape or scale.ndim > 1:
            raise PlanError(f"scale {scale.shape} and zero_point {zero_point.shape} must both be () or (channels,)")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise PlanError(f"every scale must be finite and above 0, got {scale.min()} to {scale.max()}")
        # frozen, and yet scalars and float64 arrays are accepted: this is how a frozen dataclass converts
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "zero_point", zero_point)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, QParams)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data; a float32 survives the way through a Python float and back."""
        return {"scale": self.scale.tolist(), "zero_point": self.zero_point.tolist()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QParams:
        """Inverse of to_dict."""
        return cls(np.asarray(data["scale"], np.float32), np.asarray(data["zero_point"], np.int32))

    def range(self, spec: QuantSpec) -> tuple[Array, Array]:
        """Smallest and largest real value that can be represented."""
        low = (spec.qmin - self.zero_point).astype(np.float32) * self.scale
        high = (spec.qmax - self.zero_point).astype(np.float32) * self.scale
        return low.astype(np.float32), high.astype(np.float32)


UNIT_QPARAMS = QParams(np.float32(1 / 256), np.int32(-128))  # type: ignore[arg-type]
"""What LiteRT prescribes for the results of sigmoid and softmax."""


def from_range(low: npt.ArrayLike, high: npt.ArrayLike, spec: QuantSpec) -> QParams:
    """Scale and zero_point that cover a range of real values.

    Zero is always representable exactly, since padding and ReLU depend on it; the zero_point is rounded after the scale
    has been fixed (Jacob et al. 2018, arXiv 1712.05877, section 3).

    Args:
        low: Smallest value to represent, shape () or (channels,).
        high: Largest value.
        spec: The representation.

    Returns:
        The parameters; a range of width 0 gets the smallest usable scale rather than an error.
    """
    if not np.ndim(low) and not np.ndim(high) and math.isfinite(low) and math.isfinite(high):  # type: ignore[arg-type]
        return _from_bounds(float(low), float(high), spec)  # type: ignore[arg-type]
    # in float64: the division below must not lose what float32 scales can express
    lo = np.minimum(np.asarray(low, np.float64), 0.0)
    hi = np.maximum(np.asarray(high, np.float64), 0.0)
    if spec.symmetric:
        scale = np.maximum(np.maximum(-lo, hi) / spec.qmax, MIN_SCALE).astype(np.float32)
        # TensorRT's parser refuses any other zero_point (error, no fallback), and so do weights in all runtimes
        return QParams(scale, np.zeros_like(scale, dtype=np.int32))
    steps = spec.qmax - spec.qmin
    scale = np.maximum((hi - lo) / steps, MIN_SCALE).astype(np.float32)
    # by the scale as it will be stored, not as it was before rounding to float32
    zero_point = np.clip(np.round(spec.qmin - lo / scale.astype(np.float64)), spec.qmin, spec.qmax)
    return QParams(scale, zero_point.astype(np.int32))


def _from_bounds(low: float, high: float, spec: QuantSpec) -> QParams:
    """The same of one range: a search tries ten thousands, and arrays of one value would cost more than its loss."""
    low, high = min(low, 0.0), max(high, 0.0)
    if spec.symmetric:
        return QParams(np.float32(max(max(-low, high) / spec.qmax, MIN_SCALE)), np.int32(0))  # type: ignore[arg-type]
    scale = np.float32(max((high - low) / (spec.qmax - spec.qmin), MIN_SCALE))
    zero_point = min(max(round(spec.qmin - low / float(scale)), spec.qmin), spec.qmax)
    return QParams(scale, np.int32(zero_point))  # type: ignore[arg-type]


def along_axis(values: npt.NDArray[Any], axis: int | None, ndim: int) -> npt.NDArray[Any]:
    """One value per slice of an axis, shaped to broadcast with a tensor of so many axes; a scalar stays one."""
    if axis is None or not values.ndim:
        return values
    return values.reshape([-1 if i == axis % ndim else 1 for i in range(ndim)])


def quantize(x: npt.NDArray[np.floating[Any]], params: QParams, spec: QuantSpec) -> npt.NDArray[np.floating[Any]]:
    """The integers of some values, as floats of their dtype.

    Args:
        x: Values of any shape; with per-axis parameters the axis is ``spec.axis``.
        params: Scale and zero_point.
        spec: The representation.
    """
    # NumPy would promote float32 with int32 to float64
    scale, zero = (along_axis(v.astype(x.dtype), spec.axis, x.ndim) for v in (params.scale, params.zero_point))
    # half to even and then the zero_point, as ONNX Runtime, torch and LiteRT with XNNPACK do; OpenVINO adds it first
    steps = np.asarray(x / scale)
    np.rint(steps, out=steps)  # in place, here and below: searches come here ten thousands of times
    steps += zero
    np.clip(steps, spec.qmin, spec.qmax, out=steps)
    return steps


def fake_quantize(x: npt.NDArray[np.floating[Any]], params: QParams, spec: QuantSpec) -> npt.NDArray[Any]:
    """Quantize and dequantize in float, the reference that artifacts are held against.

    Returns:
        Values on the grid, in the dtype of ``x``; see ``quantize``.
    """
    scale, zero = (along_axis(v.astype(x.dtype), spec.axis, x.ndim) for v in (params.scale, params.zero_point))
    steps = quantize(x, params, spec)
    steps -= zero
    steps *= scale
    return steps
