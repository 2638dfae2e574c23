"""A Ray cluster: one that runs already, or one of this machine for as long as it is needed."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import UsageError

RETRIES = 3
"""So often a task is begun again whose worker was lost."""
_SECONDS = 10


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
    try:
        import ray
    except ImportError as exc:
        raise UsageError(
            'on=ray needs Ray, which is not installed; install it with: pip install "yoloquant[ray]"'
        ) from exc
    # whoever connected disconnects: the caller may have work of its own on the cluster
    if ray.is_initialized():
        yield ray
        return
    if address is not None:
        _require_answer(address)
    # of a cluster that lives as long as the study; that of a running one is its own affair
    quiet: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    try:
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
