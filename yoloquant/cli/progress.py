"""Progress of the command: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..types import Progress

FEW = 20  # of so few steps each is told in a log
PAUSE = 10.0  # seconds between two lines about many steps
SILENCE = 30.0  # seconds after which a log is told that the work goes on


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
        lines = _Lines(what)
        with _every(1.0, lines.beat):
            yield lines


@contextmanager
def _every(seconds: float, do: Callable[[], object]) -> Iterator[None]:
    """Do something again and again while the block runs."""
    done = threading.Event()

    def tick() -> None:
        while not done.wait(seconds):
            do()

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield
    finally:
        done.set()
        ticking.join()


@contextmanager
def _drawn(what: str) -> Iterator[Progress]:
    from tqdm import tqdm

    # total 0: how many steps there are is known with the first update
    with tqdm(desc=what, total=0, leave=False, file=sys.stderr) as drawn:

        def update(steps: int, total: int, label: str) -> None:
            drawn.total, drawn.n = total, steps
            drawn.set_postfix_str(label, refresh=False)
            drawn.refresh()

        # a single step can take minutes: its time must be seen running
        with _every(1.0, drawn.refresh):
            yield update


class _Lines:
    """A line for every new label of few steps, one in a while of many, and one after a long silence."""

    def __init__(self, what: str) -> None:
        self._what, self._label = what, ""
        self._started = self._last = time.monotonic()

    def __call__(self, steps: int, total: int, label: str) -> None:
        new = label != self._label
        late = time.monotonic() - self._last >= PAUSE
        # the end is told by what the command prints next; without a total nobody knows where it is
        if (total and steps >= total) or not (late or (total <= FEW and new)):
            return
        self._label = label
        self._tell(f"{label} ({steps + 1} of {total})" if total else label)

    def beat(self) -> None:
        """Say that the work goes on, where nothing was said for long: what follows the last step can take minutes."""
        if time.monotonic() - self._last >= SILENCE:
            self._tell(f"still at work after {time.monotonic() - self._started:.0f} s")

    def _tell(self, text: str) -> None:
        self._last = time.monotonic()
        print(f"{self._what}: {text}", file=sys.stderr, flush=True)
