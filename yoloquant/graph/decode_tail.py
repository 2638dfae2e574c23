"""Where the network ends and the decode begins, and which quantity each of its last layers predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx

from ..runtime.tasks import spec_of
from .canonical_graph import Graph
from .ops import WEIGHTED, OpKind, OpNode


def _is_dfl(node: fx.Node) -> bool:
    stack = node.meta.get("nn_module_stack") or {}
    return any(str(kind).rsplit(".", 1)[-1].rstrip("'>") == "DFL" for _, kind in stack.values())


def mark_tail(ops: dict[str, OpNode], names: dict[str, str], gm: fx.GraphModule) -> dict[str, OpNode]:
    """Mark the decode tail: what has no convolution or linear layer behind it, the fixed DFL projection not counted."""
    nodes = {n.name: n for n in gm.graph.nodes}
    before_weights: set[str] = set()  # operations with a weighted operation downstream
    tail: set[str] = set()
    # Backwards, so that one pass knows of every operation whether a weighted one follows it.
    for op in reversed(list(ops.values())):
        # DFL is written as a convolution with weights 0, 1, 2 ...: it reads a distribution out, and belongs to the
        # decode.
        fixed = _is_dfl(nodes[names[op.name]])
        weighted = op.kind in WEIGHTED and not fixed
        if op.name in before_weights or weighted:
            before_weights.update(op.inputs)
        elif op.kind is not OpKind.INPUT:
            tail.add(op.name)
    # the body reaches to a SiLU that belongs to a convolution, or its pair would be split
    tail -= _last_activations(ops, tail)
    described = {
        op.name: replace(
            op, tail=op.name in tail, kind=OpKind.OTHER if op.kind in WEIGHTED and op.name in tail else op.kind
        )
        for op in ops.values()
    }
    return described


def _last_activations(ops: dict[str, OpNode], tail: set[str]) -> set[str]:
    """The SiLU behind a convolution that nothing weighted follows, as behind mask prototypes: no part of the decode."""
    activations: set[str] = set()
    for op in ops.values():
        gates = [i for i in op.inputs if ops[i].kind is OpKind.UNIT and i in tail]
        if op.kind is not OpKind.MUL or op.name not in tail or len(gates) != 1 or len(op.inputs) != 2:
            continue
        (source,) = (i for i in op.inputs if i not in gates)
        if ops[source].kind in WEIGHTED and source not in tail and ops[gates[0]].inputs == (source,):
            activations |= {op.name, gates[0]}
    return activations


def name_branches(graph: Graph) -> dict[str, OpNode]:
    """Operations with the branch of every head."""
    last = {op.name for op in graph.heads}
    task = spec_of(graph.info.task)
    return {
        name: replace(op, branch=_branch(op.module, task.branches, task.single)) if name in last else op
        for name, op in graph.ops.items()
    }


def _branch(path: str, levels: Sequence[str], single: Sequence[str]) -> str:
    """Which quantity a head's last convolution predicts, by Ultralytics' names of the branches.

    Args:
        path: Of the module.
        levels: The task's branches with one output per level: boxes, scores, and what else ``cv4`` predicts.
        single: Its branches with one output.
    """
    # model.<number of the head>.<branch>...; end-to-end heads have a second set of branches with this prefix
    part = next(iter([p.removeprefix("one2one_") for p in path.split(".")][2:3]), "")
    known = dict(zip(("cv2", "cv3", "cv4"), levels, strict=False))
    if part.startswith("cv4"):  # YOLO26's keypoints come from cv4_kpts
        part = "cv4"
    return known.get(part) or (single[0] if single else "other")
