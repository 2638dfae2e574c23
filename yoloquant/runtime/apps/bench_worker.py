"""One artifact in a process of its own, which runs a few images whenever it is told to."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..device.sensors import memory
from ..errors import TargetError, YoloquantError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from ..core.detector import Detector
    from .running import Running

    Opener = Callable[[], Detector]
else:
    Opener = object

# Not what is expected, but what ends a runtime that hangs: loading may mean compiling for a device first.
START_S, TURN_S, END_S = 600.0, 600.0, 10.0


@dataclass(frozen=True)
class Turn:
    """What a process measured in one turn.

    Attributes:
        seconds: (runs, 3): preprocessing, inference and postprocessing of each image.
        wall_s: Of the turn.
        cpu_s: Processor time of the turn, over all threads of the process.
        memory_mb: Resident memory afterwards; None if unknown.
    """

    seconds: np.ndarray = field(repr=False)
    wall_s: float
    cpu_s: float
    memory_mb: float | None


class Worker:
    """The process of one artifact.

    Args:
        opener: Loads the artifact there; must survive pickling.
        pictures: BGR images.
        cores: Cores that it may use; all if empty.

    Attributes:
        facts: What it said of the artifact.
    """

    def __init__(self, opener: Opener, pictures: Sequence[np.ndarray], cores: Sequence[int] = ()) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share the runtimes' threads and locks
        self.facts: dict[str, Any] = {}
        self._connection, theirs = context.Pipe()
        # daemon: it ends with this process, also where nobody comes to `close`.
        self._process = context.Process(target=serve, args=(theirs, opener, list(pictures), tuple(cores)), daemon=True)
        # kept until the process has started: it is pickled into it
        self._theirs = theirs

    def start(self, warmup: int) -> None:
        """Load the artifact and warm it up.

        Raises:
            TargetError: It cannot be loaded or run.
        """
        self._process.start()
        self._theirs.close()  # so that its end is noticed
        self.facts = self._ask(warmup, START_S)

    def turn(self, runs: int) -> Turn:
        """Run some images.

        Raises:
            TargetError: It failed.
        """
        return self._ask(runs, TURN_S)  # type: ignore[no-any-return]

    def _ask(self, count: int, timeout: float) -> Any:
        try:
            self._connection.send(count)
            if not self._connection.poll(timeout):
                raise TargetError(f"no answer for {timeout:.0f} s; the runtime hangs")
            good, answer = self._connection.recv()
        except (EOFError, OSError) as exc:
            self._process.join(END_S)
            raise TargetError(f"its process ended with code {self._process.exitcode}; the runtime crashed") from exc
        if not good:
            raise TargetError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.pid is None:
            return
        with contextlib.suppress(OSError):  # it may have ended
            self._connection.send(0)
        self._process.join(END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()


def serve(connection: Connection, opener: Opener, pictures: Sequence[np.ndarray], cores: Sequence[int]) -> None:
    """Load an artifact and run as many images as each received number says, until that is 0."""
    try:
        # before the runtime is loaded: its threads take over what this one may use
        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
        # with the interpreter and its modules in memory: the difference is the model's
        before, _ = memory()
        detector = opener()
        if reason := getattr(detector.backend, "untimed", ""):
            detector.close()
            raise TargetError(reason)
        measure(detector, pictures, connection.recv())
        connection.send((True, _facts(detector, getattr(opener, "running", None), before)))
        while (runs := connection.recv()) > 0:
            connection.send((True, measure(detector, pictures, runs)))
        detector.close()
    except (EOFError, KeyboardInterrupt):
        pass  # whoever asked is gone
    except YoloquantError as exc:
        # As text: an exception class of a runtime need not survive pickling.
        connection.send((False, str(exc)))
    except Exception as exc:
        connection.send((False, f"{type(exc).__name__}: {exc}"))


def measure(detector: Detector, pictures: Sequence[np.ndarray], runs: int) -> Turn:
    """Run images one after the other; a first one, not counted, wakes threads and caches after a pause."""
    detector(pictures[0])
    seconds = np.empty((runs, 3))
    # processor time of all threads: a runtime that spins while it waits shows here
    wall, cpu = time.perf_counter(), time.process_time()
    for index in range(runs):
        picture = pictures[index % len(pictures)]
        start = time.perf_counter()
        tensor, where = detector.preprocess(picture)
        prepared = time.perf_counter()
        outputs = detector.infer(tensor)
        inferred = time.perf_counter()
        detector.postprocess(outputs, where)
        seconds[index] = prepared - start, inferred - prepared, time.perf_counter() - inferred
    # At once: asking for the memory takes processor time itself.
    used = time.process_time() - cpu
    return Turn(seconds, time.perf_counter() - wall, used, memory()[0])


def _facts(detector: Detector, running: Running | None, before: float | None) -> dict[str, Any]:
    backend, (after, _) = detector.backend, memory()
    return {
        "backend": backend.name,
        "runtime": f"{backend.name} {backend.version.split('-')[0]}",
        "input_shape": list(backend.input_shape),
        "input_dtype": str(np.dtype(backend.input_dtype)),
        "imgsz": list(detector.info.imgsz),
        "conf": detector.selection.conf,
        "iou": detector.selection.iou,
        "threads": running.threads if running else None,
        "device": running.device if running else "",
        "hint": running.hint if running else "",
        "precision": running.precision if running else "",
        "model_mb": None if before is None or after is None else after - before,
    }
