"""Ranges from data: a streaming histogram per tensor, and the algorithms that turn it into scale and zero_point."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import CalibrationError
from .qparams import UNIT_QPARAMS, QParams, QuantSpec, fake_quantize, from_range, quantize
from .range_options import FOR_WEIGHTS, Algorithm
from .safe_pairs import least_scale

# A step of 8 bits is 64 bins wide where the radius is used up, and still 32 right after it has doubled.
BINS = 1 << 14
SAMPLE = 1 << 16
_TABLE_BITS = 12  # with more there are more steps than bins
Floats = npt.NDArray[np.float64]


@dataclass
class Histogram:
    """Streaming histogram over [-radius, radius] whose radius is a power of two.

    When a larger value arrives the radius doubles and pairs of bins merge, so one pass suffices, memory is constant,
    the result does not depend on how the data was batched, and two histograms merge exactly.

    Attributes:
        counts: (BINS,) number of values per bin, or what they weigh together.
        exponent: log2 of the radius.
        low: Smallest value seen.
        high: Largest value seen.
    """

    counts: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    # below every radius that _exponent gives, so that the first values set it
    exponent: int = -64
    low: float = math.inf
    high: float = -math.inf

    @property
    def empty(self) -> bool:
        """Whether nothing was seen."""
        return self.low > self.high

    @property
    def centers(self) -> Floats:
        """Middle of each bin."""
        width = 2.0 ** (self.exponent + 1) / BINS
        return np.asarray((np.arange(BINS) + 0.5) * width - 2.0**self.exponent, np.float64)

    def update(
        self, x: torch.Tensor, weights: torch.Tensor | None = None, *, bounds: tuple[float, float] | None = None
    ) -> None:
        """Add values.

        The extremes are taken from every value, the counts from an evenly spaced sample.

        Args:
            x: Float tensor of any shape.
            weights: What each value counts, of the same shape, for a histogram with float counts; 1 if None.
            bounds: The smallest and the largest value, if they are known.

        Raises:
            CalibrationError: It holds NaN or infinity.
        """
        # of every value, not of the sample: the search must know the true extremes as its bounds
        low, high = bounds or (float(v) for v in torch.aminmax(x))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CalibrationError("values are NaN or infinite")
        values, stride = evenly(x.detach().float(), SAMPLE)
        # what was left out counts like what was not, so that tensors of any size can be merged
        mass = None if weights is None else evenly(weights.detach(), SAMPLE)[0].double() * stride
        self.add(values, mass, (low, high))

    def add(self, values: torch.Tensor, mass: torch.Tensor | None, bounds: tuple[float, float]) -> None:
        """Add a sample of values, each counted once or by its mass.

        Args:
            values: float32 (values,).
            mass: float64 (values,), for a histogram with float counts; None to count each once.
            bounds: The smallest and the largest of all values, beyond the sample too.
        """
        low, high = bounds
        self.low, self.high = min(self.low, low), max(self.high, high)
        # before binning: an index beyond the last bin would be an error in bincount's fixed length
        self._grow(_exponent(max(abs(low), abs(high))))
        # multiplying by a power of two and rounding down are exact, so growing later gives what binning now would
        index = (values * (BINS / 2 / 2.0**self.exponent)).floor_().add_(BINS // 2).to(torch.int64)
        self.counts += torch.bincount(index, mass, minlength=BINS).numpy()

    def merged(self, other: Histogram) -> Histogram:
        """The histogram of both data together."""
        result = Histogram(self.counts.copy(), self.exponent, self.low, self.high)
        addend = Histogram(other.counts.copy(), other.exponent, other.low, other.high)
        exponent = max(result.exponent, addend.exponent)
        result._grow(exponent)
        addend._grow(exponent)
        result.counts = result.counts + addend.counts
        result.low, result.high = min(self.low, other.low), max(self.high, other.high)
        return result

    def _grow(self, exponent: int) -> None:
        # nothing to move yet
        if self.empty or not self.counts.any():
            self.exponent = max(exponent, self.exponent)
            return
        while self.exponent < exponent:
            wide = np.zeros_like(self.counts)
            wide[BINS // 4 : 3 * BINS // 4] = self.counts.reshape(-1, 2).sum(1)
            # pairs of bins merge into the middle half: the outer quarters are the new values' room
            self.counts, self.exponent = wide, self.exponent + 1


def evenly(x: torch.Tensor, sample: int) -> tuple[torch.Tensor, int]:
    """At most so many of a tensor's values, evenly spread over it, and the step between them."""
    flat = x.reshape(-1)
    stride = -(-flat.numel() // sample)
    stride = stride | 1 if stride > 1 else 1  # an odd stride does not fall into step with rows of even length
    return flat[::stride], stride


def _exponent(radius: float) -> int:
    # strictly above the value, since the last bin is open at its end
    return max(math.floor(math.log2(radius)) + 1, -63) if radius > 0 else -63


def compute_qparams(hist: Histogram, spec: QuantSpec, algorithm: Algorithm, *, percentile: float = 99.99) -> QParams:
    """Find scale and zero_point for what a histogram saw.

    Args:
        hist: The values.
        spec: The representation.
        algorithm: How to choose.
        percentile: For PERCENTILE, the share of values kept.

    Returns:
        The parameters.

    Raises:
        CalibrationError: Nothing was seen.
    """
    if hist.empty:
        raise CalibrationError("no values were seen")
    # one value alone has no error to minimise
    if algorithm is Algorithm.MINMAX or hist.low == hist.high:
        return from_range(hist.low, hist.high, spec)
    if algorithm is Algorithm.PERCENTILE:
        return from_range(*_percentile(hist, percentile), spec)
    # empty bins add nothing to the loss, which a search evaluates a hundred times and more
    filled = hist.counts > 0
    values, weights = hist.centers[filled], hist.counts[filled].astype(np.float64)
    if algorithm is Algorithm.ENTROPY:
        return search(hist, spec, lambda q: _divergence(values, weights, q, spec))
    if algorithm is Algorithm.MSE_SIGMOID:
        exact = _sigmoid(values)
        return search(hist, spec, lambda q: _sigmoid_error(values, weights, q, spec, exact), keep_high=True)
    if algorithm is Algorithm.MSE_SILU:
        exact = _silu(values)
        return search(hist, spec, lambda q: _silu_error(values, weights, q, spec, exact))
    return search(hist, spec, lambda q: _plain_error(values, weights, q, spec))


def _percentile(hist: Histogram, percentile: float) -> tuple[float, float]:
    """Two-sided: half of what is cut off lies on each side."""
    share = np.cumsum(hist.counts) / hist.counts.sum()
    cut = (1 - percentile / 100) / 2
    low = hist.centers[int(np.searchsorted(share, cut))]
    high = hist.centers[min(int(np.searchsorted(share, 1 - cut)), BINS - 1)]
    # a bin's middle may lie beyond the extreme value that it holds
    return max(float(low), hist.low), min(float(high), hist.high)


def _plain_error(x: Floats, weights: Floats, params: QParams, spec: QuantSpec) -> float:
    return float(weights @ (fake_quantize(x, params, spec) - x) ** 2)


def _silu_error(x: Floats, weights: Floats, params: QParams, spec: QuantSpec, exact: Floats | None = None) -> float:
    """Error after the SiLU, the sigmoid's own rounding included: else clipped negatives stop rounding to exactly 0."""
    after = _after(_rounded_silu, x, params, spec)
    return float(weights @ (after - (_silu(x) if exact is None else exact)) ** 2)


def _sigmoid_error(x: Floats, weights: Floats, params: QParams, spec: QuantSpec, exact: Floats | None = None) -> float:
    after = _after(_sigmoid, x, params, spec)
    return float(weights @ (after - (_sigmoid(x) if exact is None else exact)) ** 2)


def _after(function: Callable[[Floats], Floats], x: Floats, params: QParams, spec: QuantSpec) -> Floats:
    """A function of values on their grid, computed once for each step that there is: exponentials cost most."""
    if spec.bits > _TABLE_BITS:
        return function(fake_quantize(x, params, spec))
    steps = np.arange(spec.qmin, spec.qmax + 1, dtype=x.dtype)
    table = function((steps - params.zero_point.astype(x.dtype)) * params.scale.astype(x.dtype))
    return np.asarray(table[(quantize(x, params, spec) - spec.qmin).astype(np.intp)])


def _silu(x: Floats) -> Floats:
    return x * _sigmoid(x)


def _rounded_silu(x: Floats) -> Floats:
    return np.asarray(x * fake_quantize(_sigmoid(x), UNIT_QPARAMS, QuantSpec()))


def _sigmoid(x: Floats) -> Floats:
    # exp overflows float64 beyond 709 with a warning; at 60 the sigmoid is 0 or 1 to all of its digits
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -60, 60))))


