"""Put the results of a classifier's layers back where the float model has them: one number per channel, in the biases.

Rounding errors of one tensor are not independent. A channel that is nearly constant is off by the same amount at every
place, and where operands are bright together a rounded weight shifts all results alike. Such errors do not average out
on their way to the class scores. What many images have of them in common is a number per channel, which the bias of the
layer behind can take away, at no cost on the device (bias correction: Nagel et al. 2019, arXiv 1906.04721, section
4.2). Layers are corrected in the order in which they run, each on what the corrected ones in front of it make of the
images.

A result counts by how much the activation behind it lets through. The mean of all results is not what matters: where
large values are clipped it falls, and to raise it would lift thousands of negative values that the activation rules
out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ..graph.head_outputs import Readout, head_outputs
from ..graph.trace import WEIGHTED, Graph, OpKind, OpNode
from .insert import copy_module
from .plan import Plan, Role
from .raw_heads import end_at_heads
from .scheme import role
from .score_shift import Shifts
from .simulate import simulate, with_rounded_weights

IMAGES = 64
"""Calibration images that it is fitted on; fewer where one image's activations are large."""
LEAST_IMAGES = 8
LIMIT_BYTES = 1 << 30
"""Memory for the activations of all images together, of which a layer's are kept at a time."""
RIDGE = 1e-3
"""Share of the mean weight of a layer's channels that draws each shift to 0: of some nothing is ever let through."""
_AT_A_TIME = 8  # tensors of an image's largest size that live together: operands and results, float and rounded


def is_shifted(graph: Graph) -> bool:
    """Whether class scores come from a softmax over one vector, which no single number per head could move."""
    return any(head.readout is Readout.CLASS_SOFTMAX for head in head_outputs(graph))


def layer_shifts(
    graph: Graph,
    plans: Sequence[Plan],
    images: Iterable[np.ndarray],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Shifts]:
    """Fit the shifts of several plans.

    Args:
        graph: The canonical graph of a classifier.
        plans: Calibrated plans derived from it.
        images: Calibration images, float32 (1, channels, height, width), 0 to 1; no more than ``affordable`` are taken.
        progress: Called after each plan with the count so far and of all.

    Returns:
        By scheme, bias corrections of every layer that has a bias and runs once.
    """
    few = [torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in islice(images, affordable(graph))]
    layers = _layers(graph)
    alike = {plan.computed: plan for plan in plans}  # some schemes differ in what their runtimes look for alone
    found: dict[Hashable, Shifts] = {}
    for key, plan in alike.items():
        found[key] = _shifts(graph, plan, few, layers)
        if progress:
            progress(len(found), len(alike))
    return {plan.scheme: dict(found[plan.computed]) for plan in plans}


