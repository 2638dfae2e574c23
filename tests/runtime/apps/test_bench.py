from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from live_fakes import GreyOpener, grey_detector, grey_picture

from yoloquant.runtime.apps import bench as module
from yoloquant.runtime.apps.bench import (
    KEYS,
    BenchOptions,
    bench,
    finish,
    made_pictures,
    parse_options,
    pictures_of,
    read_pictures,
)
from yoloquant.runtime.apps.bench_report import BenchMeasurement, Report
from yoloquant.runtime.apps.bench_worker import Turn, measure
from yoloquant.runtime.apps.running import BundleOpener, Running
from yoloquant.runtime.apps.settings import VerbSettings
from yoloquant.runtime.device.processors import affinity
from yoloquant.runtime.device.sensors import Reading
from yoloquant.runtime.errors import DataError, OutputError, UsageError


def turn(*totals_ms: float, wall: float = 1.0, cpu: float = 0.5) -> tuple[Turn, Reading]:
    seconds = np.array([[0.1 * t, 0.7 * t, 0.2 * t] for t in totals_ms]) / 1e3
    return Turn(seconds, wall, cpu, 123.4), Reading(5.0, 60.0, {})


def test_figures_of_an_artifact() -> None:
    mine = [turn(*range(1, 51)), turn(*range(51, 101), cpu=1.5)]
    found = module._measured("a", {}, mine, mine)
    assert found.steps_ms["total"]["p50"] == pytest.approx(50.5) and found.steps_ms["total"]["p99"] == pytest.approx(
        99.01
    )
    assert found.steps_ms["inference"]["p90"] == pytest.approx(0.7 * 90.1)
    assert found.fps == pytest.approx(1e3 / 50.5, abs=0.01) and found.cpu_percent == 100.0
    assert (found.memory_mb, found.watts, found.degrees, found.ratio) == (123.4, 5.0, 60.0, 1.0)


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that gets three times slower half-way leaves them alone."""
    first = [turn(10.0, 10.0), turn(10.0, 10.0), turn(30.0, 30.0)]
    second = [turn(20.0, 20.0), turn(20.0, 20.0), turn(60.0, 60.0)]
    assert module._ratio(second, first) == 2.0
    assert module._ratio(second, []) is None


def test_a_turn_counts_each_run_but_the_first_one() -> None:
    calls: list[int] = []
    taken = measure(grey_detector(lambda: calls.append(0)), [grey_picture(1), grey_picture(2)], 5)
    assert taken.seconds.shape == (5, 3) and (taken.seconds > 0).all() and len(calls) == 6
    assert taken.wall_s >= taken.seconds.sum()


def test_artifacts_are_measured_in_their_own_processes_and_failures_do_not_stop_the_others(tmp_path: Path) -> None:
    cores = affinity()[:1]
    turns: list[str] = []
    report = bench(
        {"good": GreyOpener(), "closed": GreyOpener("open"), "crashing": GreyOpener("crash")},
        [grey_picture(3)],
        BenchOptions(rounds=3, runs=4, warmup=2, cores=cores),
        progress=lambda done, total, name: turns.append(name),
    )
    good, closed, crashing = report.measured
    assert not good.error and good.facts["runtime"] == "grey 1.2" and good.facts["imgsz"] == [64, 64]
    assert good.steps_ms["total"]["p50"] > 0 and good.ratio == 1.0 and good.fps
    assert closed.error == "no such thing" and "ended with code 13" in crashing.error
    assert turns.count("good") == 3 and sorted(turns[:3]) == ["closed", "crashing", "good"]
    assert report.environment["affinity"] == list(cores) and report.environment["rounds"] == 3
    said: list[str] = []
    assert finish(report, str(tmp_path / "new" / "b.json"), said.append) == 4
    stored = json.loads((tmp_path / "new" / "b.json").read_text())
    assert [a["name"] for a in stored["artifacts"]] == ["good", "closed", "crashing"] and stored["format"] == 1
    assert "crashing failed" in said[0] and "grey 1.2" in said[0]


class Local:
    """A worker whose network takes what its opener says, round by round; the last one again and again."""

    facts: dict[str, object] = {}  # noqa: RUF012

    def __init__(self, opener: object, *others: object) -> None:
        self._times = list(opener) if isinstance(opener, tuple) else [1.0]

    def start(self, warmup: int) -> None: ...

    def turn(self, runs: int) -> Turn:
        time = self._times.pop(0) if len(self._times) > 1 else self._times[0]
        return turn(*[time] * runs)[0]

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("times", "rounds"),
    [
        ({"a": (1.0,), "b": (0.7,)}, 5),  # they agree
        ({"a": (1.0, 3.0, 1.0), "b": (0.7, 2.1, 0.7)}, 5),  # a machine that stood still for a while changes no ratio
        ({"a": (1.0,), "b": (0.7, 0.74, 0.7)}, 10),  # a ratio that scatters
        ({"a": (1.0,), "b": (0.7,), "c": (0.7, 0.74, 0.7)}, 10),  # one of several
        ({"a": (1.0,)}, 5),
        ({"a": (1.0, 1.0, 1.06, 1.0)}, 10),
    ],
)
def test_half_of_the_rounds_are_enough_where_they_agree(
    times: dict[str, tuple[float, ...]], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Worker", Local)
    openers: dict[str, Any] = dict(times)
    for enough, made in ((0.05, rounds), (0.0, 10)):
        taken = module.take_turns(openers, [grey_picture(1)], BenchOptions(rounds=10, runs=2, enough=enough))
        assert {name: len(turns) for name, turns in taken.turns.items()} == dict.fromkeys(times, made)


def test_the_order_of_a_round_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Worker", Local)
    turns: list[str] = []
    openers = {name: GreyOpener() for name in "abc"}
    bench(openers, [grey_picture(1)], BenchOptions(rounds=30), progress=lambda d, t, name: turns.append(name))
    rounds = ["".join(turns[i : i + 3]) for i in range(0, 90, 3)]
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds) and len(set(rounds)) == 6


def test_a_table_without_sensors() -> None:
    report = Report(
        {"cpu": "x", "affinity": [], "load_average": None, "rounds": 1, "runs": 1, "power_source": ""},
        (module._measured("a", {"runtime": "r"}, [turn(1.0)], []), BenchMeasurement("b", error="broken")),
    )
    assert "b failed: broken" in report.table() and "power unknown" in report.table()
    assert json.loads(json.dumps(report.to_dict()))["artifacts"][1]["error"] == "broken"


def test_pictures_are_read_or_made(tmp_path: Path) -> None:
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), grey_picture(index))
    assert [int(p[0, 0, 0]) for p in read_pictures(str(tmp_path), 2)] == [0, 1]
    made = made_pictures(2)
    assert len(made) == 2 and made[0].shape == (480, 640, 3) and np.array_equal(made[0], made_pictures(2)[0])
    with pytest.raises(DataError):
        read_pictures(str(tmp_path / "none"))


def test_a_bundles_own_pictures_are_taken_unless_others_are_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), grey_picture(200))
    cv2.imwrite(str(tmp_path / "0.jpg"), grey_picture(100))
    settings = VerbSettings({}, KEYS, "bench")
    assert [int(p[0, 0, 0]) for p in pictures_of(settings, tmp_path)] == [100, 200]
    named = VerbSettings({"source": str(tmp_path / "0.png"), "images": "5"}, KEYS, "bench")
    assert [int(p[0, 0, 0]) for p in pictures_of(named, tmp_path)] == [200]
    for folder in (None, tmp_path / "none"):
        assert len(pictures_of(settings, folder)) == 8


@pytest.mark.parametrize("cores", ["a", "0,", "99999"])
def test_cores_that_are_not_there_are_refused(cores: str) -> None:
    if cores == "99999" and not affinity():
        pytest.skip("this system does not tell its cores")
    with pytest.raises(UsageError, match="affinity="):
        parse_options(VerbSettings({"affinity": cores}, KEYS, "bench"))


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UsageError):
        bench({}, [grey_picture(1)])


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    report = Report(
        {"cpu": "x", "affinity": [0], "load_average": 1.0, "rounds": 1, "runs": 1, "power_source": "rapl"}, ()
    )
    with pytest.raises(OutputError, match="cannot be written"):
        finish(report, str(tmp_path / "file" / "b.json"), lambda text: None)


def test_the_verb_names_each_bundle_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, object] = {}

    def stand_in(openers: dict[str, BundleOpener], pictures: object, options: object) -> Report:
        asked.update(openers)
        return Report({"cpu": "", "affinity": [], "load_average": 0, "rounds": 1, "runs": 1, "power_source": ""}, ())

    monkeypatch.setattr(module, "bench", stand_in)
    assert module.main({"model": f"{tmp_path}/a/x, {tmp_path}/b/x", "threads": "2", "conf": "0.5"}, lambda t: None) == 0
    assert list(asked) == ["x", f"{tmp_path}/b/x"]
    assert asked["x"] == BundleOpener(f"{tmp_path}/a/x", Running(threads=2, conf=0.5))
