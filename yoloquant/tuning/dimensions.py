"""What one value of a recipe is searched over: a range of numbers, or a few choices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..io import parse_yaml
from ..options.flat import written

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = str | int | float | bool | None
EXAMPLES = "give a range (0.2..0.6, log:1e-5..1e-3, 32..512:32) or choices (mse|percentile)"
_RANGE = re.compile(r"(?P<log>log:)?(?P<low>[^:]*?)\.\.(?P<high>[^:]*)(?::(?P<step>.*))?")
_NUMERIC = re.compile(r"[\s\d.eE+-]*\.\.[\s\d.eE+-]*(:.*)?")  # not a path such as ../data.yaml


@dataclass(frozen=True)
class Span:
    """A range of numbers, both ends included.

    Attributes:
        low: Its start.
        high: Its end.
        log: Whether equal ratios are equally likely, instead of equal differences.
        step: Distance between values; None for every number (for whole ones: 1).
        whole: Whether values are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def text(self) -> str:
        """As one writes it."""
        return (
            f"{'log:' if self.log else ''}{self.low:g}..{self.high:g}{'' if self.step is None else f':{self.step:g}'}"
        )

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values that must be allowed for all of them to be."""
        return self._exact(self.low), self._exact(self.high)

    def suggest(self, trial: Trial, name: str) -> Value:
        """Let Optuna choose."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it."""
        # True is an int to Python, and no number to a recipe
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    def grid(self, points: int) -> list[Value]:
        """At most so many values, evenly spread, the ends among them."""
        if self.step is not None:
            # a hair more: 0.3 / 0.1 is 2.9999999999999996, and the end would be lost
            count = int((self.high - self.low) / self.step + 1e-9) + 1
            every = [self.low + i * self.step for i in range(count)]
        elif self.whole and self.high - self.low < points:
            every = [self.low + i for i in range(int(self.high - self.low) + 1)]
        else:
            shares = [i / max(points - 1, 1) for i in range(points)]
            ratio = self.high / self.low if self.log else 0.0
            every = [self.low * ratio**s if self.log else self.low + s * (self.high - self.low) for s in shares]
        # thinned by position, so that both ends stay
        if len(every) > points:
            every = [every[round(i * (len(every) - 1) / max(points - 1, 1))] for i in range(points)]
        # two neighbours may round to the same whole number, and a grid must not try it twice
        return list(dict.fromkeys(self._exact(min(max(v, self.low), self.high)) for v in every))

    def _exact(self, value: float) -> int | float:
        return round(value) if self.whole else value


@dataclass(frozen=True)
class Choice:
    """A few values.

    Attributes:
        values: The values, two or more.
    """

    values: tuple[Value, ...]

    @property
    def text(self) -> str:
        """As one writes it."""
        return "|".join("none" if v is None else written(v) for v in self.values)

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values that must be allowed: each."""
        return self.values

    def suggest(self, trial: Trial, name: str) -> Value:
        """Let Optuna choose."""
        found: Value = trial.suggest_categorical(name, self.values)
        return found

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value in self.values

    def grid(self, points: int) -> list[Value]:
        """Every value."""
        return list(self.values)


Dimension = Span | Choice


def is_search(value: Any, number: bool) -> bool:
    """Whether a value of a recipe is meant as a range or as choices.

    Args:
        value: As it was given.
        number: Whether the recipe takes a number there.
    """
    if not isinstance(value, str):
        return False
    return "|" in value or value.startswith("log:") or bool(_NUMERIC.fullmatch(value)) or (number and ".." in value)


def parse_dimension(key: str, text: str, *, number: bool, whole: bool = False) -> Dimension:
    """Read a range or choices.

    Args:
        key: What is searched, for messages.
        text: ``0.2..0.6``, ``log:1e-5..1e-3``, ``32..512:32`` (with a step), ``mse|percentile``.
        number: Whether the recipe takes a number there.
        whole: Whether that number must be whole.

    Raises:
        UsageError: It is empty, inverted, or no range of numbers.
    """
    # before the range: choices may hold two dots, as paths do
    if "|" in text:
        return _choice(key, text)
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{key}={text} is neither a range nor a list of choices; {EXAMPLES}")
    if not number:
        raise UsageError(f"{key}={text} is a range, and {key} is no number; give choices, for instance {key}='a|b'")
    low, high = (_number(key, text, found[end]) for end in ("low", "high"))
    step = None if found["step"] is None else _number(key, text, found["step"])
    _check_range(key, text, (low, high, step), log=bool(found["log"]), whole=whole)
    return Span(low, high, bool(found["log"]), step, whole)


def _choice(key: str, text: str) -> Choice:
    words = [part.strip() for part in text.split("|")]
    if "" in words:
        raise UsageError(f"{key}={text} has an empty choice; {EXAMPLES}, or none for no value")
    values = tuple(_value(word) for word in words)
    # a study in a database finds a choice by its value: of two alike the second could never be told
    double = next((v for i, v in enumerate(values) if v in values[:i]), None)
    if double is not None:
        raise UsageError(f"{key}={text} names {written(double)} twice; name every choice once")
    return Choice(values)


def _value(word: str) -> Value:
    """What YAML reads in a word; whatever is no plain value stays a text. YAML 1.1 takes 1e-3 for a text."""
    if word.lower() in {"none", "null"}:
        return None
    try:
        found = parse_yaml(word)
    except ValueError:
        return word
    if isinstance(found, str):
        try:
            return float(found)
        except ValueError:
            return found
    return found if isinstance(found, (bool, int, float)) else word


def _number(key: str, text: str, part: str) -> float:
    try:
        value = float(part)
        # infinity and NaN, which float() reads without complaint
        if value - value != 0:
            raise ValueError(part)
    except ValueError:
        what = f"'{part.strip()}' is no number" if part.strip() else "an end is missing"
        raise UsageError(f"{key}={text} is no range of numbers: {what}; {EXAMPLES}") from None
    return value


def _check_range(key: str, text: str, numbers: tuple[float, float, float | None], *, log: bool, whole: bool) -> None:
    low, high, step = numbers
    if low > high:
        turned = f"{'log:' if log else ''}{high:g}..{low:g}"
        raise UsageError(f"{key}={text} is an inverted range: it starts above its end; give {key}={turned}")
    if low == high:
        raise UsageError(f"{key}={text} is an empty range: there is nothing to search; give {key}={low:g} to fix it")
    if log and low <= 0:
        raise UsageError(f"{key}={text} is a range of ratios and must start above 0, for instance log:1e-5..{high:g}")
    if log and step is not None:
        raise UsageError(f"{key}={text} cannot have both log: and a step; leave one out")
    if step is not None and not 0 < step <= high - low:
        raise UsageError(f"{key}={text} has a step of {step:g}; allowed is more than 0, up to {high - low:g}")
    broken = [n for n in numbers if n is not None and n != int(n)] if whole else []
    if broken:
        raise UsageError(f"{key}={text} is of whole numbers, got {broken[0]:g}; give whole ends and steps")
