"""The canonical graph of a model: its operations by stable name, who reads each, and where the network ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property

from torch import fx

from ..runtime.core.model_info import ModelInfo
from .ops import QUANTIZATION_AGNOSTIC, WEIGHTED, OpKind, OpNode


class Graph:
    """The canonical graph of one model at one input size.

    Attributes:
        module: The graph module; maps (1, channels, height, width) to the drop-in output.
        info: What the model is.
        ops: Every operation by stable name, in execution order.
    """

    def __init__(self, module: fx.GraphModule, info: ModelInfo, names: dict[str, str], ops: dict[str, OpNode]) -> None:
        # fx renames nodes when graphs are copied or rewritten in another order; plans are stored with names that must
        # outlive that.
        self.module, self.info, self.ops = module, info, ops
        self._fx_names = names  # stable name -> fx node name

    def node(self, name: str, module: fx.GraphModule | None = None) -> fx.Node:
        """The fx node of an operation, in this graph's module or in a copy of it."""
        target = self._fx_names[name]
        nodes = self._nodes if module is None else {n.name: n for n in module.graph.nodes}
        return nodes[target]

    def fx_name(self, name: str) -> str:
        """Name of the fx node of an operation; copies of the module keep it."""
        return self._fx_names[name]

    @cached_property
    def _nodes(self) -> dict[str, fx.Node]:
        return {n.name: n for n in self.module.graph.nodes}

    @cached_property
    def users(self) -> dict[str, tuple[str, ...]]:
        """Names of the operations that read each operation's result."""
        readers: dict[str, list[str]] = defaultdict(list)
        for op in self.ops.values():
            # an operation that reads one tensor twice (x + x) is one reader of it
            for source in dict.fromkeys(op.inputs):
                readers[source].append(op.name)
        return {name: tuple(readers[name]) for name in self.ops}

    @cached_property
    def heads(self) -> tuple[OpNode, ...]:
        """The last weighted operations before the decode tail; only a SiLU may stand between."""
        return tuple(
            op for op in self.ops.values() if not op.tail and op.kind in WEIGHTED and self._ends(self.end(op.name))
        )

    def end(self, name: str) -> str:
        """The operation whose result a weighted operation is read by: its SiLU's product, or itself."""
        readers = [self.ops[u] for u in self.users[name]]
        gates = {r.name for r in readers if r.kind is OpKind.UNIT and not r.tail}
        # a SiLU is a sigmoid and a product, and both read the convolution
        products = [r.name for r in readers if r.kind is OpKind.MUL and gates & set(r.inputs)]
        return products[0] if len(readers) == 2 and len(products) == 1 else name

    def _ends(self, name: str) -> bool:
        return all(self.ops[u].tail for u in self.users[name])

    def root(self, name: str) -> str:
        """The operation that computed the values which an operation merely passes on."""
        op = self.ops[name]
        # Chains are common (split, slice, reshape), and the range belongs to the first operation that computed the
        # values.
        while op.kind in QUANTIZATION_AGNOSTIC:
            op = self.ops[op.inputs[0]]
        return op.name

    def body(self) -> Iterator[OpNode]:
        """Operations before the decode tail, the input included."""
        return (op for op in self.ops.values() if not op.tail)

    def ancestors(self, name: str) -> frozenset[str]:
        """Every operation whose result flows into this one."""
        return self._ancestors[name]

    @cached_property
    def _ancestors(self) -> dict[str, frozenset[str]]:
        ancestors: dict[str, frozenset[str]] = {}
        for op in self.ops.values():
            ancestors[op.name] = (
                frozenset().union(*(ancestors[i] | {i} for i in op.inputs)) if op.inputs else frozenset()
            )
        return ancestors


def end_at(module: fx.GraphModule, nodes: Sequence[fx.Node]) -> None:
    """Let a copy of a graph's module return the results of some of its nodes, in place, and drop what follows."""
    (result,) = (n for n in module.graph.nodes if n.op == "output")
    result.args = (tuple(nodes),)
    module.graph.set_codegen(fx.graph.CodeGen())  # the exported one would restore the structure of the old outputs
    module.graph.eliminate_dead_code()
    module.recompile()
