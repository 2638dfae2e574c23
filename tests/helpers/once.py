"""What takes long to make and is only read: one of the test processes makes it for all."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

T = TypeVar("T")


def shared_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that every process of a run has."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], T]) -> T:
    """What ``make`` returns, given a folder to write to; made by the first process of a run that asks for it.

    Args:
        factory: Of temporary folders; those of a run's processes lie side by side.
        name: Unique for what is made.
        make: Gets an empty folder; what it returns is pickled.
    """
    base = shared_folder(factory, "once")
    result = base / f"{name}.pickle"
    with FileLock(base / f"{name}.lock"):
        if not result.is_file():
            folder = factory.mktemp(name)
            made = make(folder)
            part = result.with_suffix(".part")
            part.write_bytes(pickle.dumps(made))
            part.replace(result)
    return pickle.loads(result.read_bytes())
