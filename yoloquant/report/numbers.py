"""Numbers as people read them: accuracy in points (x 100), sizes in MB, latencies in milliseconds.

Every function takes None, NaN and infinity and answers with a dash, so that no report can show ``nan``.
"""

from __future__ import annotations

import math
from typing import TypeGuard

from ..evaluation.results import Interval

DASH = "–"  # noqa: RUF001 - the typographic dash is what the reader should see
MINUS = "−"  # noqa: RUF001


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether there is a finite number to show."""
    return value is not None and math.isfinite(value)


def fixed(value: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """A number with a fixed count of decimals and a typographic minus; never a negative zero."""
    if not is_number(value):
        return DASH
    # a thin space for thousands: a comma means decimals to many readers
    text = f"{abs(value):,.{digits}f}".replace(",", "\u202f")
    # -0.00 is a rounded zero, and its sign a riddle
    if not any(c in "123456789" for c in text):
        return text
    return (MINUS if value < 0 else "+" if signed else "") + text


def points(value: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """A fraction in points: 0.4479 is 44.79."""
    return fixed(value * 100 if is_number(value) else None, digits, signed=signed)


def points_interval(interval: Interval | None, *, signed: bool = True) -> str:
    """The ends of an interval in points, for instance ``-0.10 to +0.81``; empty if they are not known.

    Args:
        interval: The interval.
        signed: Whether it is of a difference, whose signs matter.
    """
    if interval is None or not (is_number(interval.low) and is_number(interval.high)):
        return ""
    return f"{points(interval.low, signed=signed)} to {points(interval.high, signed=signed)}"


def fraction_interval(interval: Interval | None) -> str:
    """The ends of an interval as fractions; empty if they are not known."""
    if interval is None or not (is_number(interval.low) and is_number(interval.high)):
        return ""
    return f"{fixed(interval.low, 3)} to {fixed(interval.high, 3)}"


def level(interval: Interval | None) -> str:
    """The confidence level of an interval, for instance ``95 %``."""
    return f"{100 * interval.level:.4g}\u00a0%" if interval is not None and is_number(interval.level) else DASH


def megabytes(size: float | None) -> str:
    """Bytes as MB (10^6 bytes)."""
    if not is_number(size) or size <= 0:
        return DASH
    # above 100 MB decimals say nothing
    return f"{fixed(size / 1e6, 2 if size < 1e8 else 0)}\u00a0MB"


def milliseconds(value: float | None) -> str:
    """A latency in ms."""
    return f"{fixed(value, 1 if value >= 10 else 2)}\u00a0ms" if is_number(value) else DASH


def ratio(value: float | None) -> str:
    """A ratio to the baseline, for instance ``0.53x``."""
    return f"{fixed(value)}×" if is_number(value) else DASH  # noqa: RUF001


def duration(seconds: float) -> str:
    """A wall time in seconds or minutes."""
    if not is_number(seconds):
        return DASH
    if seconds < 120:
        return f"{fixed(seconds, 1)}\u00a0s"
    return f"{int(seconds // 60)}\u00a0min {int(seconds % 60)}\u00a0s"
