"""Quantization schemes by name: the portable one, and that of every target."""

from __future__ import annotations

from collections.abc import Iterable

from .. import targets
from ..errors import UsageError
from ..quantization.scheme import PORTABLE, Scheme
from ..runtime.core.nearest import closest
from .base import FLOAT, Target

AUTO = "auto"
"""Every scheme that is known here; where targets are known, theirs."""


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
    known, requested = schemes(), _named(names)
    if requested == [AUTO]:
        return tuple(known.values())
    unknown = [n for n in requested if n not in known]
    if unknown or not requested:
        near = closest(unknown[0], (AUTO, *known)) if unknown else ""
        served = targets.devices().get(unknown[0], ()) if unknown else ()
        # a device's name is good for targets= alone
        near = targets.get(served[0]).scheme.name if served else near
        hint = f" (did you mean '{near}'?)" if near else ""
        raise UsageError(f"scheme '{', '.join(unknown)}' is unknown{hint}; allowed are {AUTO}, {', '.join(known)}")
    return tuple(known[n] for n in dict.fromkeys(requested))


def schemes_of(exported: Iterable[Target]) -> tuple[Scheme, ...]:
    """The schemes that some targets export with, each once; targets that stay in float have none."""
    # by name: a scheme that two targets share is calibrated once
    return tuple({t.scheme.name: t.scheme for t in exported if t.precision not in FLOAT}.values())


def needed_schemes(
    names: str | Iterable[str], exported: Iterable[Target], *, keeps: bool = False
) -> tuple[Scheme, ...]:
    """Find schemes by name where it is known what is exported: of ``auto`` those alone, each of which takes its time.

    Args:
        names: See ``resolve_schemes``.
        exported: The targets.
        keeps: Whether a checkpoint is kept that may be exported to others later; then portable is among them.

    Raises:
        UsageError: A name is unknown, or nothing is named.
    """
    if _named(names) != [AUTO]:
        return resolve_schemes(names)
    own = schemes_of(exported)
    return own if own and not keeps else (PORTABLE, *(scheme for scheme in own if scheme.name != PORTABLE.name))


def _named(names: str | Iterable[str]) -> list[str]:
    return [n.strip() for n in (names.split(",") if isinstance(names, str) else names) if n.strip()]
