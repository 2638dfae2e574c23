"""What an analysis goes through: one change of the model at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from ..errors import UsageError


@dataclass(frozen=True)
class Part:
    """One change.

    Attributes:
        name: Of the pruning group, layer or point.
        ratio: Share of the group that goes; None for quantization.
        asked: Requested ratios that come to this.
        kept: Units of the group that stay.
    """

    name: str
    ratio: float | None = None
    asked: tuple[float, ...] = ()
    kept: int = 0

    @property
    def label(self) -> str:
        """For people."""
        return self.name if self.ratio is None else f"{self.name} -{self.ratio:.0%}"


class Subject(Protocol):
    """A model with everything that is needed to change and measure it."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every change."""

    def baseline(self) -> float:
        """Score with nothing changed."""

    def measure(self, part: Part) -> tuple[float, str]:
        """Score with one change, and how it was made."""


def chosen(names: Iterable[str], patterns: tuple[str, ...], what: str) -> list[str]:
    """Names that a pattern matches, in their order.

    Raises:
        UsageError: A pattern matches nothing.
    """
    known = list(names)
    # a pattern without effect is a typing error, and would make an analysis look complete
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise UsageError(f"only='{pattern}' matches no {what}; they are {', '.join(known[:6])} ...")
    return [n for n in known if any(fnmatchcase(n, p) for p in patterns)]
