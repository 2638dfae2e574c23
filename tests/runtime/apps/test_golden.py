from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoloquant.runtime.apps.golden import (
    Golden,
    GoldenImage,
    Tolerances,
    compare_detections,
    from_rows,
    output_errors,
    pooled,
    read_outputs,
    rounded,
    rows,
    write_outputs,
)
from yoloquant.runtime.core.detections import Detections
from yoloquant.runtime.core.model_info import HeadLayout, ModelInfo, Task
from yoloquant.runtime.errors import BundleError
from yoloquant.runtime.tasks import spec_of

LIMITS = Tolerances(boxes=0.1, scores=0.1, score=0.1, iou=0.7, agreement=0.9)
DETECT, END2END = spec_of(Task.DETECT), HeadLayout.END2END


def parts(array: np.ndarray, layout: HeadLayout = HeadLayout.DECODED) -> dict[str, np.ndarray]:
    classes = tuple(map(str, range(array.shape[1] - 4)))
    return DETECT.output_parts((array,), layout, ModelInfo(Task.DETECT, classes, (64, 64)))


def found(*table: tuple[float, ...]) -> Detections:
    return from_rows(table)


def box(x: float, score: float = 0.9, label: int = 0) -> tuple[float, ...]:
    return (x, 10.0, x + 20.0, 30.0, score, float(label))


def test_golden_inputs_survive_the_manifest() -> None:
    golden = Golden((GoldenImage("golden/a.png", "golden/a.npz", "ab", (box(1), box(50))),), LIMITS, {"backend": "x"})
    assert Golden.from_dict(golden.to_dict()) == golden


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_detections_agree_with_themselves_in_any_order(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 300, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 60, (count, 2))], axis=1).astype(np.float32)
    first = Detections(boxes, rng.uniform(0.1, 1, count).astype(np.float32), rng.integers(0, 3, count))
    order = rng.permutation(count)
    second = Detections(boxes[order], first.confidence[order], first.class_id[order])
    agreement = compare_detections(first, second, LIMITS, DETECT)
    assert agreement.same == agreement.total == 2 * int((first.confidence >= LIMITS.conf).sum())
    assert not agreement.missing and not agreement.unexpected
    back = from_rows(rows(first))
    assert np.abs(back.xyxy - first.xyxy).max() <= 0.006 and (back.class_id == first.class_id).all()


@pytest.mark.parametrize(
    ("first", "second", "same", "total"),
    [
        (found(box(10)), found(box(12)), 2, 2),  # IoU 0.82
        (found(box(10)), found(box(16)), 0, 2),  # IoU 0.54
        (found(box(10)), found(box(10, label=1)), 0, 2),
        (found(box(10)), found(box(10, 0.75)), 0, 2),
        (found(box(10, 0.28)), found(box(10, 0.22)), 1, 1),  # beside the threshold
        (found(box(10, 0.24)), found(), 0, 0),  # not sure enough to be missed
        (found(box(10)), found(), 0, 1),
        (found(), found(box(10), box(90)), 0, 2),
        (found(), found(), 0, 0),
        (found(box(10), box(11)), found(box(10)), 2, 3),  # one partner each
    ],
)
def test_agreement(first: Detections, second: Detections, same: int, total: int) -> None:
    agreement = compare_detections(first, second, LIMITS, DETECT)
    assert (agreement.same, agreement.total) == (same, total)
    assert len(agreement.missing) + len(agreement.unexpected) == total - same
    swapped = compare_detections(second, first, LIMITS, DETECT)
    assert (swapped.same, swapped.total) == (same, total)


def test_output_differences_are_relative_to_what_was_expected() -> None:
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(1, 10, 500)).astype(np.float32)
    expected[:, :4] *= 100
    got = expected.copy()
    got[:, 4:] += np.float32(0.25)
    values = pooled([output_errors(parts(expected), parts(got))] * 3)
    assert values["boxes"] == 0
    assert values["scores"] == pytest.approx(0.25 / expected[:, 4:].std(), rel=1e-4)


def test_pooling_weighs_images_by_their_spread() -> None:
    quiet, loud = {"scores": (0.01, 0.01)}, {"scores": (0.01, 1.0)}
    assert pooled([quiet])["scores"] == 1.0
    assert pooled([loud])["scores"] == pytest.approx(0.1)
    assert pooled([quiet, loud])["scores"] == pytest.approx((0.02 / 1.01) ** 0.5)


def test_end_to_end_rows_may_change_places() -> None:
    expected = np.random.default_rng(0).uniform(size=(1, 300, 6)).astype(np.float32)
    assert pooled([output_errors(parts(expected, END2END), parts(expected[:, ::-1], END2END))]) == {"scores": 0.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_or_of_another_shape_never_fits(bad: float) -> None:
    expected = np.ones((1, 6, 4), np.float32)
    expected[0, 0, 0] = 2
    got = expected.copy()
    got[0, 5, 3] = bad
    assert pooled([output_errors(parts(expected), parts(got))])["scores"] == np.inf
    assert pooled([output_errors(parts(expected), parts(got[:, :5]))])["scores"] == np.inf


def test_constant_outputs_must_be_equal() -> None:
    assert pooled([{"scores": (0.0, 0.0)}])["scores"] == 0
    assert pooled([{"scores": (1e-9, 0.0)}])["scores"] == np.inf


@settings(max_examples=100)
@given(st.floats(-4096, 4096, width=32))
def test_rounding_for_storage_is_fine(value: float) -> None:
    (result,) = rounded(np.array([value], np.float32))
    assert abs(result - value) <= abs(value) * 2**-12 + 2**-14


def test_outputs_are_written_alike_each_time_and_read_back(tmp_path: Path) -> None:
    outputs = [np.random.default_rng(0).normal(size=(1, 5, 7)).astype(np.float32), np.zeros((1, 2), np.float32)]
    for name in ("a.npz", "b.npz"):
        write_outputs(tmp_path / name, outputs)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = read_outputs(tmp_path / "a.npz")
    assert all((rounded(o) == b).all() for o, b in zip(outputs, back, strict=True))


def test_pickles_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", np.array([print], dtype=object))
    with pytest.raises(BundleError, match=r"evil\.npz"):
        read_outputs(tmp_path / "evil.npz")
