"""Reading a verb's ``key=value`` arguments."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence

from ..errors import UsageError

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Settings:
    """Arguments of a verb, each read with its type and its limits.

    Args:
        given: Texts by key.
        allowed: Every key that the verb knows.
        verb: Its name, for messages.

    Raises:
        UsageError: A key is unknown.
    """

    def __init__(self, given: Mapping[str, str], allowed: Sequence[str], verb: str) -> None:
        self._given = dict(given)
        for key in self._given:
            if key not in allowed:
                close = difflib.get_close_matches(key, allowed, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"allowed are {', '.join(allowed)}"
                raise UsageError(f"unknown argument '{key}' of '{verb}'; {hint}")

    def text(self, key: str, default: str = "") -> str:
        """The text itself."""
        return self._given.get(key, default)

    def flag(self, key: str, default: bool) -> bool:
        """``true`` or ``false``."""
        text = self._given.get(key)
        if text is None:
            return default
        if text.lower() not in _WORDS:
            raise UsageError(f"{key}={text} is not supported; allowed are true and false")
        return _WORDS[text.lower()]

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number within limits."""
        text = self._given.get(key)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise UsageError(f"{key}={text} is not supported; allowed is a number from {low:g} to {high:g}")
        return value

    def whole(self, key: str, default: int | None, low: int = 1) -> int | None:
        """A whole number, not below a limit."""
        text = self._given.get(key)
        if text is None:
            return default
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise UsageError(f"{key}={text} is not supported; allowed is a whole number from {low}")
        return value
