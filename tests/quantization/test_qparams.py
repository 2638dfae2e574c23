"""The arithmetic of quantization, held against its definition, torch and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from yoloquant.errors import PlanError
from yoloquant.quantization.qparams import MIN_SCALE, UNIT_QPARAMS, QParams, QuantSpec, fake_quantize, from_range

REAL = st.floats(-1e30, 1e30, allow_subnormal=False)
SPECS = st.builds(
    QuantSpec, bits=st.sampled_from([2, 3, 4, 8, 16]), symmetric=st.booleans(), narrow_range=st.booleans()
)
FLOAT32 = st.floats(width=32, min_value=2.0**-126, max_value=2.0**127)


@given(REAL, REAL, SPECS)
def test_zero_is_exact_and_scale_is_float32(a: float, b: float, spec: QuantSpec) -> None:
    params = from_range(min(a, b), max(a, b), spec)
    assert params.scale.dtype == np.float32 and params.zero_point.dtype == np.int32
    assert params.scale >= np.float32(MIN_SCALE) * (1 - 1e-6)
    assert spec.qmin <= params.zero_point <= spec.qmax
    assert fake_quantize(np.zeros(1, np.float32), params, spec)[0] == 0.0
    if spec.symmetric:
        assert params.zero_point == 0


@given(REAL, REAL, SPECS)
def test_one_range_is_what_arrays_of_ranges_give(a: float, b: float, spec: QuantSpec) -> None:
    one, several = from_range(a, b, spec), from_range(np.array([a, b]), np.array([b, a]), spec)
    assert one.scale.shape == () and several.scale.shape == (2,)
    assert one.scale.tobytes() == several.scale[:1].tobytes()
    assert one.zero_point.tobytes() == several.zero_point[:1].tobytes()


@given(REAL, REAL, SPECS, st.integers(0, 2**32 - 1))
def test_range_is_covered_and_error_is_half_a_step(a: float, b: float, spec: QuantSpec, seed: int) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    params = from_range(low, high, spec)
    scale = float(params.scale)
    x = np.concatenate([np.random.default_rng(seed).uniform(low, high, 50), [low, high]])
    error = np.abs(fake_quantize(x, params, spec) - x)
    # float32 rounds the scale itself, which the largest integer multiplies
    assert error.max() <= scale / 2 * (1 + 1e-6) + max(-low, high) * 2e-7
    # rounding the zero_point may move the range by half a step, never more
    covered = [float(v) for v in params.range(spec)]
    assert covered[0] <= low + scale * 0.51 and covered[1] >= high - scale * 0.51


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [None, 0])
def test_fake_quantize_keeps_the_dtype(dtype: type, axis: int | None) -> None:
    spec = QuantSpec(symmetric=axis is not None, axis=axis)
    bounds = (-1.0, 2.0) if axis is None else (np.array([-1.0, -2.0]), np.array([1.0, 2.0]))
    assert fake_quantize(np.ones((2, 3), dtype), from_range(*bounds, spec), spec).dtype == dtype


@given(st.lists(st.tuples(REAL, REAL), min_size=1, max_size=6), SPECS)
def test_channels_are_independent(bounds: list[tuple[float, float]], spec: QuantSpec) -> None:
    low, high = np.array([min(p) for p in bounds]), np.array([max(p) for p in bounds])
    together = from_range(low, high, spec)
    for index, (a, b) in enumerate(zip(low, high, strict=True)):
        alone = from_range(a, b, spec)
        assert together.scale[index] == alone.scale and together.zero_point[index] == alone.zero_point


@pytest.mark.parametrize(
    ("bits", "narrow", "limits"),
    [(8, False, (-128, 127)), (8, True, (-127, 127)), (4, False, (-8, 7)), (16, False, (-32768, 32767)),
     (2, True, (-1, 1))],
)  # fmt: skip
def test_limits(bits: int, narrow: bool, limits: tuple[int, int]) -> None:
    spec = QuantSpec(bits, narrow_range=narrow)
    assert (spec.qmin, spec.qmax) == limits


@pytest.mark.parametrize("bits", [-1, 0, 1, 17, 32])
def test_unsupported_bits(bits: int) -> None:
    with pytest.raises(PlanError, match=r"2 to 16"):
        QuantSpec(bits)


@pytest.mark.parametrize(
    ("scale", "zero"),
    [(0.0, 0), (-1.0, 0), (np.nan, 0), (np.inf, 0), ([1.0, 0.0], [0, 0]), ([1.0, 2.0], 0), ([[1.0]], [[0]])],
)
def test_bad_parameters(scale: object, zero: object) -> None:
    with pytest.raises(PlanError):
        QParams(np.asarray(scale, np.float32), np.asarray(zero, np.int32))


def test_unit_range_is_what_litert_prescribes() -> None:
    low, high = UNIT_QPARAMS.range(QuantSpec())
    assert UNIT_QPARAMS.scale == np.float32(2.0**-8) and UNIT_QPARAMS.zero_point == -128
    assert low == 0.0 and high == np.float32(255 / 256)


@given(st.lists(FLOAT32, min_size=1, max_size=5), st.booleans())
def test_json_round_trip_is_exact(values: list[float], single: bool) -> None:
    import json

    scale = np.float32(values[0]) if single else np.array(values, np.float32)
    params = QParams(scale, np.arange(len(values), dtype=np.int32)[0] if single else np.arange(len(values)))
    back = QParams.from_dict(json.loads(json.dumps(params.to_dict())))
    assert back == params and back.scale.tobytes() == params.scale.tobytes()


def _random(seed: int, shape: tuple[int, ...] = (4, 3, 5, 5)) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("narrow", [False, True])
@given(seed=st.integers(0, 1 << 30))
@settings(max_examples=15)
def test_agrees_with_torch(bits: int, symmetric: bool, narrow: bool, seed: int) -> None:
    x = _random(seed)
    spec = QuantSpec(bits, symmetric, narrow)
    params = from_range(x.min() * 0.7, x.max() * 0.7, spec)
    theirs = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), torch.tensor(params.scale), torch.tensor(params.zero_point), spec.qmin, spec.qmax
    ).numpy()
    _assert_same_grid(fake_quantize(x, params, spec), theirs, x, params.scale)
    channel = QuantSpec(bits, True, narrow, axis=0)
    amax = np.abs(x).max(axis=(1, 2, 3))
    many = from_range(-amax, amax, channel)
    theirs = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(x), torch.from_numpy(many.scale), torch.from_numpy(many.zero_point), 0, spec.qmin, spec.qmax
    ).numpy()
    _assert_same_grid(fake_quantize(x, many, channel), theirs, x, many.scale.reshape(-1, 1, 1, 1))


def _assert_same_grid(ours: np.ndarray, theirs: np.ndarray, x: np.ndarray, scale: np.ndarray) -> None:
    """Equal, except where torch's multiplication by 1/scale falls on the other side of a half."""
    ratio = x / scale
    tie = np.abs(np.abs(ratio - np.trunc(ratio)) - 0.5) < 1e-4
    np.testing.assert_array_equal(ours[~tie], theirs[~tie])
    assert (np.abs(ours - theirs) <= scale * 1.0001).all()


@pytest.mark.parametrize("unsigned", [False, True])
def test_agrees_with_onnxruntime(unsigned: bool) -> None:
    x = _random(7)
    spec = QuantSpec()
    params = from_range(x.min() * 0.8, x.max() * 0.6, spec)
    dtype = np.uint8 if unsigned else np.int8
    zero = (params.zero_point + (128 if unsigned else 0)).astype(dtype)
    ours = fake_quantize(x, params, spec)
    np.testing.assert_array_equal(ours, _through_onnxruntime(x, params.scale, zero, None))
    channel = QuantSpec(symmetric=True, axis=0)
    amax = np.abs(x).max(axis=(1, 2, 3))
    many = from_range(-amax, amax, channel)
    theirs = _through_onnxruntime(x, many.scale, many.zero_point.astype(np.int8), 0)
    np.testing.assert_array_equal(fake_quantize(x, many, channel), theirs)


def _through_onnxruntime(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int | None) -> np.ndarray:
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    value = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape) for n in "xy"}
    constants = [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in (("s", scale), ("z", zero))]
    graph = helper.make_graph(nodes, "qdq", [value["x"]], [value["y"]], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])
