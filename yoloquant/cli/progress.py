"""Progress of the command: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..types import Progress

FEW = 20  # of so few steps each is told in a log
PAUSE = 10.0  # seconds between two lines about many steps


@contextmanager
def bar(what: str) -> Iterator[Progress]:
    """Show the progress of a step on standard error.

    Args:
        what: The step.

    Yields:
        What takes steps done, steps in all, and what is being done.
    """
    # a log that is read later must not be full of carriage returns
    if sys.stderr.isatty():
        with _drawn(what) as update:
            yield update
    else:
        print(f"{what} ...", file=sys.stderr, flush=True)
        yield _Lines(what)


@contextmanager
def _drawn(what: str) -> Iterator[Progress]:
    from tqdm import tqdm

    # total 0: how many steps there are is known with the first update
    with tqdm(desc=what, total=0, leave=False, file=sys.stderr) as drawn:
        done = threading.Event()

        def tick() -> None:  # a single step can take minutes: its time must be seen running
            while not done.wait(1.0):
                drawn.refresh()

        def update(steps: int, total: int, label: str) -> None:
            drawn.total, drawn.n = total, steps
            drawn.set_postfix_str(label, refresh=False)
            drawn.refresh()

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield update
        finally:
            done.set()
            ticking.join()


class _Lines:
    """A line for every new label of few steps, and one in a while of many."""

    def __init__(self, what: str) -> None:
        self._what, self._label, self._last = what, "", time.monotonic()

    def __call__(self, steps: int, total: int, label: str) -> None:
        new = label != self._label
        late = time.monotonic() - self._last >= PAUSE
        # the end is told by what the command prints next
        if steps >= total or not (late or (total <= FEW and new)):
            return
        self._label, self._last = label, time.monotonic()
        print(f"{self._what}: {label} ({steps + 1} of {total})", file=sys.stderr, flush=True)