def affordable(graph: Graph) -> int:
    """How many images are kept together."""
    largest = max((int(np.prod(op.shape)) for op in graph.body() if op.shape is not None), default=1)
    return min(max(LIMIT_BYTES // (4 * largest * _AT_A_TIME), LEAST_IMAGES), IMAGES)


def _layers(graph: Graph) -> dict[str, OpNode]:
    """Layers with a bias of their own, by the name of their node."""
    parameters = {name for name, _ in graph.module.named_parameters()}
    runs: dict[str, list[OpNode]] = defaultdict(list)
    for op in graph.body():
        if op.kind in WEIGHTED and op.weight:
            runs[op.weight.removesuffix(".weight")].append(op)
    # one bias cannot be right for several runs
    return {
        graph.fx_name(ops[0].name): ops[0]
        for path, ops in runs.items()
        if len(ops) == 1 and f"{path}.bias" in parameters
    }


def _shifts(graph: Graph, plan: Plan, images: Sequence[Tensor], layers: dict[str, OpNode]) -> Shifts:
    float_walk = _walk(end_at_heads(graph, copy_module(graph)), images)
    rounded = _walk(with_rounded_weights(end_at_heads(graph, simulate(graph, plan))), images)
    shifts: Shifts = {}
    with torch.inference_mode():
        for name, results in rounded:
            if name not in layers:
                continue
            op = layers[name]
            # both run in the order of the graph
            exact = next(values for node, values in float_walk if node == name)
            axis = 1 if op.kind is not OpKind.LINEAR else exact[0].dim() - 1
            passes = _passes(graph, op)
            shift = fitted(exact, results, passes, axis)
            shape = [1] * axis + [-1] + [1] * (exact[0].dim() - axis - 1)
            # what runs behind it sees the corrected results
            results[:] = [value + shift.reshape(shape) for value in results]
            shifts[op.weight.removesuffix(".weight")] = shift.numpy().copy()
    return shifts


def fitted(exact: Sequence[Tensor], rounded: Sequence[Tensor], passes: Callable[[Tensor], Tensor], axis: int) -> Tensor:
    """What to add to each channel of a layer's rounded results, for the least squared error behind the activation.

    Args:
        exact: The float model's results, one tensor per image.
        rounded: The plan's.
        passes: How much of a small change the activation lets through, at the float model's results.
        axis: Axis of the channels.

    Returns:
        float32 (channels,).
    """
    error, weight = torch.zeros(()), torch.zeros(())
    for right, got in zip(exact, rounded, strict=True):
        counts = passes(right).square()
        others = [i for i in range(right.dim()) if i != axis]
        error = error + (counts * (right - got)).sum(others, dtype=torch.float64)
        weight = weight + counts.sum(others, dtype=torch.float64)
    return (error / (weight + RIDGE * weight.mean()).clamp(min=torch.finfo(torch.float64).tiny)).float()


def _passes(graph: Graph, op: OpNode) -> Callable[[Tensor], Tensor]:
    if role(graph, op) is Role.PRE_ACTIVATION:
        return silu_slope
    readers = graph.users[op.name]
    if len(readers) == 1 and graph.ops[readers[0]].kind is OpKind.RELU:
        return lambda x: (x > 0).to(x.dtype)
    return torch.ones_like


def silu_slope(x: Tensor) -> Tensor:
    """Derivative of ``x * sigmoid(x)``."""
    gate = x.sigmoid()
    return gate * (1 + x * (1 - gate))


def _walk(module: fx.GraphModule, images: Sequence[Tensor]) -> Iterator[tuple[str, list[Tensor]]]:
    """Run each operation on all images before the next one.

    Yields:
        Name and results, one per image, of every operation that returns a tensor; what the list is changed to is what
        the operations behind it read.
    """
    modules = dict(module.named_modules())
    last = {source: node for node in module.graph.nodes for source in node.all_input_nodes}
    values: dict[fx.Node, list[object]] = {}
    interpreter = fx.Interpreter(module)
    for node in module.graph.nodes:
        if node.op == "output":
            return
        if node.op == "placeholder":
            values[node] = list(images)
        elif node.op == "get_attr":
            values[node] = [interpreter.fetch_attr(str(node.target))] * len(images)
        else:
            function = modules[str(node.target)] if node.op == "call_module" else node.target
            assert callable(function)
            with torch.inference_mode():
                values[node] = [_called(function, node, values, i) for i in range(len(images))]
        if isinstance(values[node][0], Tensor):
            yield node.name, values[node]  # type: ignore[misc]
        # an activation of all images takes megabytes: it goes as soon as nobody reads it any more
        for source in node.all_input_nodes:
            if last[source] is node:
                del values[source]


def _called(function: Callable[..., object], node: fx.Node, values: dict[fx.Node, list[object]], image: int) -> object:
    def value(source: fx.Node) -> Any:
        return values[source][image]

    args: Any = fx.map_arg(node.args, value)
    kwargs: Any = fx.map_arg(node.kwargs, value)
    return function(*args, **kwargs)
