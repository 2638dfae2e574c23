"""Decompose exported programs node by node, which converters ask for once (ONNX) to four times (LiteRT) an export.

``ExportedProgram.run_decompositions`` traces the whole program anew, through functionalization, although most nodes
stay what they are; that took a third of an export to ONNX and two thirds of one to LiteRT. Here only nodes that have a
decomposition are traced, each by itself. The files that come out hold the same operators and constants; names inside
them may differ. Where a program cannot be taken apart this way (operations that write into their operands), PyTorch's
own function does it.
"""

from __future__ import annotations

import contextlib
import logging
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

logger = logging.getLogger(__name__)
Decompositions = Mapping[Any, Callable[..., Any]]

_SEEN = "yoloquant_seen"  # in a node's meta: for which operation and operands its fake value was computed


@contextlib.contextmanager
def nodewise_decompositions() -> Iterator[None]:
    """Let ``ExportedProgram.run_decompositions`` work node by node, in place, while the context is open."""
    original = ExportedProgram.run_decompositions

    def run(program: ExportedProgram, decomp_table: Decompositions | None = None, **options: Any) -> Any:
        if decomp_table is not None and not options:
            try:
                decompose(program, decomp_table)
                return program
            except Exception as exc:  # every replacement is whole, so the other function can go on from any of them
                logger.debug("decomposing the whole program at once: %s", exc)
        return original(program, decomp_table, **options)  # type: ignore[arg-type]

    ExportedProgram.run_decompositions = run  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ExportedProgram.run_decompositions = original  # type: ignore[method-assign]


def decompose(program: ExportedProgram, table: Decompositions) -> None:
    """Replace every node of a program that has a decomposition, in place.

    Args:
        program: The program; its nodes carry fake values.
        table: What to replace an operation by; Python functions that passes left in the graph are replaced by what
            they do in any case.

    Raises:
        ValueError: A node cannot be decomposed by itself.
    """
    from torch._dispatch.python import enable_python_dispatcher
    from torch.export.exported_program import _override_composite_implicit_decomp

    composite, rest = _split(table)
    graph = program.graph
    # straight from torch.export every value is right; passes that ran since then left stale ones behind
    fresh = all(_SEEN not in node.meta for node in graph.nodes)
    values = (node.meta.get("val") for node in graph.nodes if node.op == "placeholder")
    modes = [value.fake_mode for value in values if hasattr(value, "fake_mode")]
    traced: dict[Any, fx.GraphModule] = {}
    with modes[0], enable_python_dispatcher(), _override_composite_implicit_decomp(composite):
        for node in list(graph.nodes):
            if node.op != "call_function":
                continue
            if _decomposes(node.target, rest, composite):
                # a network repeats its blocks, and with them the same operation on the same shapes
                alike = _signature(node)
                if alike not in traced:
                    traced[alike] = _traced(node, rest)
                _replace(program, node, _inlined(node, traced[alike]))
            else:
                _refresh(node, fresh=fresh)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _split(table: Decompositions) -> tuple[Decompositions, Decompositions]:
    """What becomes of composite operations, and the rest of the table.

    PyTorch's function of that purpose asks for every operation there is each time, a tenth of a trace.
    """
    from torch._export.utils import _is_preservable_cia_op, _special_op_to_preserve_cia

    registered = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
    known = _composite_operations(len(registered), len(torch.ops._dir))
    composite = dict.fromkeys(known, _special_op_to_preserve_cia)
    composite |= {op: made for op, made in table.items() if op in known or _is_preservable_cia_op(op)}
    return composite, {op: made for op, made in table.items() if op not in known}


@lru_cache(maxsize=1)
def _composite_operations(registered: int, namespaces: int) -> frozenset[Any]:
    """Composite operations that can be kept whole, for as long as no library registers another."""
    from torch._export.utils import _collect_all_valid_cia_ops

    return frozenset(_collect_all_valid_cia_ops())


def _decomposes(target: Any, table: Decompositions, composite: Decompositions) -> bool:
    from torch._export.utils import _is_cia_op, _special_op_to_preserve_cia

    if not isinstance(target, torch._ops.OperatorBase):
        return target is not operator.getitem  # a Python function that a pass left
    if target in table:
        return True
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if target._schema.is_mutable:
        raise ValueError(f"{target} writes into its operands")
    return _is_cia_op(target) and composite.get(target) is not _special_op_to_preserve_cia


def _operands(node: fx.Node) -> list[fx.Node]:
    """Every node that is read, once, in the order of reading."""
    leaves = pytree.tree_leaves((node.args, node.kwargs))
    return list(dict.fromkeys(leaf for leaf in leaves if isinstance(leaf, fx.Node)))


