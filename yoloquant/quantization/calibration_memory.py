"""What calibrations of one process share: traces, and what images did inside the float network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

T = TypeVar("T")


class CalibrationMemory:
    """Remembers the latest results, for many calibrations of the same model that differ in how ranges are chosen.

    Args:
        most: How many; histograms of one pass are some tens of megabytes.
    """

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._known: OrderedDict[Hashable, object] = OrderedDict()
        self._said: set[str] = set()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returns; the result of an earlier call with an equal key, if it is still known."""
        if key not in self._known:
            self._known[key] = make()
            while len(self._known) > self._most:
                # the oldest goes; a search over calibrations alternates between few of them
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return cast(T, self._known[key])

    def is_news(self, sentence: str) -> bool:
        """Whether a warning was not given before."""
        new = sentence not in self._said
        self._said.add(sentence)
        return new
