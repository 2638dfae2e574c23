"""A window on the screen, where there is one."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2

from ..apps.pipeline import FrameResult

_PROBE_S = 20.0


class Window:
    """A window on the screen; every call must come from the program's first thread.

    Args:
        title: Its title.
        delay_ms: How long each picture stays at least.
    """

    def __init__(self, title: str, delay_ms: int = 1) -> None:
        self._title, self._delay = title, delay_ms

    def show(self, result: FrameResult) -> bool:
        """Show a picture and return False once somebody pressed q or Escape, or closed the window."""
        cv2.imshow(self._title, result.frame.image)
        # Some platforms set higher bits for modifiers and locks.
        if cv2.waitKey(self._delay) & 0xFF in (ord("q"), 27):
            return False
        # After `waitKey`, which is when a click on the window's cross is handled.
        return bool(cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1)

    def close(self) -> None:
        """Close it."""
        cv2.destroyAllWindows()


def has_display() -> bool:
    """Whether a window can be shown: there is a screen, and this OpenCV has windows.

    It is tried in a process of its own: a screen that refuses to be used ends the process that asks.
    """
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    program = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1); cv2.destroyAllWindows()"
    quiet = subprocess.DEVNULL
    try:
        probe = subprocess.run(
            [sys.executable, "-c", program], stdout=quiet, stderr=quiet, timeout=_PROBE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0
