"""A Ray cluster: one that runs already, or one of this machine for as long as it is needed."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Generic, TypeVar

from .errors import ClusterError, UsageError, YoloquantError

T = TypeVar("T")

RETRIES = 3
"""So often a task is begun again whose worker was lost."""
_SECONDS = 10
_SETTINGS = {
    # Ray 2.60 gives workers a niceness of 15: beside anything else that computes here they hardly get on
    "RAY_worker_niceness": "0",
    # and starts one for every processor before there are tasks: a task may get one of those instead of one made ready
    "RAY_prestart_worker_first_driver": "0",
}
"""What workers of a cluster that is started here are told, unless somebody chose otherwise."""


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, unless this process is connected already, and leave it afterwards.

    Args:
        address: Of the cluster (``auto``, ``ray://head:10001``, ``host:6379``); None starts one here.

    Yields:
        The module ``ray``.

    Raises:
        UsageError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _module()
    # whoever connected disconnects: the caller may have work of its own on the cluster
    if ray.is_initialized():
        yield ray
        return
    if address is not None:
        _require_answer(address)
    # of a cluster that lives as long as the study; that of a running one is its own affair
    quiet: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    try:
        with _own_settings():
            # not to the driver: the lines of every worker would run through the command's progress
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as exc:
        where = "a cluster cannot be started here" if address is None else f"no Ray cluster answers at '{address}'"
        raise UsageError(
            f"{where} ({' '.join(str(exc).split())[:200]}); start one with 'ray start --head', or leave address= out"
        ) from exc
    try:
        yield ray
    finally:
        ray.shutdown()


class Connection(Generic[T]):
    """A cluster that is being connected to; calling it waits until then.

    Args:
        begin: Connects, and gives what the caller asked for.
        end: Leaves the cluster.
    """

    def __init__(self, begin: Callable[[], T], end: Callable[[], object]) -> None:
        # one thread: the cluster must not be left while it is still being started
        self._thread, self._end = ThreadPoolExecutor(1), end
        self._begun = self._thread.submit(begin)
        self._left: Future[object] | None = None

    def __call__(self) -> T:
        """What the caller asked for, as soon as it is connected."""
        return self._begun.result()

    def leave(self) -> Future[object]:
        """Begin to leave; the caller, who needs no more of it, may go on or wait for what this returns."""
        if self._left is None:
            self._left = self._thread.submit(self._end)
        return self._left

    def close(self) -> None:
        """Leave, unless that was done, and wait until it is."""
        with self._thread:
            left = self.leave()
        left.result()


@contextmanager
def connecting(address: str | None, use: Callable[[Any], T]) -> Iterator[Connection[T]]:
    """Connect to a cluster while the caller goes on; starting one takes seconds of waiting.

    One that runs already is asked before the caller goes on: it may not answer.

    Args:
        address: See ``connected``.
        use: Called with the module ``ray`` as soon as it is connected.

    Yields:
        Waits until then, and gives what ``use`` returned.

    Raises:
        UsageError: Ray is not installed, or the cluster cannot be reached; one that cannot be started says so where it
            is waited for.
    """
    _module()  # here: what is missing is said at once, and imports in two threads hinder each other
    stack = ExitStack()
    connection = Connection(lambda: use(stack.enter_context(connected(address))), stack.close)
    try:
        if address is not None:
            connection()
        yield connection
    finally:
        connection.close()


def _module() -> Any:
    """Ray.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import ray
    except ImportError as exc:
        raise UsageError(
            'on=ray needs Ray, which is not installed; install it with: pip install "yoloquant[ray]"'
        ) from exc
    return ray


@contextmanager
def _own_settings() -> Iterator[None]:
    """Start a cluster with ``_SETTINGS``."""
    ours = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]  # programs that are started later are none of this cluster's


def slots(ray: Any, *, cpus: float, gpus: float = 0) -> int:
    """How many tasks with such needs run at a time where the cluster has nothing else to do.

    Args:
        ray: The module, connected.
        cpus: Processors of a task.
        gpus: GPUs of a task.
    """
    needs = {"CPU": cpus, "GPU": gpus}
    return sum(min(int(has.get(k, 0) // need) for k, need in needs.items() if need) for has in _machines(ray))


def require_room(ray: Any, *, cpus: float, gpus: float) -> None:
    """Refuse needs that no machine meets: Ray would wait for one for ever, and say nothing.

    Raises:
        UsageError: No machine has so much.
    """
    if not slots(ray, cpus=cpus, gpus=gpus):
        most = " and ".join(f"{max(has.get(kind, 0) for has in _machines(ray)):g} {kind}s" for kind in ("CPU", "GPU"))
        raise UsageError(
            f"no machine of the cluster has the cpus={cpus:g} and gpus={gpus:g} of a trial (at most {most}); give less"
        )


def processors(ray: Any) -> float:
    """Processors of the machine of the cluster that has most."""
    return max(has.get("CPU", 0.0) for has in _machines(ray))


def _machines(ray: Any) -> list[dict[str, float]]:
    """What every machine of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def task(ray: Any, function: Callable[..., Any], *, cpus: float, gpus: float = 0) -> Any:
    """A function as a task, which is begun again where its worker is lost.

    Args:
        ray: The module, connected.
        function: Of a module that workers can import.
        cpus: Processors that it needs.
        gpus: GPUs that it needs.
    """
    # an error of ours would come again
    return ray.remote(function).options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False)


def completed(ray: Any, tasks: Mapping[Any, T]) -> Iterator[tuple[T, Any]]:
    """Results of tasks, in the order in which they come.

    Args:
        ray: The module, connected.
        tasks: What each is, by what ``remote`` returned.

    Raises:
        ClusterError: The worker of a task was lost, and so were those that began it again.
        YoloquantError: What a task raised.
    """
    pending = dict(tasks)
    try:
        while pending:
            (done, *_), _ = ray.wait(list(pending), num_returns=1)
            name = pending.pop(done)
            try:
                with own_errors(ray):
                    result = ray.get(done)
            except ray.exceptions.RayTaskError:  # a bug, with its stack
                raise
            except ray.exceptions.RayError as exc:
                raise ClusterError(
                    f"the worker of {name} was lost {RETRIES + 1} times; give workers more memory, or fewer of them a "
                    f"machine: {' '.join(str(exc).split())[:300]}"
                ) from exc
            yield name, result
    finally:
        # the cluster may be somebody's own, which goes on after an error here
        for reference in pending:
            ray.cancel(reference, force=True)


@contextmanager
def own_errors(ray: Any) -> Iterator[None]:
    """Raise what this package raised in a task as if it had been raised here: people need not read Ray's stack."""
    try:
        yield
    except ray.exceptions.RayTaskError as exc:
        if isinstance(exc.cause, YoloquantError):
            raise exc.cause from exc
        raise


def _require_answer(address: str) -> None:
    """Knock at an address first: Ray 2.60 tries for minutes where nobody answers.

    Raises:
        UsageError: Nobody answers.
    """
    # from the right: of ray://head:10001 the scheme goes first, and an IPv6 host has colons of its own
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host:  # "auto", or the name of a file of Ray's own
        return
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()
    except (OSError, ValueError, OverflowError) as exc:
        raise UsageError(
            f"no Ray cluster answers at '{address}' ({exc}); start one with 'ray start --head', or leave address= out "
            "for one on this machine"
        ) from exc
