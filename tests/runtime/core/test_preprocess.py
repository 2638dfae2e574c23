"""Fast preprocessing equals letterboxing and quantizing in plain arithmetic, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from core_fakes import FakeBackend
from hypothesis import given, settings
from hypothesis import strategies as st

from yoloquant.runtime.core.decode import quantize
from yoloquant.runtime.core.letterbox import letterbox
from yoloquant.runtime.core.preprocess import Preprocessor, pixel_table
from yoloquant.runtime.errors import DataError, TargetError

QUANTIZATIONS = {
    "float32": None,
    "float16": None,
    "int8": (1 / 255, -128),
    "uint8": (1 / 255, 0),
}


def expected(image: np.ndarray, backend: FakeBackend) -> np.ndarray:
    """The tensor by plain arithmetic."""
    tensor, _ = letterbox(image, backend.info.imgsz)
    if backend.input_quantization is not None:
        tensor = quantize(tensor, *backend.input_quantization, dtype=backend.input_dtype)
    tensor = tensor.transpose(0, 2, 3, 1) if backend.channels_last else tensor
    return tensor.astype(backend.input_dtype)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", list(QUANTIZATIONS))
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    imgsz=st.sampled_from([(64, 64), (96, 64), (64, 160)]),
    seed=st.integers(0, 99),
)
def test_equals_letterbox_bit_by_bit(
    dtype: str, channels_last: bool, size: tuple[int, int], imgsz: tuple[int, int], seed: int
) -> None:
    backend = FakeBackend(imgsz, dtype, quantization=QUANTIZATIONS[dtype], channels_last=channels_last)
    prepare = Preprocessor(backend, depth=2)
    for shift in range(2):  # the second image meets the canvas of the first
        image = np.random.default_rng(seed + shift).integers(0, 256, (*size, 3), dtype=np.uint8)
        tensor, where = prepare(image)
        assert tensor.flags.c_contiguous and tensor.shape == backend.input_shape
        np.testing.assert_array_equal(tensor, expected(image, backend))
        assert where == letterbox(image, imgsz)[1]


@given(scale=st.floats(1e-4, 0.1), zero_point=st.integers(-128, 127), dtype=st.sampled_from(["int8", "uint8"]))
def test_table_rounds_half_to_even_and_clips(scale: float, zero_point: int, dtype: str) -> None:
    zero_point = zero_point + 128 if dtype == "uint8" else zero_point
    limits = np.iinfo(dtype)
    steps = np.float32(np.arange(256) / np.float32(255)) / np.float32(scale)
    wanted = np.clip(np.rint(steps) + zero_point, limits.min, limits.max)
    np.testing.assert_array_equal(pixel_table(np.dtype(dtype), (scale, zero_point)).view(dtype), wanted)


def test_halves_go_to_the_even_neighbour() -> None:
    table = pixel_table(np.dtype("uint8"), (2 / 255, 0))
    exact = np.float32(np.arange(256) / np.float32(255)) / np.float32(2 / 255)
    halves = np.flatnonzero(exact % 1 == 0.5)
    assert len(halves) > 20 and not np.any(table[halves] % 2)


def test_every_size_of_image_gets_its_own_canvas() -> None:
    backend = FakeBackend()
    prepare = Preprocessor(backend)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20 + i, 50, 3), dtype=np.uint8) for i in range(40)]
    for image in [*images, *images]:
        np.testing.assert_array_equal(prepare(image)[0], expected(image, backend))


def test_tensors_are_used_in_turn() -> None:
    prepare = Preprocessor(FakeBackend(), depth=3)
    image = np.zeros((32, 32, 3), np.uint8)
    tensors = [prepare(image)[0] for _ in range(6)]
    assert len({id(t) for t in tensors}) == 3 and tensors[0] is tensors[3]


def test_a_given_tensor_is_filled_and_the_others_stay() -> None:
    backend = FakeBackend()
    prepare, rng = Preprocessor(backend, depth=1), np.random.default_rng(2)
    first, second = rng.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    own, given = prepare(first)[0], backend.new_input()
    assert prepare(second, given)[0] is given
    np.testing.assert_array_equal(given, expected(second, backend))
    np.testing.assert_array_equal(own, expected(first, backend))


def test_views_and_slices_are_images_too() -> None:
    backend = FakeBackend()
    image = np.random.default_rng(1).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    for view in (image[::2, ::2], image[:, ::-1], image[5:70, 3:60], image[..., ::-1]):
        np.testing.assert_array_equal(Preprocessor(backend)(view)[0], expected(view, backend))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="BGR uint8"):
        Preprocessor(FakeBackend())(image)


def test_a_model_of_another_size_is_refused() -> None:
    backend = FakeBackend()
    backend.input_shape = (1, 3, 32, 64)
    with pytest.raises(TargetError, match="input of shape"):
        Preprocessor(backend)
