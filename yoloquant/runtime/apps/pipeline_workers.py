"""Several detectors of one model side by side, each with a share of the cores, for sources whose frames can wait.

Small layers of a network do not gain from a second thread, and threads of one inference wait for one another after
every layer; two inferences at a time do not. So N workers with one thread each finish more frames per second than one
inference after the other with N threads, although each frame takes longer. A worker takes a frame through
preprocessing, network and selection; results are put back into the order of the frames.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..core.detections import Detections
from ..core.detector import Detector
from ..io.sources import Frame, Source
from .bounded_queue import BoundedQueue, Closed
from .pipeline_base import POLL_S, Ending, FrameResult, PipelineBase, Times
from .reorder_buffer import InOrder


@dataclass(frozen=True)
class _Found:
    frame: Frame
    detections: Detections
    times: Times


class WorkerPipeline(PipelineBase):
    """Runs several detectors of one model over a source.

    At most four frames for each worker are on their way: one read ahead, one at work, and two that wait for their
    turn, so that a worker which the system holds up does not hold up the others at once.

    Args:
        source: Where frames come from; closed at the end.
        detectors: One for each worker; they stay open.
        consume: See ``PipelineBase``, as for the others.
        show: Called in the caller's thread.
        limit: Frames after which to stop.
    """

    def __init__(
        self,
        source: Source,
        detectors: Sequence[Detector],
        consume: Callable[[FrameResult], None],
        *,
        show: Callable[[FrameResult], bool] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(source, consume, show, limit, ahead=len(detectors))
        self._detectors = tuple(detectors)
        # Two places for each worker: they wait for their turn while the worker that holds them up is still at work.
        self._found: InOrder[_Found] = InOrder(2 * len(detectors), producers=len(detectors))
        # Every still image is shown, so `put` waits for the window; of a video the newest is enough.
        self._shown: BoundedQueue[FrameResult] = BoundedQueue(1, newest=not source.still)
        self._taking, self._taken = threading.Lock(), 0

    def _workers(self) -> Sequence[tuple[Callable[[], None], Callable[[], None]]]:
        return [(partial(self._work, detector), self._found.end) for detector in self._detectors]

    def _abort(self) -> None:
        self._found.abort()

    def _release(self) -> None:
        # A finisher that waits for somebody to look would never write what is left.
        self._shown.abort()

    def _take(self) -> tuple[int, Frame]:
        """The next frame and its place among the results."""
        # place and frame under one lock, or two workers could take frames in one order and places in the other
        with self._taking:
            if self._stop.is_set() or self._enough():
                raise Closed
            frame = self._frames.get()
            assert frame is not None
            self._taken += 1
            return self._taken - 1, frame

    def _enough(self) -> bool:
        return self._limit is not None and self._taken >= self._limit

    def _work(self, detector: Detector) -> None:
        while True:
            place, frame = self._take()
            start = time.perf_counter()
            tensor, where = detector.preprocess(frame.image)
            prepared = time.perf_counter()
            outputs = detector.infer(tensor)
            inferred = time.perf_counter()
            # in the worker too: selection takes its share of a core, and one finisher would become the bottleneck
            found = detector.postprocess(outputs, where)
            times = Times(frame.read_s, prepared - start, inferred - prepared, time.perf_counter() - inferred)
            self._found.put(place, _Found(frame, found, times))

    def _attend(self) -> Ending:
        """Show results as they come; they end when the last worker has."""
        while not self._stop.is_set():
            try:
                result = self._shown.get(POLL_S)
            except Closed:
                break
            if result is None:
                if self._stalled():
                    break
            elif self._show is not None and not self._show(result):
                return Ending.STOPPED
        if self._stop.is_set():
            return Ending.STOPPED
        if self._lost:
            return Ending.LOST
        return Ending.LIMIT if self._enough() else Ending.END

    def _finish(self) -> None:
        while True:
            found = self._found.get()
            self._deliver(found.frame, found.detections, found.times)
