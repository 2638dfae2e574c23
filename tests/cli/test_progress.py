"""What a log reads of a long step: each step once, and a word after a long silence."""

from __future__ import annotations

import threading

import pytest

from yoloquant.cli import progress
from yoloquant.cli.progress import PAUSE, SILENCE, bar


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_every_label_of_few_steps_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch)
    with bar("exporting") as update:
        for index, name in enumerate(("onnxruntime", "litert", "tensorrt")):
            update(index, 3, name)
            clock.now += PAUSE + 1
        update(3, 3, "")
    assert capsys.readouterr().err.splitlines() == [
        "exporting ...",
        "exporting: onnxruntime (1 of 3)",
        "exporting: litert (2 of 3)",
        "exporting: tensorrt (3 of 3)",
    ]


def test_many_steps_are_told_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    with bar("validating") as update:
        for done in range(40):
            update(done, 40, f"{done}.jpg")
            clock.now += PAUSE / 4
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:3] == ["validating: 4.jpg (5 of 40)", "validating: 8.jpg (9 of 40)"] and len(lines) == 10


def test_steps_whose_number_is_open_are_told_as_they_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    with bar("searching") as update:
        for done, name in enumerate(("1 layer: fidelity 0.950", "2 layers: fidelity 0.960")):
            update(done + 1, 0, name)
            clock.now += 1
    assert capsys.readouterr().err.splitlines() == [
        "searching ...",
        "searching: 1 layer: fidelity 0.950",
        "searching: 2 layers: fidelity 0.960",
    ]


def test_long_silence_is_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch)
    update = progress._Lines("calibrating")
    update(7, 8, "calibrating")
    clock.now += SILENCE - 1
    update.beat()
    clock.now += 1
    update.beat()
    update.beat()
    clock.now += SILENCE
    update.beat()
    assert capsys.readouterr().err.splitlines() == [
        "calibrating: calibrating (8 of 8)",
        f"calibrating: still at work after {SILENCE:.0f} s",
        f"calibrating: still at work after {2 * SILENCE:.0f} s",
    ]


def test_it_beats_while_the_step_runs_and_not_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    beats = threading.Semaphore(0)
    monkeypatch.setattr(progress._Lines, "beat", lambda self: beats.release())
    before = threading.active_count()
    with bar("calibrating"):
        assert beats.acquire(timeout=60)
    assert threading.active_count() == before


def test_an_error_ends_the_beats() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), bar("calibrating"):
        raise ZeroDivisionError
    assert threading.active_count() == before
