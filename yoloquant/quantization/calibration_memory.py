"""What calibrations of one process share: traces, and what images did inside the float network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

T = TypeVar("T")


class CalibrationMemory:
    """Remembers the latest results, for many calibrations of the same model that differ in how ranges are chosen.

    Args:
        most: How many of each kind; histograms of one pass are some tens of megabytes.
    """

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._known: dict[Hashable, OrderedDict[Hashable, object]] = {}
        self._said: set[str] = set()

    def once(self, key: tuple[Hashable, ...], make: Callable[[], T]) -> T:
        """What ``make`` returns; the result of an earlier call with an equal key, if it is still known.

        Args:
            key: Which kind of result it is, and everything that decides it.
            make: Computes it.
        """
        # by kind: what every calibration has of its own must not drive out passes that many of them share
        known = self._known.setdefault(key[0], OrderedDict())
        if key not in known:
            known[key] = make()
            while len(known) > self._most:
                # the oldest goes; a search over calibrations alternates between few of them
                known.popitem(last=False)
        known.move_to_end(key)
        return cast(T, known[key])

    def is_news(self, sentence: str) -> bool:
        """Whether a warning was not given before."""
        new = sentence not in self._said
        self._said.add(sentence)
        return new
