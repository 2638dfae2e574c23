"""Quantization schemes by name: the portable one, and that of every target."""

from __future__ import annotations

from collections.abc import Iterable

from .. import targets
from ..errors import UsageError
from ..quantization.scheme import PORTABLE, Scheme
from ..runtime.core.nearest import closest

AUTO = "auto"
"""Every scheme that is known here."""


def schemes() -> dict[str, Scheme]:
    """Every scheme by name; targets that share one count once."""
    known: dict[str, Scheme] = {PORTABLE.name: PORTABLE}
    for name in targets.names():
        scheme = targets.get(name).scheme
        known.setdefault(scheme.name, scheme)
    return known


def resolve_schemes(names: str | Iterable[str]) -> tuple[Scheme, ...]:
    """Find schemes by name, each once.

    Args:
        names: Names, or one text with commas between them; ``auto`` alone stands for all.

    Raises:
        UsageError: A name is unknown, or nothing is named.
    """
    known = schemes()
    requested = [n.strip() for n in (names.split(",") if isinstance(names, str) else names) if n.strip()]
    if requested == [AUTO]:
        return tuple(known.values())
    unknown = [n for n in requested if n not in known]
    if unknown or not requested:
        near = closest(unknown[0], (AUTO, *known)) if unknown else ""
        hint = f" (did you mean '{near}'?)" if near else ""
        raise UsageError(f"scheme '{', '.join(unknown)}' is unknown{hint}; allowed are {AUTO}, {', '.join(known)}")
    return tuple(known[n] for n in dict.fromkeys(requested))
