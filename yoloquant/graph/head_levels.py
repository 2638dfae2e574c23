"""Where a network is cut for runtimes that return raw heads: the last operation of every branch, level by level."""

from __future__ import annotations

import numpy as np

from ..errors import PlanError
from ..runtime.tasks import spec_of
from ..types import ModelInfo
from .trace import Graph, OpNode


def head_levels(graph: Graph) -> tuple[str, ...]:
    """The operations whose results a file returns raw: every branch of the head, level by level, largest map first.

    Raises:
        PlanError: The head has other branches than its task says.
    """
    task = spec_of(graph.info.task)
    levels = _level_shapes(graph.info)
    found: list[str] = []
    for name in task.branches:
        ops = _branch(graph, name)
        got = [(op.shape or ())[2:] for op in ops]
        if got != levels:
            raise PlanError(
                f"the head's {name} convolutions have maps {got}, but strides {graph.info.strides} at "
                f"{graph.info.imgsz} give {levels}; raw outputs are there for Ultralytics' own heads only"
            )
        found += [graph.end(op.name) for op in ops]
    for name in task.single:
        ops = _branch(graph, name)
        if len(ops) != 1:
            raise PlanError(f"the head has {len(ops)} outputs '{name}', a {task.task.value} model has one")
        found.append(graph.end(ops[0].name))
    return tuple(found)


def _branch(graph: Graph, name: str) -> tuple[OpNode, ...]:
    found = [op for op in graph.heads if op.branch == name]
    # graphs may list levels in any order; decoders expect the largest map first
    return tuple(sorted(found, key=lambda op: -int(np.prod((op.shape or (0, 0, 0))[2:]))))


def _level_shapes(info: ModelInfo) -> list[tuple[int, int]]:
    return [(info.imgsz[0] // s, info.imgsz[1] // s) for s in info.strides]
