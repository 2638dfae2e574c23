"""Numpy head decoding against Ultralytics' own Detect head."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoloquant.errors import ArtifactError
from yoloquant.runtime.core.decode import anchor_points, decode_levels, quantize
from yoloquant.types import ModelInfo, Task

IMGSZ = (64, 96)


def dequantize(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Real values of quantized ones, as every runtime computes them."""
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def make_head(classes: int, reg_max: int, end2end: bool):
    """A Detect head in export mode with random weights, and its description."""
    torch = pytest.importorskip("torch")
    from ultralytics.nn.modules import Detect

    torch.manual_seed(classes * 100 + reg_max)

    class Head(Detect):
        legacy = False  # building any model sets Detect.legacy for the whole process

    head = Head(nc=classes, reg_max=reg_max, end2end=end2end, ch=(8, 16, 16)).eval()
    head.stride = torch.tensor([8.0, 16.0, 32.0])
    head.end2end = end2end
    head.export, head.max_det = True, 20
    for parameter in head.parameters():
        parameter.data.normal_(0, 0.2)
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # else scores hardly depend on the input: no definite order
            module.weight.data.fill_(1.5)
            module.bias.data.zero_()
    if reg_max > 1:
        head.dfl.conv.weight.data[:] = torch.arange(reg_max, dtype=torch.float).view(1, reg_max, 1, 1)
    names = tuple(f"class{i}" for i in range(classes))
    info = ModelInfo(Task.DETECT, names, IMGSZ, strides=(8, 16, 32), reg_max=reg_max, end2end=end2end, max_det=20)
    return head, info


