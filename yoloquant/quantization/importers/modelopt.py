"""Read checkpoints of Ultralytics' native QAT (``train(quantize=8)``) and take their ranges over into plans.

Such a checkpoint holds the plain float model and, under ``modelopt``, the state of NVIDIA ModelOpt's quantizers as
plain data, so neither package is needed here. Its grid is symmetric int8 with ``scale = amax / 127`` and zero_point 0:
one range per tensor for what a layer reads, one per output channel for a weight. Ranges of weights belong to the
weights before BatchNorm is folded into them and are scaled along.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError
from ...graph.ops import OpKind
from ..plan import Plan, Point
from ..qparams import QParams, from_range
from ..scheme import weight_point_name
from .modelopt_reach import Reach

if TYPE_CHECKING:
    from torch import nn

    from ...bridge.host_model import HostModel
    from ...graph.trace import Graph

logger = logging.getLogger(__name__)

ALGORITHM = "native"
BITS = 8
_INPUT, _WEIGHT, _AMAX = ".input_quantizer", ".weight_quantizer", "._amax"
_UNUSUAL = ("_unsigned", "_block_sizes", "_bias", "_rotate", "_dynamic", "_use_constant_amax")
"""Settings of a quantizer that change its grid; Ultralytics leaves all of them off."""


@dataclass(frozen=True)
class NativeRanges:
    """The quantizers of a native QAT checkpoint.

    Attributes:
        inputs: Largest magnitude that a layer reads without clipping, by module path.
        weights: The same of its weight before fusing, float32 (channels,) or (1,), by module path.
        disabled: Quantizers that are switched off and whose ranges therefore mean nothing: the head's last layers.
        unsupported: Quantizers with another grid than symmetric int8 with a fixed range.
        version: ModelOpt release that wrote it.
    """

    inputs: Mapping[str, np.float32]
    weights: Mapping[str, np.ndarray]
    disabled: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    version: str = ""


def read(state: Any, source: str = "the checkpoint") -> NativeRanges:
    """Read the state that Ultralytics stores under ``modelopt``.

    Args:
        state: What the checkpoint holds there.
        source: Where it comes from, for messages.

    Returns:
        Ranges of every quantizer that is switched on and has a grid that a plan can hold.

    Raises:
        ModelError: The state is damaged, or of a layout that this release does not know.
    """
    try:
        settings = _settings(state["modelopt"]["modelopt_state_dict"])
        ranges = {str(k): _array(v) for k, v in state["ranges"].items() if str(k).endswith(_AMAX)}
        scaled = {str(k).rpartition(".")[0] for k in state["ranges"] if str(k).endswith("_pre_quant_scale")}
        version = str(state["modelopt"].get("modelopt_version", ""))
        inputs: dict[str, np.float32] = {}
        weights: dict[str, np.ndarray] = {}
        disabled, unsupported = [], []
        for name, setting in settings.items():
            amax = ranges.get(name + _AMAX)
            if setting["_disabled"]:
                # Without a range it never was in use, so nothing of it is lost.
                disabled += [name] if amax is not None else []
            elif amax is None or name in scaled or not _is_plain(name, setting, amax):
                unsupported.append(name)
            elif name.endswith(_INPUT):
                inputs[name.removesuffix(_INPUT)] = amax[0]
            else:
                weights[name.removesuffix(_WEIGHT)] = amax
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
        raise ModelError(
            f"the native QAT state in '{source}' is damaged or of an unknown layout ({exc!r}); expected is what "
            "Ultralytics 8.4.190 saves with nvidia-modelopt 0.44 to 0.47. Train again, or remove the checkpoint's "
            "'modelopt' entry to quantize it as a float model"
        ) from exc
    bad = [path for found in (inputs, weights) for path, v in found.items() if not np.all(np.isfinite(v) & (v >= 0))]
    if bad:
        raise ModelError(f"'{source}' has a NaN, infinite or negative native QAT range at {bad[0]}; train it again")
    # a range of 0 means that calibration never saw the layer at work
    inputs = {path: amax for path, amax in inputs.items() if amax > 0}
    return NativeRanges(inputs, weights, tuple(disabled), tuple(unsupported), version)


def _settings(modes: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Mapping[str, Any]]:
    """Settings of every quantizer by name, as the last step of the conversion left them."""
    found: dict[str, Mapping[str, Any]] = {}
    for _, mode in modes:
        found.update(mode["metadata"].get("quantizer_state", {}))
    if not found:
        raise ValueError("no quantizer settings")
    return {str(name): dict(setting) for name, setting in found.items()}


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu().float().numpy(), np.float32).reshape(-1)


def _is_plain(name: str, setting: Mapping[str, Any], amax: np.ndarray) -> bool:
    """Whether a quantizer has symmetric int8 with one range, or for a weight one per output channel."""
    if setting["_num_bits"] != BITS or any(setting.get(key) for key in _UNUSUAL):
        return False
    axis = setting.get("_axis")
    return (name.endswith(_INPUT) and axis is None and amax.size == 1) or (name.endswith(_WEIGHT) and axis in (None, 0))


def take_over(graph: Graph, model: HostModel, plans: Sequence[Plan]) -> tuple[tuple[Plan, ...], dict[str, Any]]:
    """Put the ranges of a native QAT checkpoint into plans; what they lack is left for calibration.

    A point whose readers were trained with different ranges, and all points that share a range with it, get the largest
    of them, so that nothing is clipped that training did not clip. Activations get zero_point 0 in every scheme.

    Args:
        graph: The canonical graph of the model.
        model: The model, from ``bridge.checkpoint.load_model``.
        plans: Plans that were derived from the graph.

    Returns:
        The plans, with points of algorithm ``native`` and a note each, and the provenance as plain data; plans of a
        checkpoint without native QAT come back as they are, with empty provenance.

    Raises:
        ModelError: The checkpoint's quantizer state is damaged.
    """
    if not model.native:
        return tuple(plans), {}
    native = read(model.native, model.source)
    reach = Reach(graph, native.inputs)
    weights = fused_weights(graph, model.module, native)
    taken = {plan.scheme: _Takeover(plan, reach, weights).run() for plan in plans}
    counts = {scheme: summary for scheme, (_, summary) in taken.items()}
    logger.warning(
        "%s was trained with Ultralytics' native QAT: its ranges of %d layer inputs and %d weights are taken over, the "
        "rest is calibrated",
        model.source,
        len(set(reach.readers.values())),
        len(weights),
    )
    provenance = {
        "modelopt": native.version,
        "inputs": len(native.inputs),
        "weights": len(native.weights),
        "disabled": len(native.disabled),
        "unsupported": list(native.unsupported),
        "plans": counts,
    }
    return tuple(plan for plan, _ in taken.values()), provenance


def fused_weights(graph: Graph, module: nn.Module, native: NativeRanges) -> dict[str, np.ndarray]:
    """Ranges of the weights that fusing leaves behind.

    BatchNorm multiplies output channel c by ``gamma[c] / sqrt(var[c] + eps)``, and the range with its magnitude, so
    that the integers stay those that training saw. Each is held against the fused weight itself: what fusing merged
    from several branches (RepConv) has no range of its own.

    Args:
        graph: The canonical graph of the fused model.
        module: The model before fusing.
        native: Its ranges.

    Returns:
        Largest magnitude by name of the weight point, float32 (output channels,).
    """
    found: dict[str, np.ndarray] = {}
    for op in graph.ops.values():
        layer = op.weight.rpartition(".")[0]
        if layer not in native.weights or op.kind is OpKind.CONV_TRANSPOSE:  # whose axis 0 are input channels
            continue
        weight, fused = _parameter(module, f"{layer}.weight"), _parameter(graph.module, op.weight)
        amax = native.weights[layer]
        if weight is None or fused is None or weight.shape != fused.shape or amax.size not in (1, len(fused)):
            continue
        factor = _fold_factor(module, layer, len(fused))
        folded = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        if np.allclose(folded, fused, rtol=1e-3, atol=1e-5 * float(np.abs(fused).max(initial=0.0))):
            found[weight_point_name(op)] = (amax * np.abs(factor)).astype(np.float32)
    return found


def _parameter(module: nn.Module, path: str) -> np.ndarray | None:
    try:
        return np.asarray(module.get_parameter(path).detach().cpu().float().numpy(), np.float32)
    except AttributeError:  # fusing merged or dropped the layer
        return None


def _fold_factor(module: nn.Module, layer: str, channels: int) -> np.ndarray:
    """What BatchNorm multiplies each channel of a layer with, float32 (channels,); ones where there is none."""
    import torch

    norm = getattr(module.get_submodule(layer.rpartition(".")[0]), "bn", None)
    if not isinstance(norm, torch.nn.BatchNorm2d) or norm.num_features != channels or norm.running_var is None:
        return np.ones(channels, np.float32)
    with torch.no_grad():
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return np.asarray(factor.cpu().numpy(), np.float32)


class _Takeover:
    """Fills one plan with native ranges and counts what became of them."""

    def __init__(self, plan: Plan, reach: Reach, weights: Mapping[str, np.ndarray]) -> None:
        self.plan, self.reach, self.weights = plan, reach, weights
        self.found: dict[str, QParams] = {}
        self.factors: dict[str, float] = {}  # layer -> how many times wider the range of its input became

    def run(self) -> tuple[Plan, dict[str, Any]]:
        """The plan and its counts."""
        for point in self.plan.weights:
            amax = self.weights.get(point.name)
            if amax is not None and point.spec.bits == BITS:
                # A scheme with one scale for the whole weight gets the largest channel's.
                self.found[point.name] = _params(point, amax if point.spec.axis is not None else amax.max())
        for members in self.plan.groups().values():
            self._group([p for p in members if not p.fixed])
        summary = self._summary()
        plan = replace(
            self.plan,
            points=tuple(self._filled(p) for p in self.plan.points),
            notes=(*self.plan.notes, *self._notes(summary)),
        )
        return plan, summary

    def _group(self, members: Sequence[Point]) -> None:
        layers = self.reach.layers(members) if all(p.spec.bits == BITS for p in members) else frozenset()
        if not layers:
            return
        ranges = {layer: self.reach.inputs[layer] for layer in layers}
        amax = max(ranges.values())
        self.found.update({p.name: _params(p, amax) for p in members})
        for layer, own in ranges.items():
            # A layer may read several of the members: the widest tells how much coarser its input became.
            self.factors[layer] = max(float(amax / own), self.factors.get(layer, 1.0))

    def _filled(self, point: Point) -> Point:
        params = self.found.get(point.name)
        if params is None:
            return point
        return replace(point, params=params, algorithm=ALGORITHM, spec=replace(point.spec, symmetric=True))

    def _summary(self) -> dict[str, Any]:
        widened = {layer: round(f, 4) for layer, f in sorted(self.factors.items()) if f > 1}
        return {
            "inputs_exact": len(self.factors) - len(widened),
            "inputs_widened": widened,
            "inputs_unused": sorted(set(self.reach.readers.values()) - set(self.factors)),
            "weights": sum(p.name in self.found for p in self.plan.weights),
            "points_native": len(self.found),
            "points_calibrated": sum(not (p.name in self.found or p.fixed) for p in self.plan.points),
        }

    def _notes(self, summary: Mapping[str, Any]) -> list[str]:
        widened, unused = summary["inputs_widened"], summary["inputs_unused"]
        notes = [
            f"native QAT: {summary['points_native']} points ({summary['weights']} of them weights) have the ranges of "
            f"that training, {summary['points_calibrated']} that it lacks were calibrated"
        ]
        if widened:
            worst = max(widened, key=widened.__getitem__)
            notes.append(
                f"native QAT: layers that share what they read, or a concat of it, with layers of a wider range use "
                f"that one: {len(widened)} of {summary['inputs_exact'] + len(widened)}, {worst} the most "
                f"({widened[worst]:.2f} times its own)"
            )
        if unused:
            notes.append(
                "native QAT: calibrated because this scheme quantizes a tensor as a whole of which the training "
                f"quantized a part: the input of {', '.join(unused)}"
            )
        return notes


def _params(point: Point, amax: Any) -> QParams:
    return from_range(-np.asarray(amax), amax, replace(point.spec, symmetric=True))
