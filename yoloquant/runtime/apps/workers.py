"""How many detectors work side by side on a source, and how they share the cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from ..backends import backend_class
from ..core.detector import Detector
from ..device.processors import cpu_threads
from ..errors import UsageError
from ..io.open_source import can_wait
from ..io.sources import Source
from .pipeline import Pipeline
from .pipeline_base import FrameResult, PipelineBase
from .pipeline_workers import WorkerPipeline
from .running import RunnableModel, Running

MOST = 4
"""Workers that are chosen without being asked for: each holds the network in memory once more."""


def shares(workers: int | None, network: RunnableModel, running: Running, source: str) -> list[int | None]:
    """Threads of each worker.

    Unless told otherwise, there is one worker for each thread, at most ``MOST``, where the frames of a source can
    wait and the network runs on the processor: that gives the most frames per second. Otherwise there is one with all
    threads: that gives each frame the shortest time, which is what counts for a camera.

    Args:
        workers: How many were asked for; None to choose.
        network: What they run.
        running: How; its ``threads`` are shared out.
        source: See ``open_source``.

    Raises:
        UsageError: Several were asked for on a device that runs one inference at a time.
    """
    kind = backend_class(network.backend) if isinstance(network.backend, str) else network.backend
    on_cpu = kind.on_cpu(network.path, running.device)
    if workers is not None and workers > 1 and not on_cpu:
        raise UsageError(
            f"workers={workers} is not supported: {network.backend} does not run '{network.path.name}' on the "
            "processor, and other devices run one inference at a time; allowed is workers=1"
        )
    threads = running.threads or cpu_threads()
    if workers is None:
        workers = min(threads, MOST) if on_cpu and can_wait(source) else 1
    if workers == 1:
        # None stays None: the runtime then counts for itself.
        return [running.threads]
    # The rest goes to the first ones; where more workers than threads were asked for, each still needs one.
    return [max(threads // workers + (index < threads % workers), 1) for index in range(workers)]


@contextmanager
def open_workers(network: RunnableModel, running: Running, threads: list[int | None]) -> Iterator[list[Detector]]:
    """Load a network once for each worker; all are closed in the end.

    Args:
        network: What to load.
        running: How it is run.
        threads: Threads of each; see ``shares``.

    Raises:
        YoloquantError: See ``open_backend``.
    """
    with ExitStack() as stack:
        yield [stack.enter_context(replace(running, threads=count).open(network)) for count in threads]


def pipeline_of(
    source: Source,
    detectors: list[Detector],
    consume: Callable[[FrameResult], None],
    *,
    show: Callable[[FrameResult], bool] | None = None,
    limit: int | None = None,
) -> PipelineBase:
    """What runs them: one detector with its steps overlapped, or several side by side."""
    if len(detectors) == 1:
        return Pipeline(source, detectors[0], consume, show=show, limit=limit)
    return WorkerPipeline(source, detectors, consume, show=show, limit=limit)
