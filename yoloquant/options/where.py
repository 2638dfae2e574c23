"""Where work runs: in this process, or on a cluster."""

from __future__ import annotations

from enum import Enum
from typing import Any

from ..errors import UsageError


class Where(str, Enum):
    """Where work runs."""

    LOCAL = "local"
    RAY = "ray"


def refuse_for_ray(on: Where, **given: Any) -> None:
    """Refuse options of a cluster where there is none: who gives them expects one.

    Args:
        on: Where work runs.
        **given: Options that are for a cluster, by name; None where one is not given.

    Raises:
        UsageError: One is given.
    """
    wrong = next((name for name, value in given.items() if value is not None), None)
    if on is Where.LOCAL and wrong is not None:
        raise UsageError(f"{wrong}={given[wrong]} is for on=ray; give on=ray too, or leave it out")