def head_outputs(head, info: ModelInfo, seed: int):
    """What the head returns, and its raw levels as NHWC arrays."""
    import torch

    torch.manual_seed(seed)
    feats = [torch.randn(1, c, IMGSZ[0] // s, IMGSZ[1] // s) for c, s in zip((8, 16, 16), info.strides, strict=True)]
    branches = head.one2one if info.end2end else head.one2many
    with torch.no_grad():
        boxes = [branches["box_head"][i](x) for i, x in enumerate(feats)]
        scores = [branches["cls_head"][i](x) for i, x in enumerate(feats)]
        expected = head([f.clone() for f in feats]).numpy()
    return expected, *([x.permute(0, 2, 3, 1).contiguous().numpy() for x in levels] for levels in (boxes, scores))


@pytest.mark.parametrize("end2end", [False, True])
@pytest.mark.parametrize(("classes", "reg_max"), [(1, 16), (5, 16), (3, 1), (80, 1)])
def test_decode_equals_the_torch_head(classes: int, reg_max: int, end2end: bool) -> None:
    head, info = make_head(classes, reg_max, end2end)
    for seed in range(3):
        expected, boxes, scores = head_outputs(head, info, seed)
        decoded = decode_levels(boxes, scores, info)
        assert decoded.dtype == np.float32
        if end2end:  # rows of equal score may come in either order
            distance = np.abs(expected[0][:, None] - decoded[0][None]).sum(2)
            nearest = distance.argmin(1)
            assert len(set(nearest.tolist())) == len(nearest)
            decoded = decoded[:, nearest]
        np.testing.assert_allclose(decoded, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("end2end", [False, True])
@pytest.mark.parametrize("reg_max", [1, 16])
@given(seed=st.integers(0, 2**32 - 1), conf=st.sampled_from([0.001, 0.25, 0.5, 0.999, 1.0]), bias=st.floats(-8, 2))
@settings(deadline=None, max_examples=30)
def test_decoding_only_what_may_pass_loses_nothing(
    reg_max: int, end2end: bool, seed: int, conf: float, bias: float
) -> None:
    info = ModelInfo(Task.DETECT, ("a", "b", "c"), IMGSZ, reg_max=reg_max, end2end=end2end, max_det=20)
    rng = np.random.default_rng(seed)
    maps = [(1, IMGSZ[0] // s, IMGSZ[1] // s) for s in info.strides]
    boxes = [rng.normal(0, 2, (*m, 4 * reg_max)).astype(np.float32) for m in maps]
    scores = [np.round(rng.normal(bias, 3, (*m, 3)) * 4).astype(np.float32) / 4 for m in maps]  # ties, as int8 has
    every, few = decode_levels(boxes, scores, info), decode_levels(boxes, scores, info, conf)
    if end2end:
        np.testing.assert_array_equal(every[every[..., 4] > conf], few[few[..., 4] > conf])
    else:
        columns = [t[0][:, t[0, 4:].max(axis=0, initial=0) > conf] for t in (every, few)]
        np.testing.assert_array_equal(*columns)
    assert few.size <= every.size


def test_nan_is_never_left_out() -> None:
    info = ModelInfo(Task.DETECT, ("a",), IMGSZ, reg_max=1)
    maps = [(1, IMGSZ[0] // s, IMGSZ[1] // s) for s in info.strides]
    boxes, scores = ([np.full((*m, c), -9, np.float32) for m in maps] for c in (4, 1))
    scores[1][0, 1, 1] = np.nan
    assert np.isnan(decode_levels(boxes, scores, info, 0.5)[0, 4]).tolist() == [True]


def test_anchor_points_equal_those_of_ultralytics() -> None:
    torch = pytest.importorskip("torch")
    from ultralytics.utils.tal import make_anchors

    strides = (8, 16, 32)
    feats = [torch.zeros(1, 1, IMGSZ[0] // s, IMGSZ[1] // s) for s in strides]
    points, steps = make_anchors(feats, torch.tensor(strides), 0.5)
    ours, our_steps = anchor_points(IMGSZ, strides)
    np.testing.assert_array_equal(ours, points.numpy())
    np.testing.assert_array_equal(our_steps, steps.numpy()[:, 0])


def test_extreme_logits_decode_without_warnings_or_nan() -> None:
    info = ModelInfo(Task.DETECT, ("a",), (32, 32), strides=(32,), reg_max=16)
    boxes = np.full((1, 1, 1, 64), 1e4, np.float32)
    for logit, score in ((-1e4, 0.0), (1e4, 1.0)):
        decoded = decode_levels([boxes], [np.full((1, 1, 1, 1), logit, np.float32)], info)
        assert np.isfinite(decoded).all()
        assert decoded[0, 4, 0] == score


@pytest.mark.parametrize("broken", ["missing level", "wrong map", "wrong channels"])
def test_wrong_shapes_are_refused(broken: str) -> None:
    info = ModelInfo(Task.DETECT, ("a", "b"), (64, 64), strides=(16, 32), reg_max=1)
    boxes = [np.zeros((1, 4, 4, 4), np.float32), np.zeros((1, 2, 2, 4), np.float32)]
    scores = [np.zeros((1, 4, 4, 2), np.float32), np.zeros((1, 2, 2, 2), np.float32)]
    if broken == "missing level":
        boxes = boxes[:1]
    elif broken == "wrong map":
        scores = scores[::-1]
    else:
        boxes[0] = np.zeros((1, 4, 4, 64), np.float32)
    with pytest.raises(ArtifactError, match="export the artifact again"):
        decode_levels(boxes, scores, info)


@pytest.mark.parametrize(("dtype", "zero_point"), [(np.int8, -128), (np.uint8, 0)])
def test_image_bytes_survive_quantization_exactly(dtype: type, zero_point: int) -> None:
    pixels = np.arange(256)
    image = (pixels.astype(np.float32) / 255).reshape(1, 1, 16, 16)
    quantized = quantize(image, float(np.float32(1 / 255)), zero_point, dtype)
    np.testing.assert_array_equal(quantized.ravel().astype(int), pixels + zero_point)


finite = st.floats(-1e4, 1e4, width=32, allow_nan=False)


@given(st.lists(finite, min_size=1, max_size=64), st.floats(2**-10, 8, width=32), st.integers(-128, 127))
@settings(deadline=None)
def test_quantize_is_nearest_and_clamped(values: list[float], scale: float, zero_point: int) -> None:
    x = np.array(values, np.float32)
    q = quantize(x, scale, zero_point)
    assert q.dtype == np.int8
    low, high = dequantize(np.array([-128, 127], np.int8), scale, zero_point)
    error = np.abs(dequantize(q, scale, zero_point) - np.clip(x, low, high))
    assert (error <= scale / 2 * (1 + 1e-3) + 1e-6).all()


@given(st.integers(-128, 127), st.floats(2**-10, 8, width=32), st.integers(-128, 127))
@settings(deadline=None)
def test_grid_values_survive(q: int, scale: float, zero_point: int) -> None:
    value = dequantize(np.array([q], np.int8), scale, zero_point)
    assert quantize(value, scale, zero_point)[0] == q
