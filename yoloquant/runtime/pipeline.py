"""Capture, preprocessing, inference and drawing at the same time, each in a thread of its own.

The caller's thread runs the network, because some runtimes bind a model to the thread that loaded it, and shows
pictures, because windows belong to a program's first thread. OpenCV, numpy and the runtimes release Python's global
lock while they work, so the threads do run side by side.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np

from .detections import Detections
from .detector import Detector
from .errors import SourceError
from .exchange import Closed, Exchange
from .letterbox import Letterbox
from .stream import Frame, Source

logger = logging.getLogger(__name__)

_POLL_S = 0.2  # how long a wait for a frame may delay Ctrl-C, a stall's report and the window's keys
_JOIN_S = 5.0


class Ending(str, Enum):
    """Why a run ended."""

    END = "end"  # the source has no more frames
    LIMIT = "limit"  # as many frames as were asked for
    STOPPED = "stopped"  # somebody asked for it
    LOST = "lost"  # the source failed or stalled


class Times(NamedTuple):
    """Seconds that a frame spent in each step; waiting between them is not counted."""

    read: float
    preprocess: float
    inference: float
    postprocess: float


@dataclass(frozen=True)
class Result:
    """A frame with what was found in it.

    Attributes:
        frame: The frame; its image may be drawn on.
        detections: In pixels of the frame.
        times: Seconds of each step.
        age: Seconds since the frame of a live source was captured; for files, whose frames are read ahead and wait,
            the sum of the steps.
    """

    frame: Frame
    detections: Detections
    times: Times
    age: float


@dataclass(frozen=True)
class Outcome:
    """How a run went.

    Attributes:
        ending: Why it ended.
        frames: Frames that went through all steps.
        dropped: Frames of a live source that were replaced by newer ones.
        seconds: Wall time from the start to the last result.
        error: What happened to a lost source; empty otherwise.
    """

    ending: Ending
    frames: int
    dropped: int
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class _Prepared:
    frame: Frame
    tensor: np.ndarray
    where: Letterbox
    seconds: float


@dataclass(frozen=True)
class _Inferred:
    prepared: _Prepared
    outputs: tuple[np.ndarray, ...]
    seconds: float


class Pipeline:
    """Runs a detector over a source. For one use.

    Args:
        source: Where frames come from; closed at the end.
        detector: The model; it stays open.
        consume: Called with every result, in order, in a thread of its own: draws and writes.
        show: Called in the caller's thread with the newest result that was consumed, of still images with every one,
            else with the last one at least; it returns whether to go on.
        limit: Frames after which to stop.
    """

    def __init__(
        self,
        source: Source,
        detector: Detector,
        consume: Callable[[Result], None],
        *,
        show: Callable[[Result], bool] | None = None,
        limit: int | None = None,
    ) -> None:
        self._source, self._detector = source, detector
        self._consume, self._show, self._limit = consume, show, limit
        self._stop = threading.Event()
        # A detector writes into three tensors in turn: one is filled, one waits, one is read by the network.
        self._frames: Exchange[Frame] = Exchange(1 if source.live else 2, newest=source.live)
        self._prepared: Exchange[_Prepared] = Exchange(1, newest=source.live)
        self._inferred: Exchange[_Inferred] = Exchange(1 if source.live else 2)
        self._shown: Exchange[Result] = Exchange(1, newest=True)
        self._heard = self._last = time.perf_counter()
        self._done = 0
        self._errors: list[BaseException] = []
        self._lost: SourceError | None = None

    def stop(self) -> None:
        """Ask the run to end; frames that were inferred are still consumed. May be called from anywhere."""
        self._stop.set()

    def run(self) -> Outcome:
        """Run until the source ends, the limit is reached, ``stop`` is called or Ctrl-C is pressed.

        Returns:
            How it went; also for a source that failed on the way, with what was done until then.

        Raises:
            YoloquantError: The network or the consumer failed.
        """
        start = self._heard = self._last = time.perf_counter()
        steps = ((self._read, self._frames), (self._prepare, self._prepared), (self._finish, self._shown))
        threads = [threading.Thread(target=self._guard, args=step, daemon=True) for step in steps]
        for thread in threads:
            thread.start()
        ending = Ending.STOPPED
        try:
            ending = self._infer()
        except KeyboardInterrupt:
            logger.info("interrupted")
        except Closed:
            pass  # a thread failed, and its error is raised below
        finally:
            self._wind_down(threads)
        if self._errors:
            raise self._errors[0]
        if ending in (Ending.END, Ending.LIMIT):
            self._present()
        dropped = self._frames.dropped + self._prepared.dropped
        error = str(self._lost) if ending is Ending.LOST else ""
        return Outcome(ending, self._done, dropped, self._last - start, error)

    def _wind_down(self, threads: list[threading.Thread]) -> None:
        self._stop.set()
        self._source.cancel()
        self._frames.abort()
        self._prepared.abort()
        self._inferred.end()
        reader, preparer, finisher = threads
        while finisher.is_alive():  # it still has results to write; a second Ctrl-C ends the wait
            finisher.join(_POLL_S)
        preparer.join(_JOIN_S)
        reader.join(_JOIN_S)
        if reader.is_alive():
            logger.warning("source '%s' does not let go; it is left behind", self._source.name)

    def _guard(self, work: Callable[[], None], output: Exchange) -> None:  # type: ignore[type-arg]
        """Run a thread's work, and tell the caller's thread of its end or its error."""
        try:
            work()
        except Closed:
            pass
        except BaseException as exc:
            self._errors.append(exc)
            self._stop.set()
            self._inferred.abort()
        finally:
            output.end()

    def _read(self) -> None:
        try:
            while not self._stop.is_set():
                frame = self._source.read()
                self._heard = time.perf_counter()
                if frame is None:
                    return
                self._frames.put(frame)
                if self._limit is not None and not self._source.live and frame.index + 1 >= self._limit:
                    return
        except SourceError as exc:  # what was read before is still worth detecting
            self._lost = exc
        finally:
            self._source.close()

    def _prepare(self) -> None:
        while True:
            frame = self._frames.get()
            assert frame is not None
            start = time.perf_counter()
            tensor, where = self._detector.preprocess(frame.image)
            if self._source.live:
                tensor = tensor.copy()  # any number of newer ones may be prepared before this one is used
            self._prepared.put(_Prepared(frame, tensor, where, time.perf_counter() - start))

    def _infer(self) -> Ending:
        count = 0
        while not self._stop.is_set():
            try:
                prepared = self._prepared.get(_POLL_S)
            except Closed:
                break
            if prepared is None:
                if self._stalled():
                    break
            else:
                start = time.perf_counter()
                outputs = self._detector.infer(prepared.tensor)
                if self._detector.backend.reuses_outputs:  # the next inference overlaps with what follows this one
                    outputs = tuple(o.copy() for o in outputs)
                self._inferred.put(_Inferred(prepared, outputs, time.perf_counter() - start))
                count += 1
            if not self._present(wait=prepared is not None and self._source.still):
                return Ending.STOPPED
            if self._limit is not None and count >= self._limit:
                return Ending.LIMIT
        if self._stop.is_set():
            return Ending.STOPPED
        return Ending.LOST if self._lost else Ending.END

    def _stalled(self) -> bool:
        silent = time.perf_counter() - self._heard
        if silent > self._source.patience:
            self._lost = SourceError(
                f"source '{self._source.name}' stalled: no frame for {silent:.1f} s; check it, or wait longer with "
                "timeout="
            )
        return self._lost is not None

    def _present(self, *, wait: bool = False) -> bool:
        """Show the newest result if there is one, and return whether to go on."""
        if self._show is None:
            return True
        try:
            newest = self._shown.get(None if wait else 0)
        except Closed:
            return True
        return newest is None or self._show(newest)

    def _finish(self) -> None:
        while True:
            item = self._inferred.get()
            assert item is not None
            start = time.perf_counter()
            frame = item.prepared.frame
            detections = self._detector.postprocess(item.outputs, item.prepared.where)
            now = time.perf_counter()
            times = Times(frame.read_s, item.prepared.seconds, item.seconds, now - start)
            age = now - frame.captured if self._source.live else sum(times)
            result = Result(frame, detections, times, age)
            self._consume(result)
            self._done += 1
            self._last = time.perf_counter()
            if self._show is not None:
                self._shown.put(result)
