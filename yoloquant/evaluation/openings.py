"""How models that are judged are opened: here, or again by every worker that runs them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ..errors import YoloquantError
from ..runtime.core.runner import Runner

logger = logging.getLogger(__name__)

Opening = Callable[[], Runner]
"""Opens a model. Workers are sent it, so it holds what it needs and nothing else."""


def open_all(openings: Mapping[str, Opening]) -> tuple[dict[str, Runner], dict[str, str]]:
    """Open models.

    Args:
        openings: How each is opened, by name.

    Returns:
        Those that could be opened, and why others could not, by name.
    """
    runners: dict[str, Runner] = {}
    errors: dict[str, str] = {}
    for name, opening in openings.items():
        try:
            runners[name] = opening()
        except YoloquantError as exc:
            errors[name] = str(exc)
        except Exception as exc:  # a runtime may raise anything for a file that it does not like
            logger.debug("%s could not be opened", name, exc_info=True)  # people read the row's error
            errors[name] = f"{type(exc).__name__}: {exc}"
    return runners, errors
