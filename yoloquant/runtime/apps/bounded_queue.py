"""Handing items from one thread to the next through a small buffer."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """Nobody takes items any more, or no item will come."""


class BoundedQueue(Generic[T]):
    """A buffer between two threads.

    Args:
        capacity: Items that it holds.
        newest: What happens when it is full: the oldest item is dropped (True), or ``put`` waits (False).

    Attributes:
        dropped: Items that were dropped.
    """

    def __init__(self, capacity: int, *, newest: bool = False) -> None:
        self.dropped = 0
        self._items: deque[T] = deque()
        self._capacity, self._newest = capacity, newest
        self._ended, self._aborted = False, False
        self._lock = threading.Lock()
        # two conditions of one lock: a put need not wake those that wait to put
        self._filled, self._freed = threading.Condition(self._lock), threading.Condition(self._lock)

    def put(self, item: T) -> T | None:
        """Hand an item over.

        Returns:
            The item that was dropped for it, if one was.

        Raises:
            Closed: Nobody takes items any more.
        """
        out = None
        with self._lock:
            # In a loop: whoever is woken may find that another thread took the place.
            while len(self._items) >= self._capacity and not self._aborted:
                if self._newest:
                    out = self._items.popleft()
                    self.dropped += 1
                else:
                    self._freed.wait()
            if self._aborted:
                raise Closed
            self._items.append(item)
            self._filled.notify()
        return out

    def get(self, timeout: float | None = None) -> T | None:
        """The oldest item; None if none comes within ``timeout`` seconds.

        Raises:
            Closed: No item will come.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while not self._items:
                if self._ended or self._aborted:
                    raise Closed
                # monotonic: a clock that is set while a device starts must not end or prolong a wait
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._filled.wait(left)
            item = self._items.popleft()
            self._freed.notify()
            return item

    def end(self) -> None:
        """Say that no more items come; those that are waiting can still be taken."""
        with self._lock:
            self._ended = True
            self._filled.notify_all()

    def abort(self) -> None:
        """Drop everything and wake both sides."""
        with self._lock:
            self._aborted = True
            self._items.clear()
            self._filled.notify_all()
            self._freed.notify_all()
