"""Put learned ranges into a live model, and take them out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ...errors import PlanError
from ...graph.trace import Graph
from ...quantization.insert import add_bias
from ...quantization.plan import Plan
from .function_hooks import NAME, Quantizers, Recorder
from .hook_plan import Wiring, wire
from .lsq import LSQQuantizer, learned_plan, learned_ranges

TOLERANCE = 1e-3  # relative; folded and unfolded convolutions differ by rounding only


def prepare_qat(model: nn.Module, graph: Graph, plan: Plan, *, offset: bool = False, heads: bool = False) -> Quantizers:
    """Make a live model compute what ``simulate(graph, plan)`` computes, with trainable ranges.

    Args:
        model: A live Ultralytics ``BaseModel``, not fused; re-parametrizable blocks in it are merged.
        graph: Its canonical graph.
        plan: A calibrated plan of that graph.
        offset: Learn zero_points of affine points too.
        heads: Learn the ranges of raw head outputs too.

    Returns:
        The ranges, also found as the model's ``quantizers``.

    Raises:
        PlanError: The model does not run an operation that the plan names, or computes something else there.
    """
    # a model that carries hooks already would be quantized twice
    detach(model)
    # before any hook is set: merging puts new convolutions into the model
    merge_branches(model)
    quantizers = Quantizers(model, learned_ranges(plan, offset=offset, heads=heads), _renamed(model, graph))
    try:
        recorder = _record(model, quantizers, graph)
        wiring = wire(graph, plan, recorder.silus)
        _check(graph, wiring, recorder)
        unfolded = {op.name for op in graph.ops.values() if op.name in recorder.folded and "transpose" in op.name}
        if unfolded:
            raise PlanError(f"{unfolded.pop()} is a transposed convolution with BatchNorm, which cannot be trained")
    # also on Ctrl-C: hooks that stayed would trace every later forward
    except BaseException:
        quantizers.remove()
        raise
    quantizers.connect(wiring, recorder.folded)
    device = next(model.parameters()).device
    # as a module of the model: optimizer, average, checkpoints and devices reach its parameters by themselves
    model.add_module(NAME, quantizers.to(device))
    return quantizers


def detach(model: nn.Module) -> None:
    """Turn a model back into the plain one, in place; nothing happens if it is plain."""
    quantizers = getattr(model, NAME, None)
    if isinstance(quantizers, Quantizers):
        quantizers.remove()
        delattr(model, NAME)


def ranges_of(model: nn.Module) -> dict[str, LSQQuantizer]:
    """A model's ranges by point name."""
    return quantizers_of(model).by_name()


def quantizers_of(model: nn.Module) -> Quantizers:
    """What ``prepare_qat`` put into a model."""
    quantizers = getattr(model, NAME, None)
    if not isinstance(quantizers, Quantizers):
        raise PlanError("this model carries no quantizers; call prepare_qat first")
    return quantizers


def current_plan(model: nn.Module, plan: Plan) -> Plan:
    """The plan with the model's ranges as they stand."""
    return learned_plan(plan, ranges_of(model))


