"""From a graph and a plan to a Q/DQ ONNX model: shared by every target that starts from ONNX.

The plan's points go through torch's exporter as marker operators and become QuantizeLinear and DequantizeLinear
afterwards, so that names, dtypes and ranges are exactly the plan's. Emission follows the intersection of what TensorRT
8.5 to 11, OpenVINO and ONNX Runtime read: opset 17, float32 scalars as scales, static shapes, nothing left to fold.

Whatever rewrites a model works on ``onnx_ir``, whose values know who makes and who reads them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from ...bridge.host_model import weights_sha256
from ...errors import TargetError
from . import opset as onnx_opset
from .emission import MARKER, MARKER_DOMAIN, Emission

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    import torch
    from torch import fx

    from ...graph.trace import Graph
    from ...quantization.plan import Plan, Point


IR_VERSION = 8  # what the tools of opset 17's time read
_FLOATS: WeakKeyDictionary[Graph, tuple[str, bytes]] = WeakKeyDictionary()
_MOST = 100 << 20  # of a float model that is remembered: larger ones would raise the peak of memory


def emit(
    graph: Graph,
    plan: Plan | None,
    emission: Emission,
    *,
    metadata: Mapping[str, str] | None = None,
    bias: dict[str, np.ndarray] | None = None,
    rewrites: Sequence[Callable[[ir.Model], Any]] = (),
    ends: Sequence[str] = (),
) -> onnx.ModelProto:
    """Build the ONNX model.

    Args:
        graph: The canonical graph.
        plan: A calibrated plan derived from it, or None for a float model.
        emission: The target's choices.
        metadata: Written to ``metadata_props``.
        bias: Bias corrections, see ``quantization.insert``.
        rewrites: What a target does to the finished graph, in place and in this order.
        ends: Operations whose results the model returns, quantized where they are; those of the whole model if empty.

    Returns:
        A checked model with input ``images`` and outputs ``output0``, ``output1`` ...; convolutions whose weight is
        quantized are named by their module path.

    Raises:
        TargetError: torch's exporter failed or left something that the canonical form forbids.
    """
    import onnx_ir as ir

    from ...graph.canonical_graph import end_at
    from ...quantization.insert import copy_module, insert
    from .qdq import insert_pairs

    if plan is None and not ends:
        exported = _float(graph)
    else:
        module = insert(graph, plan, _mark, bias=bias) if plan is not None else copy_module(graph)
        if ends:
            nodes = [graph.node(name, module) for name in ends]
            # behind their markers
            end_at(module, [next((u for u in node.users if u.target is _marker), node) for node in nodes])
        exported = _export(module, graph)
    # through the file's form: torch's own tensors share memory with the module, and are rewritten here
    model = onnx_opset.to_canonical(ir.from_proto(exported))
    if plan is not None:
        insert_pairs(model, {p.name: p for p in plan.points}, _places(plan), emission)
    finish(model, metadata or {})
    for rewrite in rewrites:
        rewrite(model)
    return checked(model)


def _places(plan: Plan) -> dict[str, str]:
    """Point name of every place that the insertion walk reports."""
    places = {p.name: p.name for p in plan.weights}
    places.update({s.tensor: p.name for p in plan.activations for s in p.sites})
    return places


def _mark(module: fx.GraphModule, source: fx.Node, point: Point, place: str) -> fx.Node:
    node = module.graph.call_function(_marker, (source, place))
    node.meta = dict(source.meta)
    return node


def _marker(x: torch.Tensor, place: str) -> torch.Tensor:
    import torch

    result: torch.Tensor = torch.onnx.ops.symbolic(
        f"{MARKER_DOMAIN}::{MARKER}", (x,), {"place": place}, dtype=x.dtype, shape=x.shape, version=1
    )
    return result


def _float(graph: Graph) -> onnx.ModelProto:
    """The float model as torch exports it, once for all who start from it: they only rewrite it."""
    import onnx

    from ...quantization.insert import copy_module

    weights = weights_sha256(graph.module)
    known = _FLOATS.get(graph)
    if known is None or known[0] != weights:
        exported = _export(copy_module(graph), graph)
        if exported.ByteSize() > _MOST:
            return exported
        # as bytes: whoever reads them has a model of their own, which rewrites change in place
        known = _FLOATS[graph] = weights, exported.SerializeToString()
    return onnx.ModelProto.FromString(known[1])


def _export(module: fx.GraphModule, graph: Graph) -> onnx.ModelProto:
    import torch

    from ...graph.decompositions import nodewise_decompositions
    from ...graph.tracebacks import no_tracebacks
    from .quick_export import quick_export

    example = torch.zeros(1, graph.info.channels, *graph.info.imgsz)
    with torch.no_grad(), warnings.catch_warnings(), nodewise_decompositions(), no_tracebacks(), quick_export():
        warnings.simplefilter("ignore")
        try:
            # exported here and not inside torch.onnx.export, which tries several strategies and reports the last one's
            # error
            program = torch.export.export(module, (example,), strict=False)
            exported = torch.onnx.export(
                program,
                (),
                # the older exporter traces TorchScript, which knows neither fx nodes nor operators of our own
                dynamo=True,
                opset_version=onnx_opset.EXPORTED,
                # constant folding comes before anything looks at the graph: unfolded exports put Identity and Cast in
                # front of a Q
                optimize=True,
                verbose=False,
                input_names=["images"],
            )
        except Exception as exc:
            raise TargetError(f"torch cannot export this model to ONNX: {exc}") from exc
    assert exported is not None
    found: onnx.ModelProto = exported.model_proto
    return found


def finish(model: ir.Model, metadata: Mapping[str, str]) -> None:
    """Bring a model into the form that every runtime reads, the same in every export, and note what it is."""
    import onnx_ir.passes.common as passes

    # Ultralytics and Netron show output0, output1 ...; the exporter's names change with its versions
    for index, output in enumerate(model.graph.outputs):
        output.name = f"output{index}"
    _name_nodes(model.graph)
    passes.RemoveUnusedNodesPass()(model)
    # what is left of the markers' domain: the file would say that it needs an operator set that nobody has
    passes.RemoveUnusedOpsetsPass()(model)
    # the exporter notes paths of this machine in every node
    passes.ClearMetadataAndDocStringPass()(model)
    # no version of the producer: the same model would have other bytes after every release
    model.ir_version, model.producer_name, model.producer_version = IR_VERSION, "yoloquant", ""
    model.doc_string = ""
    model.metadata_props.clear()
    model.metadata_props.update(metadata)


def _name_nodes(graph: ir.Graph) -> None:
    """Every node gets a unique name; TensorRT refuses duplicates and cannot report unnamed ones."""
    seen: set[str] = set()
    for node in graph:
        base, count = node.name or node.op_type, 0
        name = base
        while name in seen:
            count += 1
            name = f"{base}_{count}"
        seen.add(name)
        node.name = name


def checked(model: ir.Model) -> onnx.ModelProto:
    """The file's form of a model.

    Raises:
        TargetError: It is not valid.
    """
    import onnx
    import onnx_ir as ir

    written = ir.to_proto(model)
    del written.graph.value_info[:]  # what the exporter inferred before anything was rewritten
    try:
        # with shape inference: a rewrite that breaks a shape is found here and not on a device
        onnx.checker.check_model(written, full_check=True)
    except Exception as exc:  # the checker raises classes of its own
        raise TargetError(f"the exported ONNX model is not valid: {exc}") from exc
    return written
