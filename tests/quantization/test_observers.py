"""Streaming histograms, and every algorithm held against its own measure."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from yoloquant.errors import CalibrationError, UsageError
from yoloquant.quantization.observers import (
    BINS,
    SAMPLE,
    Histogram,
    _after,
    _divergence,
    _plain_error,
    _rounded_silu,
    _sigmoid,
    _sigmoid_error,
    _silu_error,
    compute_qparams,
    compute_weight_qparams,
)
from yoloquant.quantization.plan import Role
from yoloquant.quantization.qparams import MIN_SCALE, QParams, QuantSpec, fake_quantize, from_range
from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe

AFFINE, SYMMETRIC = QuantSpec(), QuantSpec(symmetric=True)
VALUES = hnp.arrays(
    np.float32, st.integers(1, 60), elements=st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False)
)


def filled(*parts: np.ndarray) -> Histogram:
    hist = Histogram()
    for part in parts:
        hist.update(torch.from_numpy(np.asarray(part, np.float32)))
    return hist


def same(a: Histogram, b: Histogram) -> bool:
    return (a.exponent, a.low, a.high) == (b.exponent, b.low, b.high) and np.array_equal(a.counts, b.counts)


@given(VALUES, st.lists(st.integers(0, 60), max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_batching_and_order_do_not_matter(values: np.ndarray, cuts: list[int], random: object) -> None:
    whole = filled(values)
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    parts = [p for p in np.split(np.array(shuffled, np.float32), sorted(c for c in cuts if c < len(values))) if p.size]
    assert same(whole, filled(*parts))
    assert whole.counts.sum() == len(values)


@given(VALUES, VALUES)
@settings(max_examples=100)
def test_merge_is_exact(a: np.ndarray, b: np.ndarray) -> None:
    assert same(filled(a).merged(filled(b)), filled(a, b))
    assert same(filled(a).merged(Histogram()), filled(a)) and same(Histogram().merged(filled(a)), filled(a))


def test_merging_leaves_both_as_they_were() -> None:
    a, b = filled(np.array([1.0])), filled(np.array([1000.0]))
    before = a.counts.copy(), a.exponent, b.counts.copy(), b.exponent
    a.merged(b)
    assert np.array_equal(a.counts, before[0]) and a.exponent == before[1]
    assert np.array_equal(b.counts, before[2]) and b.exponent == before[3]


def test_growth_keeps_every_value_in_its_bin() -> None:
    small = np.linspace(-0.9, 0.9, 1000, dtype=np.float32)
    hist = filled(small, np.array([500.0]))
    assert hist.exponent == 9 and hist.counts.sum() == 1001 and (hist.low, hist.high) == (float(small[0]), 500.0)
    width = 2.0 ** (hist.exponent + 1) / BINS
    edges = hist.centers - width / 2
    expected, _ = np.histogram(np.append(small, np.float32(500)), np.append(edges, edges[-1] + width))
    np.testing.assert_array_equal(hist.counts, expected)


def test_a_tiny_value_stays_in_its_bin_beside_a_large_one() -> None:
    together, apart = filled(np.array([-1e-9, 1.0])), filled(np.array([-1e-9]), np.array([1.0]))
    assert same(together, apart)
    assert together.counts[BINS // 2 - 1] == 1, "just below zero, not just above"


def test_memory_is_constant_and_large_tensors_are_sampled() -> None:
    x = np.random.default_rng(0).normal(0, 1, (3, SAMPLE)).astype(np.float32)
    x[1, 1234] = 77.0
    hist = filled(x)
    assert hist.counts.shape == (BINS,) and 0 < hist.counts.sum() <= SAMPLE
    assert hist.high == 77.0, "extremes come from every value, sampled or not"
    mean = float(hist.counts @ hist.centers / hist.counts.sum())
    assert abs(mean) < 0.05, "the sample is representative"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity(bad: float) -> None:
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        filled(np.array([0.0, bad, 1.0]))


@pytest.mark.parametrize("algorithm", Algorithm)
def test_nothing_seen(algorithm: Algorithm) -> None:
    with pytest.raises(CalibrationError, match="no values"):
        compute_qparams(Histogram(), AFFINE, algorithm)


@pytest.mark.parametrize("spec", [AFFINE, SYMMETRIC], ids=["affine", "symmetric"])
@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-30, 2.0**20])
def test_constant_activations_are_represented(value: float, algorithm: Algorithm, spec: QuantSpec) -> None:
    params = compute_qparams(filled(np.full(100, value)), spec, algorithm)
    (result,) = fake_quantize(np.array([value], np.float32), params, spec)
    assert abs(result - np.float32(value)) <= max(abs(value) * 1e-6, MIN_SCALE)


def heavy(seed: int = 0, size: int = 40_000) -> np.ndarray:
    """Normal values with rare values far out on both sides, as a convolution's results have."""
    rng = np.random.default_rng(seed)
    x = rng.normal(-1.0, 1.5, size)
    x[:8] = rng.uniform(18, 25, 8)
    x[8:16] = rng.uniform(-40, -30, 8)
    return x.astype(np.float32)


