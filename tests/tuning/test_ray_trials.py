"""Trials on a real local Ray cluster, one of whose workers is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from yoloquant.cluster import connected
from yoloquant.errors import UsageError
from yoloquant.tuning.ray_trials import RayTrials
from yoloquant.tuning.results import records
from yoloquant.tuning.search import Attempt, TrialSearch
from yoloquant.tuning.space import make_space
from yoloquant.tuning.studied import HeldBack, Studied
from yoloquant.tuning.tune_options import TuneOptions

pytest.importorskip("optuna")
pytest.importorskip("ray")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    model = tmp_path / "best.pt"
    model.write_bytes(b"weights")
    space = make_space({"model": str(model), "data": "d.yaml"}, {"percentile": "90..99.9"})
    told = TuneOptions(trials=3, sampler="random", on="ray", workers=2)  # type: ignore[arg-type]
    studied = Studied(space, told, HeldBack("d.yaml", None, 8, "abc"), tmp_path, f"sqlite:///{tmp_path / 'study.db'}")

    def evaluate(attempt: Attempt) -> dict[str, float]:  # local, so that it travels by value
        try:
            (tmp_path / "killed").mkdir()
        except FileExistsError:
            (tmp_path / f"process-{os.getpid()}").touch()
            return {"fidelity": float(attempt.values["ranges.percentile"]) / 100}  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    told_of: list[str] = []
    RayTrials(studied, evaluate, progress=lambda done, total, label: told_of.append(label)).run(3, share=1)
    found = records(studied.open(), "search", None)
    states = sorted(t.state for t in found)
    assert states == ["lost", "measured", "measured", "measured"], "what was lost was tried again"
    lost = next(t for t in found if t.state == "lost")
    assert lost.values in [t.values for t in found if t.state == "measured"]
    assert f"process-{os.getpid()}" not in {p.name for p in tmp_path.glob("process-*")}, "not one ran here"
    assert any("3 measured" in label for label in told_of)
    best = max((t for t in found if t.state == "measured"), key=lambda t: t.scores["fidelity"])
    RayTrials(studied, evaluate, again=True).look_again([best.values])
    (again,) = records(studied.open(again=True), "again", None)
    assert again.scores == best.scores


def test_a_grid_has_no_more_trials_than_points(tmp_path: Path) -> None:
    model = tmp_path / "best.pt"
    model.write_bytes(b"weights")
    space = make_space({"model": str(model), "data": "d.yaml"}, {"range_head": "mse|minmax"})
    told = TuneOptions(trials=30, sampler="grid", on="ray")  # type: ignore[arg-type]
    studied = Studied(space, told, HeldBack("d.yaml", None, 8, "abc"), tmp_path, f"sqlite:///{tmp_path / 'study.db'}")
    left = []
    for done in range(3):
        TrialSearch(studied.open(), space, told, lambda attempt: {"fidelity": 0.5}).run(done, share=1)
        left.append(RayTrials(studied, lambda attempt: {})._left(30))
    assert left == [2, 1, 0], "workers would try points again until the 30 are spent"


def test_a_cluster_that_cannot_be_reached_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'"), connected("127.0.0.1:1"):
        pass
