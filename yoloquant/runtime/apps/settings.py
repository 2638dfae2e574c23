"""Reading a verb's ``key=value`` arguments."""

from __future__ import annotations

import math
from typing import Dict, Iterable, Mapping, NamedTuple, Sequence

from ..core.nearest import nearest
from ..errors import UsageError

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Key(NamedTuple):
    """An argument of a verb: its name, and one line for people."""

    name: str
    help: str


def parse(words: Sequence[str], first: str = "") -> Dict[str, str]:
    """Read ``key=value``, ``--key=value`` and ``--key value``; every command of this project reads it here.

    Args:
        words: What follows the verb.
        first: Key that a bare first word stands for, as in ``quantize best.pt``; none if empty.

    Raises:
        UsageError: A word is none of these, or a key comes twice.
    """
    values: Dict[str, str] = {}
    rest = list(words)
    if first and rest and not rest[0].startswith("-") and not _is_pair(rest[0]):
        rest[0] = f"{first}={rest[0]}"
    while rest:
        word = rest.pop(0)
        key, equals, value = word.lstrip("-").partition("=")
        # Only behind two dashes: a bare word is rather a typing error than a key.
        if not equals and word.startswith("--") and rest:
            equals, value = "=", rest.pop(0)
        # As people write options elsewhere: --max-det.
        key = key.replace("-", "_")
        if not equals or not key:
            raise UsageError(f"argument '{word}' is not key=value or --key value")
        if key in values:
            raise UsageError(f"argument '{key}' is given twice")
        values[key] = value
    return values


def _is_pair(word: str) -> bool:
    """Whether it is ``key=value``, and not a path that holds an equals sign."""
    key, equals, _ = word.partition("=")
    return bool(equals) and key.replace("-", "_").isidentifier()


class VerbSettings:
    """Arguments of a verb, each read with its type and its limits.

    Args:
        given: Texts by key.
        allowed: Every key that the verb knows.
        verb: Its name, for messages.

    Raises:
        UsageError: A key is unknown.
    """

    def __init__(self, given: Mapping[str, str], allowed: Iterable[Key], verb: str) -> None:
        self._given = dict(given)
        names = [key.name for key in allowed]
        for key in self._given:
            if key not in names:
                raise UsageError(f"unknown argument '{key}' of '{verb}'{nearest(key, names)}")

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
            # NaN lies within no limits, so that one message serves what is no number and what is out of range.
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
            # Out of range, for the same message.
            value = low - 1
        if value < low:
            raise UsageError(f"{key}={text} is not supported; allowed is a whole number from {low}")
        return value
