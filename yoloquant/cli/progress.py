"""Progress bars of the command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..types import Progress


@contextmanager
def bar(what: str) -> Iterator[Progress]:
    """A progress bar on standard error; one plain line where that is no terminal."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        print(f"{what} ...", file=sys.stderr, flush=True)

    with tqdm(desc=what, total=0, disable=None, leave=False, file=sys.stderr) as drawn:

        def update(done: int, total: int, label: str) -> None:
            drawn.total, drawn.n = total, done
            drawn.set_postfix_str(label, refresh=False)
            drawn.refresh()

        yield update
