"""One loop over a video in a process of its own: our pipeline and its pure inference, or Ultralytics' ``predict``.

Both read the same video, detect with the same artifact and draw every frame; nothing is written.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PURE, SHARED, OURS, THEIRS = "pure inference", "pure inference of the workers", "yoloquant", "Ultralytics"
_TENSORS = 8


@dataclass(frozen=True)
class Job:
    """What a process runs.

    Attributes:
        artifact: File or folder of the artifact.
        video: The video.
        threads: Threads of an inference, or of our workers together, where they can be set; and of PyTorch.
        workers: Our inferences side by side; None lets ``predict`` choose.
        conf: Lowest score.
        precision: What OpenVINO computes float operations in, in our loop.
        theirs: Whether it runs Ultralytics' loop instead of ours.
        log: Receives what the process prints.
    """

    artifact: Path
    video: Path
    threads: int
    workers: int | None
    conf: float
    precision: str
    theirs: bool
    log: Path


@dataclass(frozen=True)
class Pass:
    """One pass over the video.

    Attributes:
        seconds: Wall time.
        cpu: Processor time, over all threads of the process.
        frames: Frames that came out.
        boxes: Detections on them.
        shares: Threads of each inference side by side; empty where they are not ours to set.
        steps: Median milliseconds of every step, where they are known.
    """

    seconds: float
    cpu: float
    frames: int
    boxes: int
    shares: tuple[int, ...] = ()
    steps: dict[str, float] = field(default_factory=dict)


def serve(job: Job, connection: Connection) -> None:
    """Make a pass of each kind that is asked for, until nothing is; sends a ``Pass`` or why it failed."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
    try:
        passes = _their_passes(job) if job.theirs else _our_passes(job)
        connection.send(None)  # ready
        while kind := connection.recv():
            start, busy = time.perf_counter(), time.process_time()
            frames, boxes, steps = passes[kind].run()
            seconds, cpu = time.perf_counter() - start, time.process_time() - busy
            connection.send(Pass(seconds, cpu, frames, boxes, passes[kind].shares, steps))
    except EOFError:
        return
    except Exception as exc:
        connection.send(f"{type(exc).__name__}: {exc}")


Found = tuple[int, int, dict[str, float]]


@dataclass(frozen=True)
class Kind:
    """One way to go over the video.

    Attributes:
        run: Goes over it and returns frames, detections and the steps' median milliseconds.
        shares: See ``Pass``.
    """

    run: Callable[[], Found]
    shares: tuple[int, ...] = ()


def _our_passes(job: Job) -> dict[str, Kind]:
    from yoloquant.inference.run_exports import ArtifactOpener
    from yoloquant.runtime.apps.bench import read_pictures
    from yoloquant.runtime.apps.running import Running
    from yoloquant.runtime.apps.workers import shares

    running = Running(job.threads, precision=job.precision, conf=job.conf)
    network = ArtifactOpener(str(job.artifact), running).network()
    threads = [count or job.threads for count in shares(job.workers, network, running, str(job.video))]
    workers = [replace(running, threads=count).open(network) for count in threads]
    single = workers[0] if len(workers) == 1 else running.open(network)
    tensors = [single.preprocess(p)[0].copy() for p in read_pictures(str(job.video), _TENSORS)]
    count = our_loop(workers, job.video)[0]  # warms up, too

    def pure(detectors: Sequence[Any]) -> Found:
        numbers = iter(range(count))  # next() of it is atomic, so every frame is run once

        def work(detector: Any) -> None:
            for index in numbers:
                detector.infer(tensors[index % len(tensors)])

        with ThreadPoolExecutor(len(detectors)) as pool:
            list(pool.map(work, detectors))
        return count, 0, {}

    pure([single])
    return {
        PURE: Kind(lambda: pure([single]), (job.threads,)),
        SHARED: Kind(lambda: pure(workers), tuple(threads)),
        OURS: Kind(lambda: our_loop(workers, job.video), tuple(threads)),
    }


def our_loop(detectors: Sequence[Any], video: Path) -> Found:
    """Run the pipeline that ``predict`` runs, with drawing and overlay but no output.

    Returns:
        Frames, detections and the steps' median milliseconds.
    """
    from yoloquant.runtime.apps.predict_summary import Consumer, summarize
    from yoloquant.runtime.apps.workers import pipeline_of
    from yoloquant.runtime.io.draw import Painter
    from yoloquant.runtime.io.open_source import open_source

    source, names = open_source(str(video)), detectors[0].info.names
    consumer = Consumer([], Painter(names), True, detectors[0].task)
    summary = summarize(pipeline_of(source, list(detectors), consumer).run(), consumer, names, source, ())
    return summary.outcome.frames, sum(summary.found.values()), summary.steps_ms


def _their_passes(job: Job) -> dict[str, Kind]:
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(job.threads)
    model = YOLO(str(job.artifact), task="detect")

    def loop() -> Found:
        speeds: dict[str, list[float]] = {}
        frames = boxes = 0
        for result in model.predict(
            str(job.video), stream=True, conf=job.conf, device="cpu", verbose=False, save=False, rect=False
        ):
            result.plot()
            frames, boxes = frames + 1, boxes + len(result.boxes)
            for step, spent in result.speed.items():
                speeds.setdefault(step, []).append(spent)
        return frames, boxes, {step: sorted(times)[len(times) // 2] for step, times in speeds.items()}

    loop()
    return {THEIRS: Kind(loop)}