def _divergence(x: Floats, weights: Floats, params: QParams, spec: QuantSpec) -> float:
    """Kullback-Leibler divergence of the quantized distribution from the clipped one (Migacz, GTC 2017)."""
    low, high = (float(v) for v in params.range(spec))
    step = np.round(np.clip(x, low, high) / float(params.scale)).astype(np.int64)
    _, index = np.unique(step, return_inverse=True)
    reference = weights.copy()
    outside = (x < low) | (x > high)
    inside_mass = np.bincount(index, np.where(outside, 0.0, weights))
    # the mass of a step is spread evenly over the bins that it holds, as the quantizer cannot tell them apart
    members = np.maximum(np.bincount(index, np.where(outside, 0.0, 1.0)), 1)
    spread = np.where(outside, 0.0, (inside_mass / members)[index])
    # mass beyond the range is counted at the range's ends in the reference, where the quantized one has none
    for side in (x < low, x > high):
        inside = np.flatnonzero(~outside)
        if side.any() and inside.size:
            end = inside[0] if x[side][0] < low else inside[-1]
            reference[end] += weights[side].sum()
    reference = np.where(outside, 0.0, reference)
    if not reference.sum():
        return math.inf  # the range holds nothing that was seen
    # a bin that the quantized distribution lacks would make the divergence infinite and all such ranges alike
    p, q = reference / reference.sum(), np.maximum(spread / max(spread.sum(), 1e-30), 1e-12)
    mask = p > 0
    return float((p[mask] * np.log(p[mask] / q[mask])).sum())


