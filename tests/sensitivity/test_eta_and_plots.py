"""Remaining time, and pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from yoloquant.sensitivity import Sensitivity, SensitivityMeasurement
from yoloquant.sensitivity.eta import Eta
from yoloquant.sensitivity.plots import draw_bars, draw_heatmap, write_plots


def test_one_slow_part_does_not_spoil_the_estimate() -> None:
    eta = Eta()
    assert eta.remaining(5) is None and eta.text(5) == ""
    for seconds in (2.0, 2.0, 300.0):
        eta.add(seconds)
    assert eta.remaining(5) == 10.0
    assert [eta.text(n) for n in (0, 5, 30, 31, 1800, 1830)] == [
        "0 s left", "10 s left", "1 min 00 s left", "1 min 02 s left", "1 h 00 min left", "1 h 01 min left",
    ]  # fmt: skip


def found(kind: str, parts: int = 3) -> Sensitivity:
    ratios = ((0.25,), (0.5, 0.75)) if kind == "prune" else ((),)
    points = tuple(
        SensitivityMeasurement(
            f"model.{i}.cv1", r[0] if r else None, r, 0.1 * i, None if i == 2 else 0.1 * i - 0.1, "mask"
        )
        for i in range(parts)
        for r in ratios
    )
    return Sensitivity(kind, "map", 0.4, points)


def texts(figure: Figure) -> list[str]:
    axes = figure.axes[0]
    return [t.get_text() for t in [*axes.texts, *axes.get_yticklabels(), *axes.get_xticklabels()]]


def test_the_heat_map_says_what_was_measured() -> None:
    seen = texts(draw_heatmap(found("prune")))
    assert {"0.cv1", "1.cv1", "2.cv1", "-25%", "-50%", "-75%", "not finite", "-0.100", "0.000 (-50%)"} <= set(seen)


def test_bars_say_what_was_measured() -> None:
    figure = draw_bars(found("quant"))
    assert {"0.cv1", "2.cv1", " not finite", " -0.1"} <= set(texts(figure))
    assert len(figure.axes[0].patches) == 3


@pytest.mark.parametrize("kind, name", [("prune", "heatmap"), ("quant", "bars")])
def test_plots_are_written(tmp_path: Path, kind: str, name: str) -> None:
    (path,) = write_plots(found(kind, 100), tmp_path / "new")
    assert path.name == f"sensitivity_{name}.png" and path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in path.parent.iterdir()] == [path.name]
