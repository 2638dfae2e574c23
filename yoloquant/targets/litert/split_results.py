"""Several ranges within one result: LiteRT stores one scale per tensor, so the convolution becomes several.

Each part computes some of the channels, with the rows of the weight and of the bias that belong to them: the same
products in the same integers, and as much work as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ...errors import TargetError
from .mapping import constant_of
from .qdq import PER_CHANNEL, PER_TENSOR

aten = torch.ops.aten
_GROUPS = 6
"""Place of the number of groups among a convolution's arguments."""


@dataclass(frozen=True)
class ResultPart:
    """A convolution that computes some channels of an operation's result.

    Attributes:
        operation: Name of the fx node of that operation.
        channels: The channels, in the order of its own.
        weight: Path of its own weight in the body.
    """

    operation: str
    channels: tuple[int, ...]
    weight: str


def split_results(body: fx.GraphModule, parts: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, ResultPart]:
    """Split the outputs of a body that have a scale per channel, in place.

    The first part takes the output's place; the further parts of all of them follow behind the last one.

    Args:
        body: What ``cut_body`` returns.
        parts: Channels that have one range each, by the name of the fx node that computes them together.

    Returns:
        The parts by the name of the fx node that computes them.

    Raises:
        TargetError: Something else than a plain convolution computes such an output, or its channels have more ranges.
    """
    (result,) = (n for n in body.graph.nodes if n.op == "output")
    outputs: list[fx.Node] = list(result.args[0])
    found: dict[str, ResultPart] = {}
    behind: dict[int, list[fx.Node]] = {}  # further parts, by their number
    last = 0
    for index, output in enumerate(outputs):
        if output.target is not PER_CHANNEL[1] or output.args[3] != 1:
            continue
        computes = output.args[0].args[0]  # type: ignore[union-attr]
        assert isinstance(computes, fx.Node)
        groups = computes.args[_GROUPS] if len(computes.args) > _GROUPS else computes.kwargs.get("groups", 1)
        if computes.target is not aten.conv2d.default or groups != 1:
            raise TargetError(f"{computes.name} has several ranges and is no plain convolution, which LiteRT can split")
        for number, channels in enumerate(parts[computes.name]):
            node, part = _part(body, computes, output, channels, number)
            found[node.name] = part
            pair = next(iter(next(iter(node.users)).users))
            if number == 0:
                outputs[index] = pair
            else:
                behind.setdefault(number, []).append(pair)
        last = index + 1
    further = [pair for number in sorted(behind) for pair in behind[number]]
    result.args = ((*outputs[:last], *further, *outputs[last:]),)
    body.graph.eliminate_dead_code()
    body.graph.lint()
    body.recompile()
    return found


def _part(
    body: fx.GraphModule, whole: fx.Node, pair: fx.Node, channels: Sequence[int], number: int
) -> tuple[fx.Node, ResultPart]:
    rows, name = list(channels), f"{whole.name}_part{number}"
    weight = whole.args[1]
    assert isinstance(weight, fx.Node)  # ``mapping.integers`` will say so where it is not quantized
    holder = nn.Module()
    body.add_submodule(name, holder)

    def own(attribute: str, value: Tensor, *, trained: bool = False) -> fx.Node:
        if trained:
            holder.register_parameter(attribute, nn.Parameter(value, requires_grad=False))
        else:
            holder.register_buffer(attribute, value)
        return body.graph.get_attr(f"{name}.{attribute}")

    with body.graph.inserting_before(whole):
        quantized = weight.args[0]
        assert isinstance(quantized, fx.Node)
        source = own("weight", constant_of(body, quantized.args[0])[rows].clone(), trained=True)  # type: ignore[arg-type]
        grid = quantized.args[1:]
        if quantized.target is PER_CHANNEL[0]:
            scale, zero = (constant_of(body, node)[rows].clone() for node in grid[:2])  # type: ignore[arg-type]
            grid = (own("scale", scale), own("zero_point", zero), *grid[2:])
        integers = body.graph.call_function(quantized.target, (source, *grid))  # type: ignore[arg-type]
        dequantized = body.graph.call_function(weight.target, (integers, *grid))  # type: ignore[arg-type]
        bias = whole.args[2] if len(whole.args) > 2 else None
        if isinstance(bias, fx.Node):
            bias = own("bias", constant_of(body, bias)[rows].clone(), trained=True)
        node = body.graph.call_function(whole.target, (whole.args[0], dequantized, bias, *whole.args[3:]), whole.kwargs)  # type: ignore[arg-type]
        scale, zero = (constant_of(body, a)[rows] for a in pair.args[1:3])  # type: ignore[arg-type]
        if len(torch.unique(scale)) > 1 or len(torch.unique(zero)) > 1:
            raise TargetError(f"channels of {whole.name} that LiteRT computes together have several ranges")
        values = (float(scale[0]), int(zero[0]), *pair.args[4:])
        integers = body.graph.call_function(PER_TENSOR[0], (node, *values))
        body.graph.call_function(PER_TENSOR[1], (integers, *values))
    return node, ResultPart(whole.name, tuple(rows), f"{name}.weight")
