"""Where frames come from: an image, a folder of images, a video file, a camera, or a stream from the network."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import SourceError, YoloquantError
from .images import decode_image

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S = 30.0
_GRACE_S = 1.0  # so that a source that notices its own silence can say so
_COUNTED = frozenset({".avi", ".m4v", ".mov", ".mp4"})
"""Containers that store how many frames they hold; for others OpenCV estimates it from the duration."""


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        index: Its number in the source, from 0; frames that were dropped count.
        time: Seconds since the beginning of the source.
        image: BGR uint8 (height, width, 3).
        name: File name of an image; empty for videos and cameras.
        captured: ``time.perf_counter()`` when it was complete, in seconds.
        read_s: Seconds that reading it took.
    """

    index: int
    time: float
    image: np.ndarray
    name: str = ""
    captured: float = 0.0
    read_s: float = 0.0


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read.

    Attributes:
        timeout: Seconds without a frame after which a source counts as stalled.
        reconnect: How often a lost network stream or camera is opened again before giving up; 0 for never.
        size: Width and height in pixels asked of a camera.
        fps: Frames per second asked of a camera.
    """

    timeout: float = 10.0
    reconnect: int = 0
    size: tuple[int, int] | None = None
    fps: float | None = None


class Source(ABC):
    """Frames, one after the other. ``read`` and ``close`` belong to one thread; ``cancel`` may come from any.

    Attributes:
        name: What people call it.
        live: Whether frames are lost if nobody reads them in time.
        fps: Frames per second; None if it does not tell.
        stall_timeout: Seconds without a frame after which it counts as stalled.
        still: Whether its frames are unrelated images.
    """

    name: str = ""
    live: bool = False
    fps: float | None = None
    stall_timeout: float = 10.0
    still: bool = False

    @abstractmethod
    def read(self) -> Frame | None:
        """The next frame, or None at the end.

        Raises:
            SourceError: It failed.
        """

    def cancel(self) -> None:  # noqa: B027 - most sources never wait
        """End a wait within ``read`` as soon as possible."""

    def close(self) -> None:  # noqa: B027 - images hold nothing
        """Free the device or file."""


class ImageSource(Source):
    """Images one by one.

    Args:
        paths: The files, in order.
        timeout: See ``SourceOptions``.
    """

    still = True

    def __init__(self, paths: Sequence[Path], timeout: float = 10.0) -> None:
        self.name = str(paths[0]) if len(paths) == 1 else str(paths[0].parent)
        self.stall_timeout = timeout
        self.unreadable: list[str] = []
        self._paths, self._next, self._given = list(paths), 0, 0

    def read(self) -> Frame | None:
        """The next readable image; others are named in ``unreadable`` and skipped, unless there is no readable one."""
        while self._next < len(self._paths):
            path, start = self._paths[self._next], time.perf_counter()
            self._next += 1
            image = decode_image(path)
            if image is None:
                logger.warning("'%s' is not a readable image and is skipped", path)
                self.unreadable.append(path.name)
                continue
            index, self._given = self._given, self._given + 1
            now = time.perf_counter()
            return Frame(index, 0.0, image, path.name, now, now - start)
        if not self._given:
            raise SourceError(f"none of the {len(self._paths)} files of '{self.name}' is a readable image")
        return None


class VideoSource(Source):
    """A video file: every frame, none dropped.

    Args:
        name: Its path or address.
        capture: It, opened.
        timeout: See ``SourceOptions``.
    """

    def __init__(self, name: str, capture: Any, timeout: float = 10.0) -> None:
        self.name, self.stall_timeout, self._capture = name, timeout, capture
        self.fps = _rate(capture)
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        # Streams without a length give numbers below 0 or beyond all measure.
        self._promised = int(count) if Path(name).suffix.lower() in _COUNTED and 0 < count < 1e9 else 0
        self._index = 0

    def read(self) -> Frame | None:
        """The next frame.

        Raises:
            SourceError: The file ends earlier than its header says.
        """
        start = time.perf_counter()
        good, image = self._capture.read()
        if not good:
            self._check_end()
            return None
        index, self._index = self._index, self._index + 1
        milliseconds = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        # the container's own time where it has one: phones record with a varying rate
        position = milliseconds / 1e3 if milliseconds > 0 else index / (self.fps or 1.0)
        now = time.perf_counter()
        return Frame(index, position, image, "", now, now - start)

    def _check_end(self) -> None:
        slack = max(2, self._promised // 50)  # some writers count a frame or two that they never stored
        if self._index < self._promised - slack:
            raise SourceError(
                f"video '{self.name}' ended after {self._index} of {self._promised} frames; it is truncated or damaged"
            )

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class LiveSource(Source):
    """A camera or network stream: frames that nobody reads in time are lost.

    Args:
        name: What people call it.
        opener: Opens it and returns a ``cv2.VideoCapture``; raises SourceError or DataError.
        options: How it is read.
        hint: What may be wrong where it opens and never gives a frame.

    Raises:
        DataError: There is no such device.
        SourceError: It cannot be opened.
    """

    live = True

    def __init__(self, name: str, opener: Callable[[], Any], options: SourceOptions, *, hint: str = "") -> None:
        self.name, self.reconnects, self._hint = name, 0, hint
        self._opener, self._options = opener, options
        self._cancelled = threading.Event()
        pauses = sum(_pause(attempt) for attempt in range(options.reconnect))
        # every attempt may take a timeout to open and another one to read
        self.stall_timeout = options.timeout * (1 + 2 * options.reconnect) + pauses + _GRACE_S
        # Here and not at the first frame: what does not open must be told before outputs are made.
        self._capture = opener()
        self.fps = _rate(self._capture)
        # After opening, which may take seconds.
        self._start, self._index = time.perf_counter(), 0

    def read(self) -> Frame | None:
        """The next frame; a lost source is opened again if that was asked for.

        Raises:
            SourceError: It is lost.
        """
        attempt = 0
        while not self._cancelled.is_set():
            start = time.perf_counter()
            image = self._grab()
            if image is not None:
                now = time.perf_counter()
                index, self._index = self._index, self._index + 1
                return Frame(index, now - self._start, image, "", now, now - start)
            attempt = self._reopen(attempt, time.perf_counter() - start)
        return None

    def _grab(self) -> np.ndarray | None:
        try:
            good, image = self._capture.read()
        except cv2.error as exc:
            logger.warning("source '%s': %s", self.name, exc)
            return None
        return image if good and image is not None else None

    def _reopen(self, attempt: int, waited: float) -> int:
        """Open it again and return how many attempts were needed so far."""
        silent = waited > 0.9 * self._options.timeout  # OpenCV ends a read after the timeout, but does not say so
        what = f"stalled (no frame for {waited:.1f} s)" if silent else "was lost"
        while not self._cancelled.is_set():
            if attempt >= self._options.reconnect:
                tried = f" and did not come back in {attempt} attempts" if attempt else ""
                hint = "" if self._options.reconnect else "; reconnect=10 opens it again"
                hint = self._hint if self._hint and not self._index and not self.reconnects else hint
                raise SourceError(f"source '{self.name}' {what} after {self._index} frames{tried}{hint}")
            logger.warning("source '%s' %s; attempt %d to open it again", self.name, what, attempt + 1)
            # Before it is opened again: most cameras can be held by one user only, also if that is this process.
            self._capture.release()
            # A wait and not a sleep, so that `cancel` ends it.
            if self._cancelled.wait(_pause(attempt)):
                break
            attempt += 1
            try:
                self._capture = self._opener()
            except YoloquantError as exc:
                logger.warning("%s", exc)
            else:
                self.reconnects += 1
                break
        return attempt

    def cancel(self) -> None:
        """End a pause between attempts."""
        self._cancelled.set()

    def close(self) -> None:
        """Free the device or connection."""
        self._capture.release()


def _pause(attempt: int) -> float:
    """Seconds before an attempt: 0.5, 1, 2, 4 ..."""
    return float(min(0.5 * 2.0**attempt, LONGEST_PAUSE_S))


def _rate(capture: Any) -> float | None:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if 0 < fps <= 1000 else None
