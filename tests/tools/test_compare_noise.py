"""How far noise in the pixels moves a drop."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from validation_fakes import FakeRunner, label_rows, write_dataset

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools.compare_noise import Disturbed, disturbed, figures, main, rows  # noqa: E402
from yoloquant.data.dataset import ValidationSet  # noqa: E402
from yoloquant.evaluation.judged_models import BASELINE  # noqa: E402


def test_values_move_by_a_level_at_most_and_each_as_likely() -> None:
    image = np.full((1, 3, 64, 64), 100, np.float32) / np.float32(255)
    moved = np.rint((disturbed(image, 0, 1) - image) * 255)
    shares = [float((moved == step).mean()) for step in (-1, 0, 1)]
    assert sum(shares) == 1 and min(shares) > 0.3
    assert np.array_equal(disturbed(image, 0, 1), disturbed(image, 0, 1)), "every model sees the same"
    assert not np.array_equal(disturbed(image, 0, 1), disturbed(image, 1, 1))
    other = image.copy()
    other[0, 0, 0, 0] = 0
    assert not np.array_equal(disturbed(image, 0, 1)[0, 0, 1:], disturbed(other, 0, 1)[0, 0, 1:]), "images differ"
    for end in (0.0, 1.0):
        limits = disturbed(np.full((1, 3, 8, 8), end, np.float32), 0, 2)
        assert limits.min() >= 0 and limits.max() <= 1 and limits.dtype == np.float32


def test_every_model_gets_the_same_pixels() -> None:
    image = np.full((1, 3, 64, 64), 128, np.float32) / np.float32(255)
    runner = FakeRunner([np.zeros((0, 6), np.float32)])
    for seed in (None, 3, 3):
        Disturbed(runner, seed, 1).infer(image)
    first, second, third = runner.inputs
    assert np.array_equal(first, image) and np.array_equal(second, third) and not np.array_equal(first, second)


def test_figures_are_of_every_model_in_points(tmp_path: Path) -> None:
    data = ValidationSet.from_yaml(write_dataset(tmp_path / "set", count=4, size=(64, 64)))
    sides = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]]) * 64  # of xywh, to xyxy
    right = label_rows([(image.classes, image.boxes @ sides) for image in data.images])
    runners = {BASELINE: FakeRunner(right), "blind": FakeRunner([np.zeros((0, 6), np.float32)])}
    found = figures(runners, data, 0, 1)
    assert found[BASELINE] > 99 and found["blind"] == 0


def test_drops_are_of_the_same_pixels() -> None:
    plain = {BASELINE: 40.0, "a": 39.0, "b": 39.5}
    noisy = [{BASELINE: 41.0, "a": 40.5, "b": 40.0}, {BASELINE: 39.0, "a": 38.1, "b": 37.8}]
    base, first, second = rows(plain, noisy)
    assert base[:4] == (f"{BASELINE}, its own change", "0", "+0.00", "1.41")
    assert first == ("a", "+1.00", "+0.70", "0.28", "+0.50 .. +0.90", "", "")
    assert second[:3] == ("b", "+0.50", "+1.10")
    mean, interval = second[-2:]
    assert mean == "+0.40"
    low, high = (float(v) for v in interval.strip("[]").split(","))
    # of +0.5 and +0.3: half their distance times Student's factor of one degree of freedom
    assert low == pytest.approx(0.4 - 0.1 * 12.706, abs=0.01) and high == pytest.approx(0.4 + 0.1 * 12.706, abs=0.01)


def test_bad_options_are_refused_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=a.pt", "data=b.yaml", "seeds=1"]) == 2
    assert "allowed is a whole number above 1" in capsys.readouterr().err
    assert main(["model=a.pt"]) == 2
