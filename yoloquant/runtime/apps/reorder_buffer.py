"""Putting the work of several threads back into order."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from .bounded_queue import Closed

T = TypeVar("T")


class InOrder(Generic[T]):
    """Takes items in any order and gives them away in the order of their places: 0, 1, 2 ...

    Args:
        capacity: How many places an item may be ahead of the next one to be given away; ``put`` waits beyond that.
        producers: Threads that put items, each of which says ``end`` once.
    """

    def __init__(self, capacity: int, producers: int = 1) -> None:
        self._capacity, self._producers = capacity, producers
        self._items: dict[int, T] = {}
        self._next, self._aborted = 0, False
        # One for all, and all are woken: each waits for another place, and only it can see whether that has come.
        self._changed = threading.Condition()

    def put(self, place: int, item: T) -> None:
        """Hand an item over. The one that is next never waits, so nobody waits for ever.

        Raises:
            Closed: Nobody takes items any more.
        """
        with self._changed:
            while place >= self._next + self._capacity and not self._aborted:
                self._changed.wait()
            if self._aborted:
                raise Closed
            self._items[place] = item
            self._changed.notify_all()

    def get(self) -> T:
        """The item of the next place.

        Raises:
            Closed: It will not come.
        """
        with self._changed:
            while self._next not in self._items:
                if self._aborted or not self._producers:
                    raise Closed
                self._changed.wait()
            item = self._items.pop(self._next)
            self._next += 1
            self._changed.notify_all()
            return item

    def end(self) -> None:
        """Say that one producer is done."""
        with self._changed:
            self._producers -= 1
            self._changed.notify_all()

    def abort(self) -> None:
        """Drop everything and wake both sides."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()
