"""The parts of an analysis, measured by workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch

from ..cluster import completed, processors, task
from .parts import Part, Subject


def measured_on(
    ray: Any, subject: Subject, make: Callable[[], Subject], parts: Sequence[Part]
) -> Iterator[tuple[Part, tuple[float, str]]]:
    """Parts and what ``Subject.measure`` gives of them, in the order in which workers are through with them.

    Args:
        ray: The module, connected.
        subject: What is measured, as this process has it.
        make: Makes it; every worker has one of its own.
        parts: Which parts.

    Raises:
        ClusterError: Workers are lost again and again.
    """
    # as many as here: sums in another order are rounded otherwise
    threads = torch.get_num_threads()
    measure = task(ray, _measure, cpus=min(threads, processors(ray)) or 1)
    # in a list: of an argument of its own Ray would make a new copy for every part
    shared = [ray.put(make)]
    yield from completed(ray, {measure.remote(shared, part, threads): part for part in parts})


def _measure(shared: list[Any], part: Part, threads: int) -> tuple[float, str]:
    """Measure a part, in a worker."""
    torch.set_num_threads(threads)
    return _kept(shared[0]).measure(part)


@lru_cache(maxsize=1)
def _kept(reference: Any) -> Subject:
    """The subject of this worker's earlier parts, with what they have computed."""
    import ray

    make: Callable[[], Subject] = ray.get(reference)
    return make()
