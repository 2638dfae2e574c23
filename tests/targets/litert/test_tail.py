"""The torch decode tail against the numpy decode."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from yoloquant.runtime.core.decode import decode_levels  # noqa: E402
from yoloquant.runtime.tasks import spec_of  # noqa: E402
from yoloquant.targets.litert.tail import DecodeTail  # noqa: E402
from yoloquant.types import ModelInfo, Task  # noqa: E402

IMGSZ = (64, 96)
STRIDES = (8, 16, 32)


def levels(info: ModelInfo, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random raw head outputs, NHWC."""
    rng = np.random.default_rng(seed)
    maps = [(IMGSZ[0] // s, IMGSZ[1] // s) for s in STRIDES]
    boxes = [rng.normal(2, 2, (1, h, w, 4 * info.reg_max)).astype(np.float32) for h, w in maps]
    scores = [rng.normal(-1, 3, (1, h, w, len(info.names))).astype(np.float32) for h, w in maps]
    return boxes, scores


@pytest.mark.parametrize("end2end", [False, True])
@pytest.mark.parametrize("reg_max", [1, 8, 16])
@pytest.mark.parametrize("classes", [1, 7])
def test_tail_equals_numpy_decode(reg_max: int, end2end: bool, classes: int) -> None:
    names = tuple(str(i) for i in range(classes))
    info = ModelInfo(Task.DETECT, names, IMGSZ, strides=STRIDES, reg_max=reg_max, end2end=end2end, max_det=25)
    boxes, scores = levels(info, seed=classes)
    expected = decode_levels(boxes, scores, info)
    nchw = [torch.from_numpy(x).permute(0, 3, 1, 2) for kind in (boxes, scores) for x in kind]
    with torch.no_grad():
        decoded = DecodeTail(info, ("box", "score"), normalize=False)(nchw).numpy()
    np.testing.assert_allclose(decoded, expected, rtol=1e-4, atol=1e-3)


def test_normalized_boxes_are_fractions_of_width_and_height() -> None:
    info = ModelInfo(Task.DETECT, ("a", "b"), IMGSZ, strides=STRIDES)
    raw = [torch.from_numpy(x).permute(0, 3, 1, 2) for kind in levels(info, seed=3) for x in kind]
    with torch.no_grad():
        pixels, fractions = (DecodeTail(info, ("box", "score"), normalize=n)(raw).numpy() for n in (False, True))
    size = np.array([IMGSZ[1], IMGSZ[0], IMGSZ[1], IMGSZ[0]])[None, :, None]
    np.testing.assert_allclose(fractions[:, :4] * size, pixels[:, :4], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(fractions[:, 4:], pixels[:, 4:])


FURTHER = {Task.SEGMENT: 5, Task.OBB: 1, Task.POSE: 6}


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("end2end", [False, True])
@pytest.mark.parametrize("task", FURTHER)
def test_tails_of_other_tasks_equal_their_numpy_decode(task: Task, end2end: bool, direct: bool) -> None:
    shape = (2, 3) if task is Task.POSE else None
    info = ModelInfo(
        task, ("a", "b"), IMGSZ, strides=STRIDES, end2end=end2end, max_det=25, kpt_shape=shape, direct=direct
    )
    spec = spec_of(task)
    rng = np.random.default_rng(5)
    maps = [(1, IMGSZ[0] // s, IMGSZ[1] // s, FURTHER[task]) for s in STRIDES]
    boxes, scores = levels(info, seed=4)
    raw = [*boxes, *scores, *(rng.normal(0, 1, m).astype(np.float32) for m in maps)]
    raw += [rng.normal(0, 1, (1, 8, 12, 5)).astype(np.float32)] * len(spec.single)
    wanted = spec.decode_raw(tuple(raw), info)
    with torch.no_grad():
        got = DecodeTail(info, spec.branches, normalize=False)([torch.from_numpy(x).permute(0, 3, 1, 2) for x in raw])
    for value, expected in zip(got if isinstance(got, tuple) else (got,), wanted, strict=True):
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("end2end", [False, True])
def test_visibilities_may_stand_apart(end2end: bool, direct: bool) -> None:
    """Files that compute them in convolutions of their own decode to the same, on the device and in the file."""
    info = ModelInfo(
        Task.POSE, ("a", "b"), IMGSZ, strides=STRIDES, end2end=end2end, max_det=25, kpt_shape=(2, 3), direct=direct
    )
    spec = spec_of(Task.POSE)
    rng = np.random.default_rng(7)
    boxes, scores = levels(info, seed=4)
    keypoints = [rng.normal(0, 1, (1, IMGSZ[0] // s, IMGSZ[1] // s, 6)).astype(np.float32) for s in STRIDES]
    apart = [k[..., [0, 1, 3, 4]] for k in keypoints] + [k[..., [2, 5]] for k in keypoints]
    wanted = spec.decode_raw((*boxes, *scores, *keypoints), info)
    np.testing.assert_array_equal(spec.decode_raw((*boxes, *scores, *apart), info)[0], wanted[0])
    raw = [torch.from_numpy(x).permute(0, 3, 1, 2) for x in (*boxes, *scores, *apart)]
    with torch.no_grad():
        got = DecodeTail(info, spec.branches, normalize=False)(raw)
    np.testing.assert_allclose(got.numpy(), wanted[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("task", [Task.SEGMENT, Task.OBB, Task.POSE])
def test_fractions_of_the_image_become_pixels_again(task: Task) -> None:
    info = ModelInfo(task, ("a", "b"), IMGSZ, strides=STRIDES, kpt_shape=(2, 3) if task is Task.POSE else None)
    spec = spec_of(task)
    rng = np.random.default_rng(6)
    maps = [(1, FURTHER[task], IMGSZ[0] // s, IMGSZ[1] // s) for s in STRIDES]
    raw = [torch.from_numpy(x).permute(0, 3, 1, 2) for kind in levels(info, seed=3) for x in kind]
    raw += [torch.from_numpy(rng.normal(0, 1, m).astype(np.float32)) for m in maps]
    with torch.no_grad():
        pixels, fractions = (DecodeTail(info, spec.branches, normalize=n)(raw).numpy() for n in (False, True))
    np.testing.assert_allclose(spec.to_pixels((fractions,), info)[0], pixels, rtol=1e-4, atol=1e-3)


def test_no_branch_reaches_a_concatenation_as_it_came() -> None:
    """A product with 1 would be folded, and levels with scales of their own would meet as integers."""
    for task, direct in ((Task.SEGMENT, False), (Task.OBB, True)):
        info = ModelInfo(task, ("a", "b"), IMGSZ, strides=STRIDES, direct=direct)
        maps = [(1, FURTHER[task], IMGSZ[0] // s, IMGSZ[1] // s) for s in STRIDES]
        raw = [torch.from_numpy(x).permute(0, 3, 1, 2) for kind in levels(info, seed=3) for x in kind]
        further = [torch.ones(m) for m in maps]
        got = DecodeTail(info, spec_of(task).branches, normalize=False)([*raw, *further])[:, 6:]
        assert (got > 1).all() and np.float32(np.nextafter(np.float32(1), np.float32(2))) == got.max()