def live_corrections(model: nn.Module, graph: Graph, corrections: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Corrections of biases by the paths of a live model; its graph may call an end-to-end head's branch otherwise."""
    prefixes = {traced: live for live, traced in _renamed(model, graph).items() if traced}
    parameters, found = dict(model.named_parameters()), {}
    for path, value in corrections.items():
        traced = next((p for p in prefixes if path.startswith(f"{p}.")), "")
        live = prefixes.get(traced, "") + path.removeprefix(traced)
        # a graph's bias may be a BatchNorm's, folded: what is added to the one is added to the other
        norm = f"{live.rpartition('.')[0]}.bn"
        place = next((p for p in (live, norm) if f"{p}.bias" in parameters), "")
        # a layer that neither has starts without the correction
        if place and parameters[f"{place}.bias"].shape == np.shape(value):
            found[place] = value
    return found


@contextmanager
def corrected(model: nn.Module, corrections: Mapping[str, np.ndarray]) -> Iterator[None]:
    """While it lasts, a live model's biases are corrected; then they are what they were, bit for bit."""
    biases = [model.get_parameter(f"{path}.bias") for path in corrections]
    before = [bias.data for bias in biases]
    add_bias(model, corrections)
    try:
        yield
    finally:
        for bias, value in zip(biases, before, strict=True):
            bias.data = value


def merge_branches(model: nn.Module) -> None:
    """Merge re-parametrizable blocks (RepConv, RepVGGDW, Conv2) in place, as exports do, into one convolution each."""
    block: Any
    for block in list(model.modules()):
        kind = type(block).__name__
        if kind in {"RepConv", "RepVGGDW"} and (hasattr(block, "conv1") or hasattr(block, "conv2")):
            # RepVGGDW calls it ``fuse`` (Ultralytics 8.4.190)
            block.fuse_convs() if hasattr(block, "fuse_convs") else block.fuse()
            block.forward = block.forward_fuse
        elif kind == "Conv2" and hasattr(block, "cv2"):
            block.fuse_convs()
    # Ultralytics' merged convolutions come without gradients
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def _renamed(model: nn.Module, graph: Graph) -> dict[str, str]:
    """Live prefixes that the graph calls otherwise; an empty name for a branch that the graph lacks.

    Fusing an end-to-end head drops its one-to-many branch, and recent releases give the one-to-one branch its name.
    """
    layers: Any = model.model
    head = layers[-1]
    base = f"model.{len(layers) - 1}"
    traced = {op.module for op in graph.ops.values()}
    names: dict[str, str] = {}
    for name, child in head.named_children():
        if not name.startswith("one2one_") or child is None:
            continue
        plain = name.removeprefix("one2one_")
        if any(m.startswith(f"{base}.{name}.") for m in traced):
            continue
        if graph.info.end2end:
            names[f"{base}.{name}"], names[f"{base}.{plain}"] = f"{base}.{plain}", ""
        else:
            names[f"{base}.{name}"] = ""
    return names


def _record(model: nn.Module, quantizers: Quantizers, graph: Graph) -> Recorder:
    recorder = quantizers.recorder = Recorder()
    quantizers.enabled = False
    training = model.training
    model.eval()
    layers: Any = model.model
    layers[-1].training = True  # raw outputs: the decode is not trained
    try:
        with torch.no_grad():
            device = next(model.parameters()).device
            model(_probe(graph).to(device))
    finally:
        model.train(training)
        quantizers.recorder, quantizers.enabled = None, True
    return recorder


def _probe(graph: Graph) -> Tensor:
    # twice the same image: the live model and its graph are compared on it
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, graph.info.channels, *graph.info.imgsz, generator=generator)


class _Values(fx.Interpreter):
    def __init__(self, graph: Graph, wanted: frozenset[str]) -> None:
        super().__init__(graph.module)
        self.names = {graph.fx_name(n): n for n in wanted}
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.names:
            self.values[self.names[n.name]] = result
        return result


def _check(graph: Graph, wiring: Wiring, recorder: Recorder) -> None:
    """Every place of the wiring must exist in the live model and hold the value that the graph has there."""
    # the network's input is no call of any layer
    operations = wiring.operations() - {"images"}
    missing = sorted(operations - set(recorder.values))
    if missing:
        raise PlanError(
            f"the live model never calls {missing[0]} ({len(missing)} such operations), so it cannot be trained with "
            "this plan; this layer's forward differs between training and export"
        )
    traced = _Values(graph, operations)
    with torch.no_grad():
        traced.run(_probe(graph))
    for name, value in traced.values.items():
        live = recorder.values[name].float().cpu()
        if live.shape != value.shape or not torch.allclose(
            # relative to the largest value too: near zero a rounding error is larger than any share of it
            live,
            value,
            rtol=TOLERANCE,
            atol=TOLERANCE * max(float(value.abs().max()), 1e-6),
        ):
            raise PlanError(f"{name} holds other values in the live model than in its graph; the names do not match")
