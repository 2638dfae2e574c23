"""Tracing takes most of a command's time, and many runs on one model need the same trace."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from yoloquant.graph import traced_model
from yoloquant.graph.trace import Graph


@contextmanager
def remembered_traces(most: int = 8) -> Iterator[None]:
    """Trace a network of one structure, weights and input size once; graphs are only read.

    Args:
        most: How many graphs are kept.
    """
    trace, known = traced_model.trace, dict[str, Graph]()

    def remembered(module: Any, info: Any) -> Graph:
        digest = hashlib.sha256(f"{module}{info}".encode())
        for name, value in module.state_dict().items():
            digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        key = digest.hexdigest()
        if key not in known:
            if len(known) >= most:
                known.pop(next(iter(known)))
            known[key] = trace(module, info)
        return known[key]

    with patch.object(traced_model, "trace", remembered):
        yield
