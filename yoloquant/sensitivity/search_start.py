"""What every search for layers in float starts from, and what it ends with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bridge.checkpoint import load_model
from ..bridge.host_model import model_info
from ..errors import UsageError
from ..graph.ops import OpKind
from ..graph.trace import Graph
from ..quantization.artifact import Artifact
from ..quantization.float_layers import layer_of
from ..quantization.plan import Plan
from ..types import ModelInfo, Progress
from .float_search_options import FloatSearchOptions

if TYPE_CHECKING:
    from ..quantization.scheme import Scheme


def searched_scheme(name: str) -> Scheme:
    """The one scheme that a search is for.

    Raises:
        UsageError: It is unknown, or several are named.
    """
    from ..targets.schemes import resolve_schemes

    schemes = resolve_schemes(name)
    if len(schemes) != 1:
        raise UsageError(f"scheme='{name}' names {len(schemes)} schemes; search for one at a time")
    return schemes[0]


def searched_info(model: Any, options: FloatSearchOptions) -> ModelInfo:
    """What the model is, known before it is calibrated."""
    if isinstance(model, Artifact):
        return model.info
    host = load_model(model, allow_unsafe=options.allow_unsafe)
    return model_info(host, host.resolve_imgsz())


def searched_artifact(
    model: Any,
    data: str | os.PathLike[str],
    scheme: Scheme,
    options: FloatSearchOptions,
    progress: Progress | None = None,
) -> Artifact:
    """The model with the ranges that its plan will be exported with; a plain checkpoint is calibrated."""
    from ..data.calibration_options import CalibrationOptions
    from ..quantization.ptq import quantize
    from ..quantization.quantize_options import QuantizeOptions

    if isinstance(model, Artifact):
        return model
    host = load_model(model, allow_unsafe=options.allow_unsafe)
    if host.state.get("plans"):
        return Artifact.from_host(host, options.imgsz)
    calibration = CalibrationOptions(images=options.training_images, seed=options.seed, scored_split=options.split)
    quantize_options = QuantizeOptions(imgsz=options.imgsz, calibration=calibration, allow_unsafe=options.allow_unsafe)
    return quantize(model, data=data, schemes=[scheme], options=quantize_options, progress=progress)


def with_plan(artifact: Artifact, scheme: Scheme, plan: Plan) -> Artifact:
    """The artifact with the plan that was found for a scheme."""
    # the biases too: where the plan is made of another scheme's, they are under that one's name
    bias = {**artifact.bias, scheme.name: artifact.bias_for(scheme)}
    provenance = {**artifact.provenance, "float_layers": list(plan.float_layers)}
    return replace(artifact, plans={**artifact.plans, scheme.name: plan}, bias=bias, provenance=provenance)


def share_of(multiplications: dict[str, int], layers: Sequence[str]) -> float:
    """Share of the multiplications that layers do."""
    return sum(multiplications.get(layer, 0) for layer in layers) / max(sum(multiplications.values()), 1)


def multiplications(graph: Graph) -> dict[str, int]:
    """Multiplications of every layer's convolutions for one image."""
    multiplications: dict[str, int] = {}
    for op in graph.body():
        if op.weight and op.shape is not None:
            weights = graph.module.get_parameter(op.weight).numel()
            # a transposed convolution goes over the places that it reads, any other over those that it makes
            read = graph.ops[op.inputs[0]].shape if op.kind is OpKind.CONV_TRANSPOSE else None
            shape = read or op.shape
            # a linear layer computes each weight once
            positions = int(np.prod(shape[2:])) if len(shape) > 2 else 1
            multiplications[layer_of(op.name)] = multiplications.get(layer_of(op.name), 0) + weights * positions
    return multiplications
