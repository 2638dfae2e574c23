"""What the processes of a distributed run tell each other; in a run of one process nothing is sent."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist

from ..errors import TrainingError

if TYPE_CHECKING:
    from .task_trainer import TaskTrainer


T = TypeVar("T")


def world_size() -> int:
    """Processes that train together."""
    # is_available: builds of torch without distributed training have no is_initialized
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process speaks for the run."""
    return world_size() == 1 or dist.get_rank() == 0


def from_first(value: T) -> T:
    """The first process's value, on every process."""
    if world_size() == 1:
        return value
    # torch broadcasts a list in place
    # any value, at the cost of pickling: what is told is small and sent once a run or an epoch
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: T) -> list[T]:
    """Every process's value in order of their ranks, on the first process; elsewhere this process's alone."""
    if world_size() == 1:
        return [value]
    # torch wants a list on the process that gathers and None on all others
    values: list[Any] | None = [None] * world_size() if is_first() else None
    dist.gather_object(value, values, dst=0)
    return [value] if values is None else values


def everywhere(condition: bool) -> bool:
    """Whether something holds on every process."""
    if world_size() == 1:
        return condition
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, condition)
    return all(values)


@contextmanager
def launching(trainer: TaskTrainer) -> Iterator[None]:
    """Let a trainer start the processes of its run, which find in its folder what was written there before.

    Ultralytics empties the folder of every run that is not resumed.

    Raises:
        TrainingError: One of them failed.
    """
    # the only flag that keeps Ultralytics from emptying the folder
    # what stands there is needed: the pruned checkpoint, the teacher and the settings
    resume, trainer.resume = trainer.resume, True
    try:
        yield
    except subprocess.CalledProcessError as exc:
        raise TrainingError(
            f"a process of the distributed run ended with code {exc.returncode}; its own message stands above"
        ) from exc
    finally:
        trainer.resume = resume
