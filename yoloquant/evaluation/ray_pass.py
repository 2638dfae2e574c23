"""A pass over the images in parts, which workers of a Ray cluster make and which are put together here."""

from __future__ import annotations

import pickle
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

from ..cluster import completed, processors, slots, task
from ..types import Progress
from .merge import merged
from .pass_job import PassJob, PassResult


class RayPass:
    """Makes passes on a cluster.

    Args:
        ray: The module, connected.
        threads: Threads of every runtime, and so processors of a worker.
        shards: In how many parts; as many as the cluster can make at a time if None.
    """

    def __init__(self, ray: Any, threads: int, shards: int | None = None) -> None:
        self.ray = ray
        # a demand that no machine meets would wait for one for ever
        self._cpus = min(threads, processors(ray)) or 1
        self._at_once = max(1, slots(ray, cpus=self._cpus))
        self._shards = shards or self._at_once
        self._task = task(ray, _part, cpus=self._cpus)

    def get_ready(self) -> None:
        """Let workers import what a part needs, which takes seconds, while models are opened and images read here."""
        ready = task(self.ray, _get_ready, cpus=self._cpus)
        for _ in range(min(self._shards, self._at_once)):
            ready.remote()

    def run(self, job: PassJob, progress: Progress | None = None) -> PassResult:
        """Make a pass; what comes of it is what ``PassJob.run`` gives.

        Args:
            job: The pass.
            progress: Called after every part.

        Raises:
            ClusterError: A part was lost with its worker again and again.
            YoloquantError: See ``evaluate``.
        """
        total = len(job.images)
        spans = shard(total, self._shards)
        # once in the cluster's memory, instead of with every task
        shared = self.ray.put(job)
        # behind it: what travels is traced first, and one process opens its models before its pass begins, too
        start = time.perf_counter()
        found: dict[range, PassResult] = {}
        for span, packed in completed(self.ray, {self._task.remote(shared, span): span for span in spans}):
            found[span] = pickle.loads(packed)
            if progress is not None:
                images = sum(len(each) for each in found)
                progress(images, total, f"{len(found)} of {len(spans)} parts")
        parts = [found[span] for span in spans]
        unopened = {name: text for part in reversed(parts) for name, text in part.unopened.items()}
        evaluations = [part.evaluation for part in parts]
        data = job.images.for_classes(evaluations[0].names)
        return PassResult(merged(evaluations, data, time.perf_counter() - start), unopened)


def shard(total: int, parts: int) -> list[range]:
    """Images that follow each other in so many parts of equal size, or one image each where there are fewer."""
    parts = max(1, min(parts, total))
    edges = [total * i // parts for i in range(parts + 1)]
    return [range(start, stop) for start, stop in pairwise(edges)]


def _get_ready() -> None:
    """Import what running a model needs, in a worker."""
    # a model that cannot be opened says so in its own row
    with suppress(ImportError):
        import torch.fx  # noqa: F401


def _part(job: PassJob, span: range) -> bytes:
    """Make a part, in a worker."""
    result = job.run(only=span)
    # the images are known where the parts are put together
    small = replace(result, evaluation=replace(result.evaluation, data=result.evaluation.data.take(0)))
    # bytes: arrays that Ray hands over lie in its own memory, read-only, and are gone when it shuts down
    return pickle.dumps(small)
