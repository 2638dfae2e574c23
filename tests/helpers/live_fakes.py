"""A detector whose answer tells which picture it saw, and sources that behave as told; other processes import it."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from yoloquant.runtime.backends.base import Backend
from yoloquant.runtime.core.detector import Detector
from yoloquant.runtime.core.model_info import HeadLayout, ModelInfo, Task
from yoloquant.runtime.errors import SourceError
from yoloquant.runtime.io.sources import Frame, Source

SIZE = 64
NAMES = ("cat", "dog", "bird")


class GreyBackend(Backend):
    """Finds one box whose width is the grey value (0 to 60) of the picture; returns the same buffer every time.

    Args:
        before: Called before every inference.
    """

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.name, self.info, self.layout = "grey", ModelInfo(Task.DETECT, NAMES, (SIZE, SIZE)), HeadLayout.DECODED
        self.input_shape, self.input_dtype = (1, 3, SIZE, SIZE), np.dtype(np.float32)
        self.closed = False
        self._before, self._output = before, np.zeros((1, 7, 8), np.float32)

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """See the class."""
        self._before()
        grey = round(float(tensor.mean()) * 255)
        self._output[:] = 0
        self._output[0, :4, 3] = grey / 2, 16, grey, 8
        self._output[0, 5, 3] = 0.75
        return (self._output,)

    def close(self) -> None:
        """Remember it."""
        self.closed = True

    @property
    def version(self) -> str:
        """A version."""
        return "1.2"


def grey_detector(before: Callable[[], None] = lambda: None) -> Detector:
    """A detector of the backend above."""
    return Detector(GreyBackend(before))


def grey_picture(value: int, size: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    """A picture of one grey."""
    return np.full((*size, 3), value, np.uint8)


def pictured(boxes: np.ndarray) -> int:
    """The grey value that a box of that detector stands for."""
    assert boxes.shape == (1, 4), boxes
    return round(float(boxes[0, 2] - boxes[0, 0]))


class ListSource(Source):
    """Pictures from a list; an exception in it is raised.

    Args:
        items: Pictures or errors.
        live: Whether it counts as live.
        pause: Seconds before each.
    """

    def __init__(self, items: Iterable[np.ndarray | Exception], *, live: bool = False, pause: float = 0.0) -> None:
        self.name, self.live, self.closed, self.stall_timeout = "list", live, False, 30.0
        self._items, self._index, self._pause = iter(items), 0, pause

    def read(self) -> Frame | None:
        """See ``Source``."""
        time.sleep(self._pause)
        item = next(self._items, None)
        if item is None:
            return None
        if isinstance(item, Exception):
            raise item
        index, self._index = self._index, self._index + 1
        return Frame(index, index / 10, item.copy(), "", time.perf_counter(), 0.001)

    def close(self) -> None:
        """Remember it."""
        self.closed = True


class StuckSource(ListSource):
    """Pictures, and then silence until it is freed."""

    def __init__(self, items: Sequence[np.ndarray], stall_timeout: float) -> None:
        super().__init__(items, live=True)
        self.stall_timeout, self.freed = stall_timeout, threading.Event()

    def read(self) -> Frame | None:
        """See ``Source``."""
        frame = super().read()
        if frame is None:
            self.freed.wait(60)
        return frame

    def cancel(self) -> None:
        """Free it."""
        self.freed.set()


class Capture:
    """Stands in for ``cv2.VideoCapture``: gives pictures, then failures."""

    def __init__(self, pictures: Sequence[np.ndarray], fps: float = 25.0) -> None:
        self._pictures, self._fps, self.released = list(pictures), fps, False

    def read(self) -> tuple[bool, np.ndarray | None]:
        """See OpenCV."""
        return (True, self._pictures.pop(0)) if self._pictures else (False, None)

    def get(self, key: int) -> float:
        """See OpenCV."""
        return self._fps

    def release(self) -> None:
        """See OpenCV."""
        self.released = True


@dataclass(frozen=True)
class GreyOpener:
    """Opens the detector in another process, or fails there.

    Attributes:
        fails: Empty; ``open`` to raise, or ``crash`` to end the process during an inference after the first turn.
    """

    fails: str = ""

    def __call__(self) -> Detector:
        """Open it."""
        if self.fails == "open":
            raise SourceError("no such thing")
        count = 0

        def before() -> None:
            nonlocal count
            count += 1
            if self.fails == "crash" and count > 8:
                os._exit(13)

        return grey_detector(before)


class MotionJpegServer:
    """Serves a motion JPEG stream over HTTP: so many pictures to each visitor, then silence or the end.

    Args:
        pictures: What a visitor gets.
        stall: Whether the connection stays open afterwards.
        pause: Seconds between pictures.
    """

    def __init__(self, pictures: Sequence[np.ndarray], *, stall: bool = False, pause: float = 0.01) -> None:
        import cv2

        frames = [cv2.imencode(".jpg", p)[1].tobytes() for p in pictures]
        released = self._released = threading.Event()
        self.visits: list[str] = []
        visits = self.visits

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                visits.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for frame in frames:
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
                    try:
                        self.wfile.write(head.encode() + frame + b"\r\n")
                    except OSError:
                        return
                    time.sleep(pause)
                if stall:
                    released.wait(60)

            def log_message(self, *arguments: object) -> None:
                """Stay quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/stream.mjpg"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> MotionJpegServer:
        return self

    def __exit__(self, *error: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
