"""Targets by name, found by looking rather than by a list.

Every module beside this one is searched for ``Target`` classes (in a subpackage: its module ``target``); other
distributions register theirs under the entry-point group ``yoloquant.targets``. Target modules therefore import no
runtime and no torch when they are imported; all of that happens inside their methods.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import pkgutil
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TypeGuard

from ..errors import UsageError
from ..runtime.core.nearest import closest
from .base import Device, Preparation, Target
from .graph_form import GraphForm

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "yoloquant.targets"
_WORDS = {"tflite": "litert", "engine": "tensorrt", "rpi": "raspberrypi"}
"""What Ultralytics' users call formats and devices; its word ``onnx`` is a device of ours."""


def names() -> tuple[str, ...]:
    """Names of all known targets, sorted."""
    return tuple(_known())


def devices() -> dict[str, tuple[str, ...]]:
    """Device names that people use, each with the targets that serve it."""
    devices: dict[str, list[str]] = {}
    for name, target in _known().items():
        for device in target.devices:
            for known in device.names:
                devices.setdefault(known, []).append(name)
    return {device: tuple(devices[device]) for device in sorted(devices)}


def get(name: str) -> Target:
    """Find a target.

    Args:
        name: Name of a target, or of a device that exactly one target serves; upper and lower case are the same. What
            stands behind a colon is a variant, such as ``coral:uint8``.

    Returns:
        An instance; whether its packages are installed is ``require``'s business.

    Raises:
        UsageError: The name is unknown, several targets serve the device, or there is no such variant.
    """
    plain, _, variant = name.strip().lower().partition(":")
    target = _named(plain)
    # A device may stand for a variant of its own, such as imx93 for one accelerator.
    variant = variant or next((d.variant for d in target.devices if plain in d.names), "")
    return target.variant(variant) if variant else target()


def _named(name: str) -> type[Target]:
    known, by_device = _known(), devices()
    name = _WORDS.get(name, name)
    if name in known:
        return known[name]
    serving = by_device.get(name, ())
    if len(serving) > 1:
        raise UsageError(f"device '{name}' is served by several targets; name one of {', '.join(serving)}")
    if serving:
        return known[serving[0]]
    near = closest(name, (*known, *by_device))
    hint = f" (did you mean '{near}'?)" if near else ""
    raise UsageError(
        f"target '{name}' is unknown{hint}; allowed are the targets {', '.join(known)} and the devices "
        f"{', '.join(by_device)}"
    )


def device(name: str) -> tuple[Target, Device]:
    """Find a device and the target that serves it.

    Args:
        name: Name of a device, or of a target, which stands for its usual device; a variant may follow a colon.

    Raises:
        UsageError: The name is unknown, several targets serve the device, or the target serves none.
    """
    target, plain = get(name), name.strip().lower().partition(":")[0]
    for known in target.devices:
        if plain in known.names:
            return target, known
    if not target.devices:
        raise UsageError(f"target '{target.name}' names no device, so there is no bundle for it")
    return target, target.devices[0]


def preparations() -> dict[str, Preparation]:
    """Changes of the float model that targets offer, by name."""
    return {p.name: p for target in _known().values() for p in target.preparations}


def available() -> tuple[Target, ...]:
    """The targets whose packages are all installed, by name; importing none of those packages."""
    return tuple(target() for target in _known().values() if not target.missing())


def resolve(wanted: str | Iterable[str]) -> tuple[Target, ...]:
    """Find targets by name, device or ``all``, each once.

    ``all`` is every installed target that needs no choice of hardware.

    Args:
        wanted: Names, or one text with commas between them.

    Raises:
        UsageError: A name is unknown, or nothing is named.
    """
    words = [n.strip() for n in (wanted.split(",") if isinstance(wanted, str) else wanted) if n.strip()]
    if not words:
        raise UsageError(f"name at least one target: {', '.join(names())}, or all")
    chosen: dict[str, Target] = {}
    for word in words:
        for target in (t for t in available() if t.in_all) if word == "all" else (get(word),):
            chosen.setdefault(target.wanted, target)
    return tuple(chosen.values())


def with_graph(chosen: Iterable[Target], graph: GraphForm) -> tuple[Target, ...]:
    """Let targets write graphs that do more than the network.

    Raises:
        UsageError: One of them cannot.
    """
    chosen = tuple(chosen)
    for asked in graph.asked:
        able = [name for name, target in _known().items() if asked in target.capabilities.graph]
        lacking = [target.wanted for target in chosen if asked not in target.capabilities.graph]
        if lacking:
            raise UsageError(
                f"{asked}= is nothing that exports for {', '.join(lacking)} can have; it is there for "
                f"{', '.join(able)}: leave it out, or export these by themselves"
            )
    return tuple(target.with_graph(graph) for target in chosen) if graph.asked else chosen


@lru_cache(maxsize=1)
def _known() -> dict[str, type[Target]]:
    targets: dict[str, type[Target]] = {}
    # Ours first: another distribution cannot take a name away.
    for target in (*_built_in(), *_registered()):
        if target.name in targets:
            other = targets[target.name]
            logger.warning("%r is left out: %r is already the target '%s'", target, other, target.name)
            continue
        targets[target.name] = target
    return dict(sorted(targets.items()))


def _built_in() -> Iterator[type[Target]]:
    package = __package__ or ""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        path = f"{package}.{module.name}"
        if module.ispkg:
            path += ".target"
            # A package that several targets share, such as `onnx`.
            if importlib.util.find_spec(path) is None:
                continue
        for value in vars(importlib.import_module(path)).values():
            # Defined there and not imported: `LiteRTTarget` lies in the module of every target that derives from it.
            if _is_target(value) and value.__module__ == path:
                yield value


def _registered() -> Iterator[type[Target]]:
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            value = entry.load()
        except Exception as exc:  # one broken distribution must not take the other targets away
            logger.warning("target '%s' of %s cannot be loaded: %s", entry.name, entry.value, exc)
            continue
        if _is_target(value):
            yield value
        else:
            logger.warning("entry point '%s' (%s) is no Target class and is left out", entry.name, entry.value)


def _is_target(value: object) -> TypeGuard[type[Target]]:
    return inspect.isclass(value) and issubclass(value, Target) and not inspect.isabstract(value)
