"""Capture, preprocessing, inference and drawing at the same time, each in a thread of its own.

The caller's thread runs the network, because some runtimes bind a model to the thread that loaded it, and shows
pictures, because windows belong to a program's first thread. OpenCV, numpy and the runtimes release Python's global
lock while they work, so the threads do run side by side.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.detector import Detector
from ..core.letterbox import Letterbox
from ..io.sources import Frame, Source
from .bounded_queue import BoundedQueue, Closed
from .pipeline_base import POLL_S, Ending, FrameResult, PipelineBase, RunOutcome, Times

__all__ = ["Ending", "FrameResult", "Pipeline", "RunOutcome", "Times"]


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


class Pipeline(PipelineBase):
    """Runs one detector over a source: a frame is prepared and another one finished while one is inferred.

    Args:
        source: Where frames come from; closed at the end.
        detector: The model; it stays open.
        consume: See ``PipelineBase``, as for the others.
        show: Called in the caller's thread.
        limit: Frames after which to stop.
    """

    def __init__(
        self,
        source: Source,
        detector: Detector,
        consume: Callable[[FrameResult], None],
        *,
        show: Callable[[FrameResult], bool] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(source, consume, show, limit, ahead=2)
        self._detector = detector
        # Of three tensors one is filled, one waits, and one is read by the network; a dropped one is free at once.
        self._free = deque(detector.backend.new_input() for _ in range(3))
        # Of a camera a newer image takes the place of one that waits: its age counts, not their number.
        self._prepared: BoundedQueue[_Prepared] = BoundedQueue(1, newest=source.live)
        # Never drops: what was inferred has been paid for, and `stop` promises that it is consumed.
        self._inferred: BoundedQueue[_Inferred] = BoundedQueue(1 if source.live else 2)

    def _workers(self) -> Sequence[tuple[Callable[[], None], Callable[[], None]]]:
        return [(self._prepare, self._prepared.end)]

    def _abort(self) -> None:
        self._inferred.abort()

    def _release(self) -> None:
        self._prepared.abort()
        self._inferred.end()

    def _dropped(self) -> int:
        return self._frames.dropped + self._prepared.dropped

    def _prepare(self) -> None:
        while True:
            frame = self._frames.get()
            assert frame is not None
            start = time.perf_counter()
            tensor, where = self._detector.preprocess(frame.image, self._free.popleft())
            dropped = self._prepared.put(_Prepared(frame, tensor, where, time.perf_counter() - start))
            if dropped is not None:
                self._free.append(dropped.tensor)

    def _attend(self) -> Ending:
        count = 0
        while not self._stop.is_set():
            try:
                prepared = self._prepared.get(POLL_S)
            except Closed:
                break
            if prepared is None:
                if self._stalled():
                    break
            else:
                start = time.perf_counter()
                outputs = self._detector.infer(prepared.tensor)
                self._free.append(prepared.tensor)
                if self._detector.backend.reuses_outputs:  # the next inference overlaps with what follows this one
                    outputs = tuple(o.copy() for o in outputs)
                self._inferred.put(_Inferred(prepared, outputs, time.perf_counter() - start))
                count += 1
            # Images of a folder are looked at one by one, so each is waited for; of a video the newest is enough.
            if not self._present(wait=prepared is not None and self._source.still):
                return Ending.STOPPED
            if self._limit is not None and count >= self._limit:
                return Ending.LIMIT
        if self._stop.is_set():
            return Ending.STOPPED
        return Ending.LOST if self._lost else Ending.END

    def _finish(self) -> None:
        while True:
            item = self._inferred.get()
            assert item is not None
            start, frame = time.perf_counter(), item.prepared.frame
            detections = self._detector.postprocess(item.outputs, item.prepared.where)
            after = time.perf_counter() - start
            self._deliver(frame, detections, Times(frame.read_s, item.prepared.seconds, item.seconds, after))
