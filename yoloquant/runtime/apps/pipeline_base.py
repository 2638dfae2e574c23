"""What every way of running a detector over a source has in common: reading, finishing, errors and the end."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ..core.detections import Detections
from ..errors import SourceError
from ..io.sources import Frame, Source
from .bounded_queue import BoundedQueue, Closed

logger = logging.getLogger(__name__)

POLL_S = 0.2
"""How long a wait for a frame may delay Ctrl-C, a stall's report and the window's keys."""

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
class FrameResult:
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
class RunOutcome:
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


class PipelineBase(ABC):
    """Runs a network over a source. For one use.

    Args:
        source: Where frames come from; closed at the end.
        consume: Called with every result, in order, in a thread of its own: draws and writes.
        show: Called in the caller's thread with the newest result that was consumed, of still images with every one,
            else with the last one at least; it returns whether to go on.
        limit: Frames after which to stop.
        ahead: Frames of a file that are read ahead; of a live source only the newest one waits.
    """

    def __init__(
        self,
        source: Source,
        consume: Callable[[FrameResult], None],
        show: Callable[[FrameResult], bool] | None,
        limit: int | None,
        ahead: int,
    ) -> None:
        self._source, self._consume, self._show, self._limit = source, consume, show, limit
        self._stop = threading.Event()
        # of a camera an old frame is worth nothing: detections of it would describe what was
        self._frames: BoundedQueue[Frame] = BoundedQueue(1 if source.live else ahead, newest=source.live)
        self._shown: BoundedQueue[FrameResult] = BoundedQueue(1, newest=True)
        self._asked = math.inf  # since when the source has been asked for a frame; in the future while it is not
        self._last = time.perf_counter()
        self._done = 0
        self._errors: list[BaseException] = []
        self._lost: SourceError | None = None

    def stop(self) -> None:
        """Ask the run to end; frames that were inferred are still consumed. May be called from anywhere."""
        self._stop.set()

    def run(self) -> RunOutcome:
        """Run until the source ends, the limit is reached, ``stop`` is called or Ctrl-C is pressed.

        Returns:
            How it went; also for a source that failed on the way, with what was done until then.

        Raises:
            YoloquantError: The network or the consumer failed.
        """
        start = self._last = time.perf_counter()
        reader = self._thread(self._read, self._frames.end)
        workers = [self._thread(work, end) for work, end in self._workers()]
        finisher = self._thread(self._finish, self._shown.end)
        for thread in (reader, *workers, finisher):
            thread.start()
        # What holds where Ctrl-C comes before `_attend` can say anything.
        ending = Ending.STOPPED
        try:
            ending = self._attend()
        # an ordinary way to end a camera: what was inferred is still written, and the files are closed
        except KeyboardInterrupt:
            logger.info("interrupted")
        except Closed:
            pass  # a thread failed, and its error is raised below
        finally:
            self._wind_down(reader, workers, finisher)
        if self._errors:
            # The first: further ones follow from it.
            raise self._errors[0]
        # The last result may have come after the last look at the window.
        if ending in (Ending.END, Ending.LIMIT):
            self._present()
        error = str(self._lost) if ending is Ending.LOST else ""
        return RunOutcome(ending, self._done, self._dropped(), self._last - start, error)

    @abstractmethod
    def _workers(self) -> Sequence[tuple[Callable[[], None], Callable[[], None]]]:
        """What the threads between reader and finisher do, and what each calls when it is through."""

    @abstractmethod
    def _attend(self) -> Ending:
        """What the caller's thread does until the run ends; returns why it did."""

    @abstractmethod
    def _finish(self) -> None:
        """Deliver every result, in order, until no more come."""

    @abstractmethod
    def _abort(self) -> None:
        """Make the finisher end at once, and all that wait for it, because a thread failed."""

    @abstractmethod
    def _release(self) -> None:
        """Let the threads end once nothing is read any more; what was inferred is still delivered."""

    def _dropped(self) -> int:
        return self._frames.dropped

    def _wind_down(
        self, reader: threading.Thread, workers: Sequence[threading.Thread], finisher: threading.Thread
    ) -> None:
        self._stop.set()
        # before the queues: the reader may be waiting inside the source
        self._source.cancel()
        self._frames.abort()
        self._release()
        while finisher.is_alive():  # it still has results to write; a second Ctrl-C ends the wait
            finisher.join(POLL_S)
        for thread in (*workers, reader):
            thread.join(_JOIN_S)
        if reader.is_alive():
            logger.warning("source '%s' does not let go; it is left behind", self._source.name)

    def _thread(self, work: Callable[[], None], end: Callable[[], None]) -> threading.Thread:
        # daemon: a camera's driver that hangs in a read must not keep the process alive
        return threading.Thread(target=self._guard, args=(work, end), daemon=True)

    def _guard(self, work: Callable[[], None], end: Callable[[], None]) -> None:
        """Run a thread's work, and tell the caller's thread of its end or its error."""
        try:
            work()
        except Closed:
            pass
        # whatever it is, it must reach the caller's thread: an exception in a thread ends nothing by itself
        except BaseException as exc:
            self._errors.append(exc)
            self._stop.set()
            self._abort()
        finally:
            end()

    def _read(self) -> None:
        try:
            while not self._stop.is_set():
                self._asked = time.perf_counter()
                frame = self._source.read()
                self._asked = math.inf
                if frame is None:
                    return
                self._frames.put(frame)
                # a live source drops frames, so only those that came through count there
                if self._limit is not None and not self._source.live and frame.index + 1 >= self._limit:
                    return
        except SourceError as exc:  # what was read before is still worth detecting
            self._lost = exc
        finally:
            self._asked = math.inf
            # Here and not by whoever ends the run: a source is read and closed by one thread (see `Source`).
            self._source.close()

    def _stalled(self) -> bool:
        silent = time.perf_counter() - self._asked
        if silent <= self._source.stall_timeout:
            return False
        self._lost = SourceError(
            f"source '{self._source.name}' stalled: no frame for {silent:.1f} s; check it, or wait longer with timeout="
        )
        return True

    def _present(self, *, wait: bool = False) -> bool:
        """Show the newest result if there is one, and return whether to go on."""
        if self._show is None:
            return True
        try:
            newest = self._shown.get(None if wait else 0)
        except Closed:
            return True
        return newest is None or self._show(newest)

    def _deliver(self, frame: Frame, detections: Detections, times: Times) -> None:
        """Hand a result to the consumer, and then to whoever shows it."""
        age = time.perf_counter() - frame.captured if self._source.live else sum(times)
        result = FrameResult(frame, detections, times, age)
        self._consume(result)
        # Only now: an output that failed has not got the frame.
        self._done += 1
        self._last = time.perf_counter()
        if self._show is not None:
            with contextlib.suppress(Closed):  # nobody looks any more, but results are still written
                self._shown.put(result)
