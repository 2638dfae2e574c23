"""One kind of training in a process of its own, which takes a few real steps whenever it is told to.

The real trainer runs; callbacks hold it before every step and time that step. Nothing is validated, saved or plotted,
and augmentation draws the same random numbers in every process.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK_OF_RESIDENT = "5"  # proc_pid_clear_refs(5)


@dataclass(frozen=True)
class Job:
    """What a process trains.

    Attributes:
        checkpoint: Float checkpoint that carries the plans.
        arguments: Of Ultralytics' training; the same for everybody but what makes the kind of training.
        qat: Settings of our trainer; None for Ultralytics' own.
        threads: Of torch.
        log: Receives what the process prints.
    """

    checkpoint: Path
    arguments: dict[str, Any]
    qat: dict[str, Any] | None
    threads: int
    log: Path


@dataclass
class Turn:
    """What a process measured when it was told to take steps.

    Attributes:
        seconds: Of each step: preprocessing, forward, loss, backward, optimizer and averaging.
        busy: Processor seconds of each step, over all threads.
        phases: Seconds of each step by phase; empty on a GPU, where phases overlap.
        images: Checksum of each step's batch.
        peak_mb: Most memory in use during these steps: of the process, or of its tensors on a GPU; NaN if unknown.
        base_mb: Memory before the model was loaded; 0 on a GPU.
    """

    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    peak_mb: float = float("nan")
    base_mb: float = 0.0


class _Finished(Exception):
    """Leaves the trainer's loop."""


def serve(job: Job, connection: Connection) -> None:
    """Train, taking as many steps as each received number says, until that is 0.

    Sends a ``Turn`` for each, or why it failed.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
    try:
        trainer = _trainer(job)
        _Meter(trainer, job.threads, connection).prepare_qat()
        trainer.train()
        connection.send("the run ended by itself")
    except _Finished:
        pass
    except Exception as exc:
        connection.send(f"{type(exc).__name__}: {exc}")
        raise


def _trainer(job: Job) -> Any:
    from ultralytics import YOLO

    given = {**job.arguments, "model": str(job.checkpoint), "mode": "train"}
    if job.qat is None:
        host = YOLO(str(job.checkpoint))
        return host.task_map[host.task]["trainer"](overrides={**given, "task": host.task})
    from yoloquant.training.qat.trainer import QATTrainer

    trainer: Any = QATTrainer(overrides={**given, "task": YOLO(str(job.checkpoint)).task, "qat": job.qat})
    trainer.score = lambda epoch: None  # as in the workers of a distributed run: nothing is validated
    return trainer


class _Meter:
    """Holds a trainer before each step until it may go on, and times the step."""

    def __init__(self, trainer: Any, threads: int, connection: Connection) -> None:
        self.trainer, self.threads, self.connection = trainer, threads, connection
        self.on_gpu = trainer.device.type == "cuda"
        self.base = 0.0 if self.on_gpu else _resident("VmRSS")
        self.turn, self.left = Turn(), -1
        self.marks: dict[str, float] = {}
        self.started = 0.0
        self.batch: Any = None

    def prepare_qat(self) -> None:
        """Register everything with the trainer."""
        self.trainer.add_callback("on_train_start", self._begin)
        self.trainer.add_callback("on_train_epoch_start", self._seed)
        self.trainer.add_callback("on_train_batch_start", self._before)
        self.trainer.add_callback("on_train_batch_end", self._after)
        self.trainer.preprocess_batch = self._see(self.trainer.preprocess_batch)
        self.trainer.optimizer_step = self._marked("backward", self.trainer.optimizer_step)

    def _begin(self, trainer: Any) -> None:
        import torch

        torch.set_num_threads(self.threads)  # Ultralytics sets its own number when it selects the device
        trainer.model.register_forward_hook(lambda *_: self._mark("forward"))

    def _seed(self, trainer: Any) -> None:
        """Trainers draw, and shuffle, in their own ways; here all of them go on from the same numbers."""
        import torch
        from ultralytics.utils.torch_utils import init_seeds

        seed = trainer.args.seed + trainer.epoch
        init_seeds(seed, deterministic=trainer.args.deterministic)
        sampler: Any = getattr(trainer.train_loader, "sampler", None)
        if hasattr(sampler, "generator"):
            sampler.generator = torch.Generator().manual_seed(seed)

    def _before(self, trainer: Any) -> None:
        if self.left <= 0:
            if self.left == 0:
                self.turn.peak_mb = self._peak()
                self.connection.send(self.turn)
            self.left = int(self.connection.recv())
            if self.left == 0:
                raise _Finished
            self.turn = Turn(base_mb=self.base)
            self._forget_peak()
        self._synchronize()
        self.started = time.process_time()
        self.marks = {"start": time.perf_counter()}

    def _after(self, trainer: Any) -> None:
        self._synchronize()
        self._mark("optimizer")
        self.turn.busy.append(time.process_time() - self.started)
        self.turn.seconds.append(self.marks["optimizer"] - self.marks["start"])
        if not self.on_gpu:
            self.turn.phases.append(_differences(self.marks))
        self.turn.images.append(zlib.crc32(self.batch.numpy().tobytes()))
        self.batch = None
        self.left -= 1

    def _mark(self, name: str) -> None:
        self.marks[name] = time.perf_counter()

    def _marked(self, name: str, call: Callable[[], None]) -> Callable[[], None]:
        def marked() -> None:
            self._mark(name)
            call()

        return marked

    def _see(self, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def seen(batch: Any) -> Any:
            self.batch = batch["img"]  # integers, which preprocessing replaces
            return call(batch)

        return seen

    def _synchronize(self) -> None:
        if self.on_gpu:
            import torch

            torch.cuda.synchronize(self.trainer.device)

    def _peak(self) -> float:
        if not self.on_gpu:
            return _resident("VmHWM")
        import torch

        return float(torch.cuda.max_memory_allocated(self.trainer.device)) / 1e6

    def _forget_peak(self) -> None:
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats(self.trainer.device)
        elif _CLEAR.exists():
            _CLEAR.write_text(_PEAK_OF_RESIDENT, encoding="ascii")


def _differences(marks: dict[str, float]) -> dict[str, float]:
    """Seconds between each mark and the one before it."""
    return {name: marks[name] - marks[before] for before, name in itertools.pairwise(marks)}


def _resident(field_name: str) -> float:
    """A memory field of this process in MB (1e6 bytes); NaN where the system does not tell."""
    if not _STATUS.exists():
        return float("nan")
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field_name}:"):
            return float(line.split()[1]) * 1024 / 1e6
    return float("nan")
