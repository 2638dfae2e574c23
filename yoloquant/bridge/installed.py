"""Ultralytics as it is installed here: its version, and what it must not do."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ..runtime.device.environment import variable


def offline() -> AbstractContextManager[None]:
    """Forbid Ultralytics to install packages while the block runs."""
    return variable("YOLO_AUTOINSTALL", "false")


def ultralytics_version() -> str:
    """Version of the installed Ultralytics."""
    import ultralytics

    return str(ultralytics.__version__)