def _signature(node: fx.Node) -> tuple[Any, ...]:
    """What a trace of the operation depends on: the same for operations that are made of the same."""
    operands = _operands(node)
    leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
    read = [operands.index(leaf) if isinstance(leaf, fx.Node) else _described(leaf) for leaf in leaves]
    return node.target, str(spec), tuple(read), tuple(_described(operand.meta["val"]) for operand in operands)


def _traced(node: fx.Node, table: Decompositions) -> fx.GraphModule:
    """What the operation is made of, as a graph of its operands."""
    from torch.fx._lazy_graph_module import _use_lazy_graph_module
    from torch.fx.experimental.proxy_tensor import make_fx

    operands, target = _operands(node), node.target
    leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
    places = [operands.index(leaf) if isinstance(leaf, fx.Node) else None for leaf in leaves]

    def call(*tensors: Any) -> Any:
        flat = [leaf if place is None else tensors[place] for leaf, place in zip(leaves, places, strict=True)]
        args, kwargs = pytree.tree_unflatten(flat, spec)
        return target(*args, **kwargs)  # type: ignore[operator]

    def trace(function: Callable[..., Any]) -> fx.GraphModule:
        # only its graph is read: code that nobody runs is not compiled
        with _use_lazy_graph_module(True):
            module = make_fx(function, decomposition_table=dict(table), _allow_non_fake_inputs=True)(
                *(operand.meta["val"] for operand in operands)
            )
        module.graph.eliminate_dead_code()
        return module

    module = trace(call)
    if any(_mutates(inner) for inner in module.graph.nodes):
        module = trace(torch.func.functionalize(call, remove="mutations"))
    if any(inner.op in ("get_attr", "call_module") or _mutates(inner) for inner in module.graph.nodes):
        raise ValueError(f"{target} makes constants or writes into its operands")
    return module


def _mutates(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _inlined(node: fx.Node, module: fx.GraphModule) -> Any:
    """Copy a traced graph in front of the node and return what it returns: a node, or a list of nodes."""
    inputs = iter(_operands(node))
    shared = {key: value for key, value in node.meta.items() if key not in ("val", "tensor_meta", _SEEN)}
    copied: dict[fx.Node, fx.Node] = {}
    with node.graph.inserting_before(node):
        for inner in module.graph.nodes:
            if inner.op == "placeholder":
                copied[inner] = next(inputs)
            elif inner.op == "call_function":
                copied[inner] = node.graph.node_copy(inner, copied.__getitem__)
                values = {key: inner.meta[key] for key in ("val", "tensor_meta") if key in inner.meta}
                if "val" in values:
                    # of its own: a trace tells its operands apart by their fake values
                    values["val"] = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, values["val"])
                copied[inner].meta = shared | values
    (result,) = module.graph.output_node().args
    return pytree.tree_map_only(fx.Node, copied.__getitem__, result)


def _replace(program: ExportedProgram, node: fx.Node, result: Any) -> None:
    if isinstance(result, fx.Node):
        pairs = {node: result}
    else:
        if any(user.target is not operator.getitem for user in node.users):
            raise ValueError(f"something reads the whole list of {node.target}")
        pairs = {user: result[user.args[1]] for user in node.users}
    for old, new in pairs.items():
        old.replace_all_uses_with(new)
        program.graph_signature.replace_all_uses(old.name, new.name)
        node.graph.erase_node(old)
    if node not in pairs:
        node.graph.erase_node(node)


def _refresh(node: fx.Node, *, fresh: bool) -> None:
    """Compute a node's fake value again where its operation or an operand is not what it was computed for."""
    from torch.fx.passes.shape_prop import _extract_tensor_metadata

    node.meta = dict(node.meta)  # passes let several nodes share one
    leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
    values = [leaf.meta["val"] if isinstance(leaf, fx.Node) else leaf for leaf in leaves]
    seen = (node.target, tuple(_described(value) for value in values))
    if "val" not in node.meta or (not fresh and node.meta.get(_SEEN) != seen):
        args, kwargs = pytree.tree_unflatten(values, spec)
        node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]
        metadata = pytree.tree_map_only(torch.Tensor, _extract_tensor_metadata, node.meta["val"])
        node.meta["tensor_meta"] = metadata
    node.meta[_SEEN] = seen


def _described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype, value.stride()
    if isinstance(value, list | tuple):  # several results
        return tuple(_described(part) for part in value)
    return type(value).__name__, repr(value)
