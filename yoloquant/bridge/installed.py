"""Ultralytics as it is installed here: its version, and what it must not do."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from ..runtime.device.environment import variable


def offline() -> AbstractContextManager[None]:
    """Forbid Ultralytics to install packages while the block runs."""
    return variable("YOLO_AUTOINSTALL", "false")


def ultralytics_version() -> str:
    """Version of the installed Ultralytics."""
    # here: its import takes seconds, which importing this package must not
    import ultralytics

    return str(ultralytics.__version__)


def settings() -> dict[str, Any]:
    """Settings that the user gave Ultralytics (``yolo settings``): which experiment trackers are told, among others."""
    from ultralytics.utils import SETTINGS

    return dict(SETTINGS)
