"""Simulate a plan in PyTorch: the reference that every artifact is held against, and what training will learn on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..graph.trace import Graph
from .insert import insert
from .plan import Plan, Point
from .qparams import QParams, QuantSpec
from .tensor_grid import on_grid

MODULE_PREFIX = "fake_quantize_"


class FixedFakeQuantize(nn.Module):
    """Quantize and dequantize in float32, with fixed parameters.

    Attributes:
        point: Name of the point that it realises.
        scale: float32 buffer, (1,) or (channels,).
        zero_point: int32 buffer of the same shape.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, point: str, params: QParams, spec: QuantSpec) -> None:
        super().__init__()
        self.point, self.spec = point, spec
        # a copy: torch would write through to the plan's own array, which is shared between plans
        self.register_buffer("scale", torch.from_numpy(np.atleast_1d(params.scale).copy()))
        self.register_buffer("zero_point", torch.from_numpy(np.atleast_1d(params.zero_point).copy()))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` on its grid; shape and dtype stay."""
        spec = self.spec
        if spec.axis is not None and self.scale.numel() > 1:
            # torch's kernels round half to even and compute in float32, like ONNX's QuantizeLinear
            return torch.fake_quantize_per_channel_affine(
                x, self.scale, self.zero_point, spec.axis, spec.qmin, spec.qmax
            )
        if torch.is_grad_enabled() and x.requires_grad:
            return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, spec.qmin, spec.qmax)
        return on_grid(x, self.scale, int(self.zero_point), spec)


def simulate(graph: Graph, plan: Plan, *, bias: dict[str, np.ndarray] | None = None) -> fx.GraphModule:
    """A copy of the graph with a fake-quantize module at every point of the plan.

    Args:
        graph: The canonical graph.
        plan: A calibrated plan derived from it.
        bias: Bias corrections, see ``insert``.

    Returns:
        A module with the graph's signature.
    """

    def make(module: fx.GraphModule, source: fx.Node, point: Point, place: str) -> fx.Node:
        assert point.params is not None
        name = f"{MODULE_PREFIX}{source.name}"
        module.add_submodule(name, FixedFakeQuantize(point.name, point.params, point.spec))
        node = module.graph.call_module(name, (source,))
        node.meta = dict(source.meta)
        return node

    return insert(graph, plan, make, bias=bias)


def with_rounded_weights(module: fx.GraphModule) -> fx.GraphModule:
    """Round the weights of a simulation once, instead of in every forward pass: for one that only runs.

    Args:
        module: What ``simulate`` returned, or a part of it; changed in place.

    Returns:
        The module, with constants where weights were quantized; its results are the same bit for bit.
    """
    made = dict(module.named_modules())
    parameters = dict(module.named_parameters())
    for node in list(module.graph.nodes):
        fake = made.get(str(node.target)) if node.op == "call_module" else None
        source = node.args[0] if isinstance(fake, FixedFakeQuantize) else None
        if fake is None or not isinstance(source, fx.Node) or source.target not in parameters:
            continue
        name = f"{node.target}_value"
        with torch.no_grad():
            module.register_buffer(name, fake(parameters[str(source.target)].detach()))
        with module.graph.inserting_before(node):
            constant = module.graph.get_attr(name)
        node.replace_all_uses_with(constant)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module
