"""How long the rest will take."""

from __future__ import annotations

import statistics


class Eta:
    """Remaining time from the median of what is finished: one slow part does not spoil it."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def add(self, seconds: float) -> None:
        """One part took so long."""
        self._seconds.append(seconds)

    def remaining(self, left: int) -> float | None:
        """Seconds that so many parts will take; None while nothing is known."""
        return statistics.median(self._seconds) * left if self._seconds else None

    def text(self, left: int) -> str:
        """The same for people."""
        seconds = self.remaining(left)
        if seconds is None:
            return ""
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            # no seconds: an estimate of hours is not that good
            return f"{hours} h {minutes:02} min left"
        return f"{minutes} min {rest:02} s left" if minutes else f"{rest} s left"
