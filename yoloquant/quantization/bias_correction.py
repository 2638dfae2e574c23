"""Repair after calibration, without labels: bias correction.

Quantizing weights and clipping activations shifts the mean of each channel. The shift is measured on calibration images
and taken out of the bias (Nagel et al. 2019, arXiv 1906.04721, section 4.2, with measured instead of modelled means).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ..graph.trace import WEIGHTED, Graph, OpNode
from .plan import Plan
from .simulate import simulate


def correct_bias(graph: Graph, plan: Plan, images: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Find what to add to each bias so that every channel keeps its float mean.

    The float and the simulated graph run side by side, operation by operation, over all images; each correction is
    applied before the next operation runs, so later ones see the repaired network.

    Args:
        graph: The canonical graph.
        plan: A calibrated plan.
        images: A few calibration images, float32 (1, channels, height, width); all are held in memory.

    Returns:
        Corrections by module path, float32 (channels,), for every quantized convolution and linear layer with a bias.
    """
    inputs = [torch.from_numpy(np.ascontiguousarray(i, np.float32)) for i in images]
    quantized = {p.name.removesuffix(":weight") for p in plan.weights}
    named = {
        graph.fx_name(op.name): op
        for op in graph.ops.values()
        if op.kind in WEIGHTED and op.weight.removesuffix(".weight") in quantized
    }
    reference = _Lockstep(graph.module, named, inputs)
    repaired = _Lockstep(simulate(graph, plan), named, inputs)
    corrections: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for (op, wanted), (_, got) in zip(reference.steps(), repaired.steps(), strict=True):
            axis = [d for d in range(wanted[0].dim()) if d != 1] if wanted[0].dim() > 2 else [0]
            delta = torch.stack([w.mean(axis) - g.mean(axis) for w, g in zip(wanted, got, strict=True)]).mean(0)
            path = op.weight.removesuffix(".weight")
            if f"{path}.bias" in dict(graph.module.named_parameters()):
                corrections[path] = np.asarray(delta.numpy(), np.float32)
                shape = [1, -1] + [1] * (wanted[0].dim() - 2)
                for g in got:
                    g += delta.reshape(shape)
    return corrections


class _Lockstep:
    """Executes a graph operation by operation over several images at once."""

    def __init__(self, module: fx.GraphModule, stops: dict[str, OpNode], inputs: list[Tensor]) -> None:
        self.runner, self.stops, self.inputs = fx.Interpreter(module), stops, inputs
        self.last_use: dict[fx.Node, list[fx.Node]] = {}
        seen: set[fx.Node] = set()
        for node in reversed(module.graph.nodes):
            for source in node.all_input_nodes:
                if source not in seen:
                    seen.add(source)
                    self.last_use.setdefault(node, []).append(source)

    def steps(self) -> Any:
        """Yield every stop with its results, one per image; changing them changes what follows."""
        values: list[dict[fx.Node, Any]] = [{} for _ in self.inputs]
        for node in self.runner.module.graph.nodes:  # type: ignore[union-attr]
            if node.op == "output":
                return
            for image, env in zip(self.inputs, values, strict=True):
                env[node] = image if node.op == "placeholder" else self._run(node, env)
            if node.name in self.stops:
                yield self.stops[node.name], [env[node] for env in values]
            for done in self.last_use.get(node, ()):
                for env in values:
                    del env[done]

    def _run(self, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        args = fx.node.map_arg(node.args, lambda n: env[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: env[n])
        return getattr(self.runner, node.op)(node.target, args, kwargs)
