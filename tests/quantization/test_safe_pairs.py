"""Pairs of weights that kernels add in 16 bits: no input may make them overflow."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pair_sums import unsafe_channels  # noqa: E402

from yoloquant.quantization.observers import compute_weight_qparams  # noqa: E402
from yoloquant.quantization.qparams import QuantSpec  # noqa: E402
from yoloquant.quantization.range_options import Algorithm  # noqa: E402
from yoloquant.quantization.safe_pairs import least_scale, pairs  # noqa: E402

PLAIN = QuantSpec(symmetric=True, narrow_range=True, axis=0)
SAFE = QuantSpec(symmetric=True, narrow_range=True, axis=0, safe_pairs=True)
HALF = QuantSpec(symmetric=True, narrow_range=True, axis=0, half_range=True)
HIGHEST, LOWEST = 2**15 - 1, -(2**15)


def integers(weight: np.ndarray, spec: QuantSpec, algorithm: Algorithm = Algorithm.MSE) -> np.ndarray:
    """The int8 weight that exports store."""
    params = compute_weight_qparams(weight, spec, algorithm)
    shape = [-1 if d == spec.axis else 1 for d in range(weight.ndim)]
    return np.clip(np.round(weight / params.scale.reshape(shape)), spec.qmin, spec.qmax).astype(np.int32)


def weights(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Weights with heavy tails, some channels of one sign, as trained ones have them."""
    rng = np.random.default_rng(seed)
    found = rng.standard_t(3, shape).astype(np.float32)
    found[::3] = np.abs(found[::3])
    return found * rng.uniform(1e-4, 10, (shape[0], *[1] * (len(shape) - 1))).astype(np.float32)


@pytest.mark.parametrize("shape", [(16, 3, 3, 3), (8, 16, 1, 1), (8, 12, 3, 3), (6, 5, 3, 3), (4, 2, 5, 5), (10, 32)])
@pytest.mark.parametrize("algorithm", [Algorithm.MSE, Algorithm.MINMAX])
def test_no_pair_can_overflow_whatever_the_input(shape: tuple[int, ...], algorithm: Algorithm) -> None:
    for seed in range(20):
        weight = weights(seed, shape)
        assert unsafe_channels(torch.from_numpy(integers(weight, PLAIN, algorithm)), 0) > 0
        assert unsafe_channels(torch.from_numpy(integers(weight, SAFE, algorithm)), 0) == 0


def test_safety_is_exact_arithmetic() -> None:
    """What ``unsafe_channels`` says is what an add of two products in a signed 16-bit register does."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        weight = rng.integers(-127, 128, (1, 2, 1, 1))
        w0, w1 = int(weight[0, 0, 0, 0]), int(weight[0, 1, 0, 0])
        worst = [a * w0 + b * w1 for a in (0, 255) for b in (0, 255)]
        overflows = max(worst) > HIGHEST or min(worst) < LOWEST
        assert unsafe_channels(torch.from_numpy(weight), 0) == int(overflows)


def test_half_range_is_safe_in_every_order() -> None:
    weight = weights(1, (16, 3, 3, 3))
    found = integers(weight, HALF, Algorithm.MINMAX).reshape(16, -1)
    assert np.abs(found).max() == 64
    for first, second in combinations(range(27), 2):
        sums = 255 * (found[:, first] + found[:, second])
        assert sums.max() <= HIGHEST
        assert sums.min() >= LOWEST


def test_scales_grow_no_more_than_they_must() -> None:
    weight = weights(2, (32, 16, 3, 3))
    plain, safe = (
        compute_weight_qparams(weight, PLAIN, Algorithm.MSE),
        compute_weight_qparams(weight, SAFE, Algorithm.MSE),
    )
    floor = least_scale(torch.from_numpy(weight), 0).numpy()
    np.testing.assert_array_equal(safe.scale, np.maximum(plain.scale, floor))
    assert (safe.scale <= 2 * plain.scale.max()).all()
    assert np.median(safe.scale / plain.scale) < 1.6  # half range would be 2


def test_transposed_convolutions_pair_their_input_channels() -> None:
    weight = torch.zeros(4, 2, 2, 2)  # in, out, taps
    weight[0, 1, 0, 0] = weight[1, 1, 0, 0] = 1.0
    weight[2, 0, 0, 0], weight[3, 0, 0, 1] = 1.0, 1.0  # never at the same tap
    np.testing.assert_allclose(least_scale(weight, 1).numpy(), [1 / 127, 2 / 127])
    assert float(least_scale(weight, None)) == pytest.approx(2 / 127)


def test_orders_of_kernels() -> None:
    (even,) = pairs(4, 2)
    assert even.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    by_tap, lined_up = pairs(3, 2)
    assert by_tap.tolist() == [[0, 1], [3, 4]]
    assert lined_up.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert pairs(1, 9) == ()