MEASURES = {
    Algorithm.MSE: _plain_error,
    Algorithm.MSE_SILU: _silu_error,
    Algorithm.MSE_SIGMOID: _sigmoid_error,
    Algorithm.ENTROPY: _divergence,
}


@pytest.mark.parametrize("spec", [AFFINE, SYMMETRIC, QuantSpec(bits=4)], ids=["affine", "symmetric", "4bit"])
@pytest.mark.parametrize("algorithm", MEASURES)
def test_beats_minmax_in_its_own_measure(algorithm: Algorithm, spec: QuantSpec) -> None:
    hist = filled(heavy())
    used = hist.counts > 0
    x, weights = hist.centers[used], hist.counts[used].astype(float)

    def loss(params: QParams) -> float:
        return MEASURES[algorithm](x, weights, params, spec)

    best, minmax = loss(compute_qparams(hist, spec, algorithm)), loss(compute_qparams(hist, spec, Algorithm.MINMAX))
    assert best < minmax * 0.99
    # and no other algorithm's choice is much better by this one's measure; with 15 steps the divergence jumps wherever
    # an end of the range passes a bin, so that a search along one end at a time may stay in a neighbouring valley
    near = 1.25 if algorithm is Algorithm.ENTROPY and spec.bits == 4 else 1.02
    for other in MEASURES:
        if other is not algorithm and algorithm is not Algorithm.MSE_SIGMOID:
            assert best <= loss(compute_qparams(hist, spec, other)) * near


@given(VALUES, st.sampled_from(sorted(MEASURES)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_never_worse_than_minmax(values: np.ndarray, algorithm: Algorithm, symmetric: bool) -> None:
    spec = QuantSpec(symmetric=symmetric)
    hist = filled(values)
    used = hist.counts > 0
    x, weights = hist.centers[used], hist.counts[used].astype(float)
    measure = MEASURES[algorithm]
    found = measure(x, weights, compute_qparams(hist, spec, algorithm), spec)
    assert found <= measure(x, weights, compute_qparams(hist, spec, Algorithm.MINMAX), spec) + 1e-12


@pytest.mark.parametrize("algorithm", [Algorithm.PERCENTILE, Algorithm.MSE, Algorithm.ENTROPY])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_planted_outlier_is_clipped(algorithm: Algorithm, symmetric: bool) -> None:
    spec = QuantSpec(bits=4 if algorithm is Algorithm.MSE else 8, symmetric=symmetric)  # at 8 bits MSE rightly keeps it
    x = np.random.default_rng(3).normal(0, 1, 60_000).astype(np.float32)
    x[0] = 100.0
    low, high = compute_qparams(filled(x), spec, algorithm).range(spec)
    assert high < 50.0
    assert low <= np.percentile(x, 5) and high >= np.percentile(x, 95), "the bulk is kept"
    _, everything = compute_qparams(filled(x), spec, Algorithm.MINMAX).range(spec)
    assert everything >= 90.0


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99, 100.0])
def test_percentile_keeps_its_share(percentile: float) -> None:
    x = heavy(5)
    low, high = compute_qparams(filled(x), AFFINE, Algorithm.PERCENTILE, percentile=percentile).range(AFFINE)
    step = float(high - low) / 255
    outside = float(((x < low - step) | (x > high + step)).mean())
    assert outside <= 1 - percentile / 100 + 1e-4
    if percentile == 100.0:
        assert low <= x.min() + step and high >= x.max() - step


@given(st.integers(0, 1 << 30), st.booleans(), st.floats(0.1, 30))
@settings(max_examples=30, deadline=None)
def test_scores_never_clip_the_largest_logit(seed: int, symmetric: bool, top: float) -> None:
    rng = np.random.default_rng(seed)
    x = np.append(rng.normal(-12, 3, 3000), top).astype(np.float32)
    spec = QuantSpec(symmetric=symmetric)
    params = compute_qparams(filled(x), spec, Algorithm.MSE_SIGMOID)
    largest = x.max(keepdims=True)
    assert abs(fake_quantize(largest, params, spec) - largest)[0] <= float(params.scale) * 0.5001


