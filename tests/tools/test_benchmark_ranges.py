"""The ranges benchmark: its cache, its F1, and a whole run on a tiny model that goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core_models import checkpoint, write_images

from tools import benchmark_ranges
from tools.benchmark_ranges import CachedRunner
from yoloquant.errors import UsageError
from yoloquant.targets.base import Runner
from yoloquant.types import HeadLayout, ModelInfo, Task


class _Counting(Runner):
    """Returns two anchors, one of which no selection would look at."""

    def __init__(self) -> None:
        self.info, self.layout = ModelInfo(Task.DETECT, ("a",), (32, 32)), HeadLayout.DECODED
        self.calls = 0

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        self.calls += 1
        return (np.array([[[1, 2], [3, 4], [5, 6], [7, 8], [0.9, 0.0001]]], np.float32),)


def test_what_is_cached_is_not_run_again(tmp_path: Path) -> None:
    inner = _Counting()
    image = np.zeros((1, 3, 32, 32), np.float32)
    first, second = CachedRunner(inner, tmp_path / "a"), CachedRunner(inner, tmp_path / "a")
    (one,), (two,) = first.infer(image), second.infer(image)
    assert inner.calls == 1 and np.array_equal(one, two) and one.shape == (1, 5, 1)
    second.infer(image + 1)
    CachedRunner(inner, tmp_path / "b").infer(image)
    CachedRunner(inner, None).infer(image)
    assert inner.calls == 4


def test_a_run_and_its_continuation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_images(tmp_path / "set", train=8, val=3)
    options = {
        **benchmark_ranges.DEFAULTS, "models": str(checkpoint(tmp_path / "m.pt")), "data": f"{data},{data}",
        "schemes": "tensorrt", "imgsz": "64", "images": "8", "bootstrap": "20", "cache": str(tmp_path / "cache"),
        "threads": "1",
    }  # fmt: skip
    report = benchmark_ranges.run(options)
    assert report.count("tensorrt plain") == report.count("tensorrt default") == 3, "two sets and all of them"
    assert "| 6 all |" in report

    def forbidden(*_: object) -> np.ndarray:
        raise AssertionError("everything is cached")

    monkeypatch.setattr(CachedRunner, "_computed", forbidden)
    again = benchmark_ranges.run(options)
    assert again.split("\n\n", 1)[1] == report.split("\n\n", 1)[1]


@pytest.mark.parametrize(
    ("key", "value", "said"), [("recipes", "best", "recipe 'best'"), ("models", "m.pt@both", "both")]
)
def test_bad_options(tmp_path: Path, key: str, value: str, said: str) -> None:
    model = checkpoint(tmp_path / "m.pt")
    value = value.replace("m.pt", str(model))
    options = {**benchmark_ranges.DEFAULTS, "models": str(model), key: value}
    with pytest.raises(UsageError, match=said):
        benchmark_ranges.prepare(options["models"], options)