def search(
    hist: Histogram,
    spec: QuantSpec,
    loss: Callable[[QParams], float],
    *,
    keep_high: bool = False,
    least: float = 0.02,
) -> QParams:
    """Shrink the two ends of the range in turn, coarse to fine, and keep what loses least.

    Args:
        hist: What was seen, for the bounds.
        spec: The representation.
        loss: What parameters lose.
        keep_high: Never clip large values.
        least: Smallest share of what was seen that a range is tried at.
    """
    if spec.symmetric:
        amax = max(-hist.low, hist.high)
        best = _line(lambda f: loss(from_range(-amax * f, amax * f, spec)), 1.0, least)
        # clipped class logits put a ceiling on confidences, and a floor under a distillation loss
        amax = max(amax * best, hist.high) if keep_high else amax * best
        return from_range(-amax, amax, spec)
    low, high = 1.0, 1.0
    for again in (False, True, True):  # the first round finds the valley, the others only follow it
        before, grid = (low, high), None if again else least
        if hist.high > 0 and not keep_high:
            high = _line(lambda f: loss(from_range(hist.low * low, hist.high * f, spec)), high, grid)  # noqa: B023
        if hist.low < 0:
            low = _line(lambda f: loss(from_range(hist.low * f, hist.high * high, spec)), low, grid)  # noqa: B023
        if before == (low, high):
            break
    return from_range(hist.low * low, hist.high * high, spec)


def _line(loss: Callable[[float], float], start: float, least: float | None) -> float:
    """Minimise over a fraction in (0, 1]: a geometric grid down to ``least`` if given, then twice around its best."""
    tried: dict[float, float] = {start: loss(start)}

    def look(fractions: Floats) -> None:
        tried.update((f, loss(f)) for f in fractions.tolist() if f not in tried)

    if least is not None:
        # so dense for every ``least``: 24 points down to 2 % of the maximum, as many per factor beyond
        look(np.geomspace(least, 1.0, round(24 * math.log(least) / math.log(0.02))))
    for ratio in (1.12, 1.025):
        best = min(tried, key=tried.__getitem__)
        # twice finer around the best: the loss is smooth at this scale
        look(np.geomspace(best / ratio, min(best * ratio, 1.0), 9))
    return min(tried, key=tried.__getitem__)


def compute_weight_qparams(
    weight: npt.NDArray[np.float32],
    spec: QuantSpec,
    algorithm: Algorithm,
    moments: npt.NDArray[np.float64] | None = None,
) -> QParams:
    """Symmetric parameters of a weight.

    Args:
        weight: Any shape; ``spec.axis`` is the output channel.
        spec: The representation.
        algorithm: MINMAX, or MSE for the amax that loses least squared error in each channel.
        moments: Second moments of what each channel's weights meet, (weights, weights): with them the error is that of
            the results.

    Returns:
        Parameters of shape (channels,), or () for one scale per tensor.

    Raises:
        CalibrationError: Another algorithm was asked for.
    """
    if algorithm not in FOR_WEIGHTS:
        raise CalibrationError(f"weights cannot use '{algorithm.value}'; allowed are minmax and mse")
    rows = (
        weight.reshape(1, -1)
        if spec.axis is None
        else np.moveaxis(weight, spec.axis, 0).reshape(weight.shape[spec.axis], -1)
    )
    amax = np.abs(rows).max(1).astype(np.float64)
    row_spec = replace(spec, symmetric=True, axis=0)
    best, least = amax, np.full(len(rows), np.inf)
    # a grid rather than a search, since the loss has local minima
    grid = (1.0,) if algorithm is Algorithm.MINMAX else np.linspace(1.0, 0.5, 41)
    # how errors cancel changes with every step of the scale, beyond the largest weight too
    for f in grid if moments is None else np.linspace(1.2, 0.5, 141):
        params = from_range(-amax * f, amax * f, row_spec)
        lost = fake_quantize(rows, params, row_spec) - rows
        error = (lost**2).sum(1) if moments is None else ((lost @ moments) * lost).sum(1)
        better = error < least
        best, least = np.where(better, amax * f, best), np.where(better, error, least)
    params = from_range(-best, best, row_spec)
    if spec.safe_pairs:
        # a larger scale makes smaller integers, so that pairs of them fit
        floor = least_scale(torch.from_numpy(weight), spec.axis).numpy()
        params = QParams(np.maximum(params.scale, floor), params.zero_point)
    return params if spec.axis is not None else QParams(params.scale[0], params.zero_point[0])