@pytest.mark.filterwarnings("error")
def test_entropy_of_a_range_that_misses_everything() -> None:
    x = np.array([-60.0, -50.0, 90.0, 100.0])
    assert _divergence(x, np.ones(4), from_range(-1.0, 1.0, AFFINE), AFFINE) == math.inf
    low, high = compute_qparams(filled(x), AFFINE, Algorithm.ENTROPY).range(AFFINE)
    assert low < -49 or high > 89, "something that was seen is in the range"


def test_silu_error_decides_on_what_the_silu_lets_through() -> None:
    """Far below zero SiLU is flat: a range that ends before it costs nothing there and gains resolution elsewhere."""
    x = np.concatenate([np.random.default_rng(0).uniform(-60, -20, 2000), np.random.default_rng(1).normal(0, 2, 8000)])
    low_silu, _ = compute_qparams(filled(x), AFFINE, Algorithm.MSE_SILU).range(AFFINE)
    low_plain, _ = compute_qparams(filled(x), AFFINE, Algorithm.MSE).range(AFFINE)
    assert low_silu > -20 > low_plain


def test_inputs_are_never_clipped_whatever_the_recipe_says() -> None:
    recipe = CalibrationRecipe(activation=Algorithm.PERCENTILE)
    assert recipe.algorithm(Role.INPUT) is Algorithm.MINMAX
    assert recipe.algorithm(Role.ADD) is Algorithm.PERCENTILE
    assert recipe.algorithm(Role.SCORE) is Algorithm.MSE_SIGMOID


@pytest.mark.parametrize("algorithm", [a for a in Algorithm if a not in (Algorithm.MINMAX, Algorithm.MSE)])
def test_weights_refuse_other_algorithms(algorithm: Algorithm) -> None:
    with pytest.raises(CalibrationError, match="minmax and mse"):
        compute_weight_qparams(np.ones((2, 2), np.float32), QuantSpec(symmetric=True, axis=0), algorithm)


def test_a_recipe_refuses_what_cannot_be_solved_later() -> None:
    with pytest.raises(UsageError, match="minmax and mse"):
        CalibrationRecipe(weight=Algorithm.ENTROPY)
    for percentile in (50.0, 100.1, math.nan):
        with pytest.raises(UsageError, match=r"percentile=.*above 50 and up to 100"):
            CalibrationRecipe(percentile=percentile)


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_per_channel(axis: int) -> None:
    rng = np.random.default_rng(2)
    weight = (rng.standard_t(3, (4, 5, 3, 3)) * 0.1).astype(np.float32)
    spec = QuantSpec(bits=4, symmetric=True, narrow_range=True, axis=axis)
    plain, best = (compute_weight_qparams(weight, spec, a) for a in (Algorithm.MINMAX, Algorithm.MSE))
    others = tuple(i for i in range(4) if i != axis)
    np.testing.assert_array_equal(plain.scale, (np.abs(weight).max(axis=others).astype(np.float64) / 7).astype("f4"))
    assert best.scale.shape == (weight.shape[axis],) and not best.zero_point.any()

    def error(params: QParams) -> np.ndarray:
        return ((fake_quantize(weight, params, spec) - weight) ** 2).sum(axis=others)

    assert (error(best) <= error(plain)).all() and error(best).sum() < error(plain).sum() * 0.95


def test_weight_per_tensor_and_dead_channels() -> None:
    weight = np.zeros((3, 2, 1, 1), np.float32)
    weight[0] = 0.5
    whole = compute_weight_qparams(weight, QuantSpec(symmetric=True, narrow_range=True), Algorithm.MSE)
    assert whole.scale.shape == () and whole.scale == from_range(-0.5, 0.5, QuantSpec(symmetric=True)).scale
    each = compute_weight_qparams(weight, QuantSpec(symmetric=True, narrow_range=True, axis=0), Algorithm.MSE)
    assert each.scale[0] == whole.scale and (each.scale[1:] > 0).all()


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
@pytest.mark.parametrize("function", [_sigmoid, _rounded_silu])
def test_a_function_of_the_grid_is_that_of_every_value(function: Callable[[np.ndarray], np.ndarray], bits: int) -> None:
    x = filled(heavy()).centers
    for spec in (QuantSpec(bits=bits), QuantSpec(bits=bits, symmetric=True, narrow_range=True)):
        params = from_range(-7.3, 11.1, spec)
        np.testing.assert_array_equal(_after(function, x, params, spec), function(fake_quantize(x, params, spec)))
