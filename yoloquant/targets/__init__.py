"""The runtimes that artifacts are exported to; see ``base`` for what a target declares, ``registry`` for finding it."""

from __future__ import annotations

from .registry import ENTRY_POINT_GROUP, available, device, devices, get, names, preparations, resolve, with_graph

__all__ = [
    "ENTRY_POINT_GROUP",
    "available",
    "device",
    "devices",
    "get",
    "names",
    "preparations",
    "resolve",
    "with_graph",
]
