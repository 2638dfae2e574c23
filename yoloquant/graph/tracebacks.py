"""Trace without noting where in Python every operation comes from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch.fx.config as config

_SWITCH = "do_not_emit_stack_traces"


@contextlib.contextmanager
def no_tracebacks() -> Iterator[None]:
    """Let torch leave out the Python stack that it writes to every node: a quarter of a trace, read by nobody here.

    Releases without the switch trace as ever.
    """
    before = getattr(config, _SWITCH, None)
    if before is None:
        yield
        return
    setattr(config, _SWITCH, True)
    try:
        yield
    finally:
        setattr(config, _SWITCH, before)
