"""Limits of a bundle follow from how far correct kernels differ, within what wrong preprocessing does."""

from __future__ import annotations

import pytest

from yoloquant.bundle.tolerances import FACTOR, LEAST, MOST, TOLERANCES, derive_tolerances, limited_as

WRONG = {"boxes": 0.042, "scores": 0.30}  # red and blue exchanged, at the least


@pytest.mark.parametrize("noise", [None, {}, {"boxes": 0.0, "scores": 0.0}])
def test_without_second_kernels_limits_are_the_measured_ones(noise: dict[str, float] | None) -> None:
    assert derive_tolerances(noise) == TOLERANCES


@pytest.mark.parametrize("boxes", [1e-6, 0.0091, 0.014, 0.017, 0.5])
@pytest.mark.parametrize("scores", [1e-6, 0.0510, 0.117, 3.0])
def test_limits_lie_above_the_noise_and_below_wrong_preprocessing(boxes: float, scores: float) -> None:
    found = derive_tolerances({"boxes": boxes, "scores": scores})
    for part, noise in (("boxes", boxes), ("scores", scores)):
        limit = getattr(found, part)
        assert LEAST[part] <= limit <= MOST[part] < WRONG[part]
        assert limit >= min(1.8 * noise, MOST[part]), "another processor was seen 1.8 times as far off"
    assert found.agreement == TOLERANCES.agreement


def test_the_factor_counts_between_the_bounds() -> None:
    assert derive_tolerances({"boxes": 0.01, "scores": 0.06}).boxes == pytest.approx(FACTOR * 0.01)


def test_outputs_without_boxes_keep_a_limit_for_them() -> None:
    assert derive_tolerances({"scores": 0.06}).boxes == LEAST["boxes"]


def test_what_else_a_task_predicts_is_held_to_the_limit_of_scores() -> None:
    """Mask coefficients, keypoints, angles: the noisiest of them decides, or a bundle would refuse itself."""
    noise = {"boxes": 0.001, "scores": 0.01, "angles": 0.08}
    assert derive_tolerances(noise).scores == pytest.approx(FACTOR * 0.08)
    assert [limited_as(part) for part in noise] == ["boxes", "scores", "scores"]
