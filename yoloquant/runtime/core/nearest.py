"""The one "did you mean" of every message about a misspelt name."""

from __future__ import annotations

import difflib
from typing import Iterable

_LISTED = 60  # of more names nobody reads a list


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that somebody most likely meant, in upper or lower case; empty if none is close."""
    lower = {each.lower(): each for each in known}
    matches = difflib.get_close_matches(name.lower(), list(lower), n=1)
    return lower[matches[0]] if matches else ""


def nearest(name: str, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """End a message about an unknown name.

    Args:
        name: What was given.
        known: Every name that is allowed.
        also: Other words for them, which are not listed.

    Returns:
        ``; did you mean '...'?`` where one is close, else ``; allowed are ...``.
    """
    allowed = list(known)
    near = closest(name, [*allowed, *also])
    if near:
        return f"; did you mean '{near}'?"
    if len(allowed) > _LISTED:
        return ""
    return f"; allowed are {', '.join(allowed)}" if allowed else "; it takes none"
