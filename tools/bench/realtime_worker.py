"""One loop over a video in a process of its own: our pipeline and its pure inference, or Ultralytics' ``predict``.

Both read the same video, detect with the same artifact and draw every frame; nothing is written.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PURE, OURS, THEIRS = "pure inference", "yoloquant", "Ultralytics"
_TENSORS = 8


@dataclass(frozen=True)
class Job:
    """What a process runs.

    Attributes:
        artifact: File or folder of the artifact.
        video: The video.
        threads: Threads of an inference, where they can be set, and of PyTorch.
        conf: Lowest score.
        precision: What OpenVINO computes float operations in, in our loop.
        theirs: Whether it runs Ultralytics' loop instead of ours.
        log: Receives what the process prints.
    """

    artifact: Path
    video: Path
    threads: int
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
        steps: Median milliseconds of every step, where they are known.
    """

    seconds: float
    cpu: float
    frames: int
    boxes: int
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
            frames, boxes, steps = passes[kind]()
            seconds, cpu = time.perf_counter() - start, time.process_time() - busy
            connection.send(Pass(seconds, cpu, frames, boxes, steps))
    except EOFError:
        return
    except Exception as exc:
        connection.send(f"{type(exc).__name__}: {exc}")


Run = Callable[[], tuple[int, int, dict[str, float]]]


def _our_passes(job: Job) -> dict[str, Run]:
    from yoloquant.live import ArtifactOpener
    from yoloquant.runtime.bench import read_pictures
    from yoloquant.runtime.running import Running

    detector = ArtifactOpener(str(job.artifact), Running(job.threads, precision=job.precision, conf=job.conf))()
    tensors = [detector.preprocess(p)[0].copy() for p in read_pictures(str(job.video), _TENSORS)]
    count = our_loop(detector, job.video)[0]  # warms up, too

    def pure() -> tuple[int, int, dict[str, float]]:
        for index in range(count):
            detector.infer(tensors[index % len(tensors)])
        return count, 0, {}

    return {PURE: pure, OURS: lambda: our_loop(detector, job.video)}


def our_loop(detector: Any, video: Path) -> tuple[int, int, dict[str, float]]:
    """Run the pipeline that ``predict`` runs, with drawing and overlay but no output.

    Returns:
        Frames, detections and the steps' median milliseconds.
    """
    from yoloquant.runtime.draw import Painter
    from yoloquant.runtime.open_source import open_source
    from yoloquant.runtime.pipeline import Pipeline
    from yoloquant.runtime.predict_summary import Consumer, summarize

    source = open_source(str(video))
    consumer = Consumer([], Painter(detector.info.names), overlay=True)
    summary = summarize(Pipeline(source, detector, consumer).run(), consumer, detector.info.names, source, ())
    return summary.outcome.frames, sum(summary.found.values()), summary.steps_ms


def _their_passes(job: Job) -> dict[str, Run]:
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(job.threads)
    model = YOLO(str(job.artifact), task="detect")

    def loop() -> tuple[int, int, dict[str, float]]:
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
    return {THEIRS: loop}
