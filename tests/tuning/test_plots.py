"""A plot that Optuna cannot draw leaves nothing behind, and takes nothing of its caller's away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from yoloquant.tuning.plots import _drawn

pyplot = pytest.importorskip("matplotlib.pyplot")


def test_figures_of_the_caller_stay_open(tmp_path: Path) -> None:
    mine = pyplot.figure()

    def broken() -> Any:
        pyplot.figure()
        raise ValueError("too few trials")

    try:
        assert _drawn(tmp_path / "a.png", broken) == []
        assert pyplot.get_fignums() == [mine.number] and not list(tmp_path.iterdir())
        assert _drawn(tmp_path / "b.png", lambda: pyplot.figure().subplots()) == [tmp_path / "b.png"]
        assert pyplot.get_fignums() == [mine.number] and (tmp_path / "b.png").stat().st_size > 0
    finally:
        pyplot.close(mine)
