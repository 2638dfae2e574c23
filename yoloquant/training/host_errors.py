"""What Ultralytics raises while it sets up or runs a training, as errors of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import DataError, ModelError, TrainingError, UsageError, YoloquantError


@contextmanager
def setting_up() -> Iterator[None]:
    """Translate what making a trainer raises.

    Raises:
        DataError: The data cannot be read.
        ModelError: The model cannot.
        UsageError: An argument does not fit.
    """
    try:
        yield
    except YoloquantError:
        raise
    except (RuntimeError, FileNotFoundError) as exc:  # how Ultralytics reports data that it cannot read
        # by its words: Ultralytics raises the same RuntimeError whatever it could not read (8.4.190)
        kind = DataError if "ataset" in str(exc) or "images" in str(exc) else ModelError
        raise kind(str(exc).strip()) from exc
    except (SyntaxError, TypeError, ValueError) as exc:  # how Ultralytics reports arguments
        raise UsageError(str(exc).strip()) from exc


@contextmanager
def running() -> Iterator[None]:
    """Translate what training raises.

    Raises:
        TrainingError: It broke off.
    """
    try:
        yield
    except YoloquantError:
        raise
    except (RuntimeError, ValueError, AssertionError, FileNotFoundError) as exc:
        raise TrainingError(f"training stopped: {exc}") from exc
