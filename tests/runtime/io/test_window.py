from __future__ import annotations

import subprocess
import sys

import pytest

from yoloquant.runtime.io import window


def test_no_window_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform.startswith("linux"):
        assert not window.has_display()


@pytest.mark.parametrize(("code", "there"), [(0, True), (134, False)])
def test_a_screen_is_tried_in_another_process(monkeypatch: pytest.MonkeyPatch, code: int, there: bool) -> None:
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setattr(window.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, code))
    assert window.has_display() is there
