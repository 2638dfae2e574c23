"""Signal to quantization noise of every point of a plan, in dB."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ..graph.trace import Graph
from .calibrate import weight_of
from .plan import Plan
from .qparams import fake_quantize
from .simulate import MODULE_PREFIX, FixedFakeQuantize, simulate


@dataclass(frozen=True)
class Stage:
    """A model at one end of a run: its graph, with the float weights of that moment, and its plan."""

    graph: Graph
    plan: Plan


def sqnr_db(signal: float, noise: float) -> float | None:
    """Ten times the decimal logarithm of signal power over noise power; None where either is zero."""
    return 10.0 * float(np.log10(signal / noise)) if signal > 0 and noise > 0 else None


def weight_sqnr(stage: Stage) -> dict[str, float]:
    """SQNR of every weight, BatchNorm folded in, by point name; weights that lie on their grid exactly are left out."""
    found: dict[str, float] = {}
    for point in stage.plan.weights:
        assert point.params is not None
        weight = weight_of(stage.graph, point).astype(np.float64)
        noise = fake_quantize(weight, point.params, point.spec) - weight
        value = sqnr_db(float((weight**2).sum()), float((noise**2).sum()))
        if value is not None:
            found[point.name] = value
    return found


def activation_sqnr(stage: Stage, images: Iterable[np.ndarray], reference: Graph | None = None) -> dict[str, float]:
    """SQNR of every activation point: the quantized forward against a float forward.

    The noise at a point is what all quantization up to and including it has added, not its own rounding alone.

    Args:
        stage: The model.
        images: float32 (1, channels, height, width) at the plan's size, 0 to 1.
        reference: Graph with the float weights to compare with, of the same model; the stage's own if None.

    Returns:
        By point name; points without signal or noise are left out.
    """
    beside = _Beside(simulate(stage.graph, stage.plan), (reference or stage.graph).module)
    with torch.no_grad():
        for image in images:
            beside.run(torch.from_numpy(np.ascontiguousarray(image, np.float32)))
    activations = {p.name for p in stage.plan.activations}
    values = {name: sqnr_db(*power) for name, power in beside.power.items() if name in activations}
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class _Pair:
    quantized: Any
    plain: Any


class _Beside(fx.Interpreter):
    """Runs a simulated graph and its float twin in step, so that no tensor must be kept for the comparison."""

    def __init__(self, simulated: fx.GraphModule, plain: fx.GraphModule) -> None:
        super().__init__(simulated)
        self._plain = fx.Interpreter(plain)
        self.power: dict[str, tuple[float, float]] = {}  # of signal and noise, by point

    def run_node(self, n: fx.Node) -> Any:
        if n.op in {"placeholder", "get_attr"}:
            value = super().run_node(n)
            return _Pair(value, self._plain.fetch_attr(str(n.target)) if n.op == "get_attr" else value)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        execute = getattr(self, n.op)
        quantized = execute(n.target, *_side(args, kwargs, lambda pair: pair.quantized))
        # the float twin has no such node: its value stays what it was in front of it
        if n.op == "call_module" and str(n.target).startswith(MODULE_PREFIX):
            pair = args[0]
            assert isinstance(pair, _Pair)
            self._compare(self.fetch_attr(str(n.target)), quantized, pair.plain)
            return _Pair(quantized, pair.plain)
        return _Pair(quantized, execute(n.target, *_side(args, kwargs, lambda pair: pair.plain)))

    def _compare(self, module: FixedFakeQuantize, quantized: Tensor, plain: Tensor) -> None:
        signal, noise = self.power.get(module.point, (0.0, 0.0))
        # sums of millions of squares: float32 would lose the noise
        signal += float(plain.double().square().sum())
        noise += float((quantized.double() - plain.double()).square().sum())
        self.power[module.point] = signal, noise


def _side(args: Any, kwargs: Any, choose: Callable[[_Pair], Any]) -> tuple[Any, Any]:
    def pick(value: Any) -> Any:
        return choose(value) if isinstance(value, _Pair) else value

    return fx.node.map_aggregate(args, pick), fx.node.map_aggregate(kwargs, pick)
