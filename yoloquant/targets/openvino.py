"""OpenVINO on CPUs: an IR with FakeQuantize on activations and int8 weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import ArtifactError, PlanError, TargetError
from ..quant.graph import PASSING, WEIGHTED, Graph, OpKind
from ..quant.plan import Plan
from ..quant.qparams import QParams, QuantSpec
from ..quant.scheme import Placement, Scheme, body_weighted, operands
from ..types import ExportedModel, ModelInfo, Task
from ..writing import atomic_path
from .base import Capabilities, Runner, Target
from .export_metadata import provenance_json, ultralytics_metadata
from .onnx_graph import Emission, Weights, emit

if TYPE_CHECKING:
    from ..artifact import Artifact
    from ..quant.graph import OpNode

logger = logging.getLogger(__name__)

EMISSION = Emission(unsigned=True, weights=Weights.INT8)
_INTEGER = WEIGHTED | {OpKind.MATMUL, OpKind.ADD, OpKind.CONCAT}
METADATA = "metadata.yaml"


def place(graph: Graph) -> Placement:
    """Quantize what integer operations read, and nothing between a convolution and its activation.

    A concat's inputs share one range, so that its result lies on their grid and needs no point of its own.
    """
    placed = operands(graph, _wanted)
    ties = [(first, other) for op in graph.body() if op.kind is OpKind.CONCAT for first, *rest in [_sources(graph, op)] for other in rest]
    return Placement(placed.sites, tuple(ties), body_weighted(graph))


def _wanted(graph: Graph, reader: OpNode, tensor: str) -> str:
    op = graph.ops[tensor]
    if op.kind in PASSING or op.kind is OpKind.CONCAT:
        return ""  # already on the grid of what they move
    if reader.kind in PASSING:
        onward = (_wanted(graph, r, tensor) for r in _readers(graph, reader))
        return next((why for why in onward if why), "")
    return f"operand of an integer {reader.kind.value}" if reader.kind in _INTEGER else ""


def _readers(graph: Graph, op: OpNode) -> Iterator[OpNode]:
    return (graph.ops[u] for u in graph.users[op.name] if not graph.ops[u].tail)


def _sources(graph: Graph, concat: OpNode) -> list[str]:
    """The computed tensors that a concat joins; those of a concat that it reads are its own too."""
    found: list[str] = []
    for name in concat.inputs:
        root = graph.ops[graph.root(name)]
        found += _sources(graph, root) if root.kind is OpKind.CONCAT else [root.name]
    return found


SCHEME = Scheme(
    name="openvino",
    place=place,
    description="operands of convolutions, matrix products, additions and concats; int8 weights per channel",
)
