"""From a graph and a plan to a Q/DQ ONNX model: shared by every target that starts from ONNX.

The plan's points go through torch's exporter as marker operators and become QuantizeLinear and DequantizeLinear
afterwards, so that names, dtypes and ranges are exactly the plan's. Emission follows the intersection of what TensorRT
8.5 to 11, OpenVINO and ONNX Runtime read: opset 17, float32 scalars as scales, static shapes, nothing left to fold.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TargetError
from . import opset as onnx_opset

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import fx

    from ...graph.trace import Graph
    from ...quantization.plan import Plan, Point

logger = logging.getLogger(__name__)

IR_VERSION = 8  # what the tools of opset 17's time read
MARKER_DOMAIN = "yoloquant"


class Weights(str, Enum):
    """How quantized weights are stored."""

    FLOAT = "float"  # float32 initializer -> QuantizeLinear -> DequantizeLinear
    INT8 = "int8"  # int8 initializer -> DequantizeLinear


@dataclass(frozen=True)
class Emission:
    """Choices of one target.

    Attributes:
        unsigned: Activations as uint8 (zero_point + 128) instead of int8.
        weights: How weights are stored.
        int32_bias: Store biases of fully quantized convolutions as int32, as integer kernels use them.
    """

    unsigned: bool = False
    weights: Weights = Weights.FLOAT
    int32_bias: bool = False


def emit(
    graph: Graph,
    plan: Plan | None,
    emission: Emission,
    *,
    metadata: Mapping[str, str] | None = None,
    bias: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """Build the ONNX model.

    Args:
        graph: The canonical graph.
        plan: A calibrated plan derived from it, or None for a float model.
        emission: The target's choices.
        metadata: Written to ``metadata_props``.
        bias: Bias corrections, see ``quant.insert``.

    Returns:
        A checked model with input ``images`` and outputs ``output0``, ``output1`` ...; convolutions whose weight is
        quantized are named by their module path.

    Raises:
        TargetError: torch's exporter failed or left something that the canonical form forbids.
    """
    import onnx

    from ...quantization.insert import copy_module, insert

    module = insert(graph, plan, _mark, bias=bias) if plan is not None else copy_module(graph)
    model = _export(module, graph)
    if plan is not None:
        _Realise(model, {p.name: p for p in plan.points}, _places(plan), emission).run()
    _finish(model, metadata or {})
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as exc:
        raise TargetError(f"the exported ONNX model is not valid: {exc}") from exc
    return model


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
        f"{MARKER_DOMAIN}::Point", (x,), {"place": place}, dtype=x.dtype, shape=x.shape, version=1
    )
    return result


def _export(module: fx.GraphModule, graph: Graph) -> onnx.ModelProto:
    import torch

    example = torch.zeros(1, graph.info.channels, *graph.info.imgsz)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(module, (example,), strict=False)
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=onnx_opset.EXPORTED,
                optimize=True,
                verbose=False,
                input_names=["images"],
            )
        except Exception as exc:
            raise TargetError(f"torch cannot export this model to ONNX: {exc}") from exc
    assert exported is not None
    return onnx_opset.to_canonical(exported.model_proto)


class _Realise:
    """Replaces every marker by QuantizeLinear and DequantizeLinear."""

    def __init__(
        self, model: onnx.ModelProto, points: dict[str, Point], places: dict[str, str], emission: Emission
    ) -> None:
        self.model, self.points, self.places, self.emission = model, points, places, emission
        self.initializers = {i.name: i for i in model.graph.initializer}
        self.added: dict[str, onnx.TensorProto] = {}
        self.weight_of: dict[str, str] = {}  # dequantized tensor -> weight point
        self.activation_of: dict[str, str] = {}  # dequantized tensor -> activation point

    def run(self) -> None:
        nodes: list[onnx.NodeProto] = []
        for node in self.model.graph.node:
            nodes.extend(self._realise(node) if node.op_type == "Point" else [node])
        for node in nodes:
            self._name(node)
        if self.emission.int32_bias:
            nodes = [n for node in nodes for n in self._quantize_bias(node)]
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)
        self.model.graph.initializer.extend(self.added.values())
        opsets = [o for o in self.model.opset_import if o.domain != MARKER_DOMAIN]
        del self.model.opset_import[:]
        self.model.opset_import.extend(opsets)

    def _realise(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        from onnx import helper

        place = next(a.s.decode() for a in node.attribute if a.name == "place")
        point = self.points[self.places[place]]
        weight = point.role.value == "weight"
        scale, zero = self._constants(point, unsigned=self.emission.unsigned and not weight)
        axis = {"axis": point.spec.axis} if point.spec.axis is not None else {}
        source, result = node.input[0], node.output[0]
        (self.weight_of if weight else self.activation_of)[result] = point.name
        if weight and self.emission.weights is Weights.INT8:
            integer = self._store(f"{place}/int8", self._quantized(source, point))
            inputs = [integer, scale, zero]
            return [helper.make_node("DequantizeLinear", inputs, [result], f"{place}/dequantize", **axis)]
        if weight:
            self._clip(source, point)
        middle = f"{place}/quantized"
        return [
            helper.make_node("QuantizeLinear", [source, scale, zero], [middle], f"{place}/quantize", **axis),
            helper.make_node("DequantizeLinear", [middle, scale, zero], [result], f"{place}/dequantize", **axis),
        ]

    def _constants(self, point: Point, *, unsigned: bool) -> tuple[str, str]:
        assert point.params is not None
        zero = point.params.zero_point + 128 if unsigned else point.params.zero_point
        scale_name = self._store(f"{point.name}/scale", point.params.scale)
        return scale_name, self._store(f"{point.name}/zero_point", zero.astype(np.uint8 if unsigned else np.int8))

    def _store(self, name: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        if name not in self.added:
            self.added[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _value(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        if name not in self.initializers:
            raise TargetError(f"the weight {name} is computed in the exported graph instead of being a constant")
        return np.asarray(numpy_helper.to_array(self.initializers[name]))

    def _quantized(self, source: str, point: Point) -> np.ndarray:
        spec, params = point.spec, point.params
        assert params is not None
        weight = self._value(source)
        shape = [1] * weight.ndim
        if spec.axis is not None:
            shape[spec.axis] = -1
        return np.clip(np.round(weight / params.scale.reshape(shape)), spec.qmin, spec.qmax).astype(np.int8)

    def _clip(self, source: str, point: Point) -> None:
        """Keep the narrow range with QuantizeLinear, which always uses -128 too."""
        from onnx import numpy_helper

        assert point.params is not None
        weight = self._value(source)
        shape = [1] * weight.ndim
        if point.spec.axis is not None:
            shape[point.spec.axis] = -1
        low, high = (bound.reshape(shape) for bound in point.params.range(point.spec))
        if ((weight < low) | (weight > high)).any():
            clipped = np.clip(weight, low, high).astype(np.float32)
            self.initializers[source].CopyFrom(numpy_helper.from_array(clipped, source))

    def _name(self, node: onnx.NodeProto) -> None:
        point = next((self.weight_of[i] for i in node.input if i in self.weight_of), None)
        if point is not None:
            node.name = point.removesuffix(":weight")

    def _quantize_bias(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        from onnx import helper

        if node.op_type != "Conv" or len(node.input) < 3 or node.input[1] not in self.weight_of:
            return [node]
        source = self.activation_of.get(node.input[0])
        if source is None:
            return [node]
        inputs, weights = self.points[source].params, self.points[self.weight_of[node.input[1]]].params
        assert inputs is not None and weights is not None
        bias = self._value(node.input[2])
        scale = (inputs.scale * np.broadcast_to(weights.scale, bias.shape)).astype(np.float32)
        limit = float(2**31 - 128)
        integers = np.clip(np.round(bias.astype(np.float64) / scale), -limit, limit).astype(np.int32)
        names = [
            self._store(f"{node.name}:bias/int32", integers),
            self._store(f"{node.name}:bias/scale", scale),
            self._store(f"{node.name}:bias/zero_point", np.zeros(bias.shape, np.int32)),
        ]
        result = f"{node.name}:bias/dequantized"
        node.input[2] = result
        return [helper.make_node("DequantizeLinear", names, [result], f"{node.name}:bias/dequantize", axis=0), node]


def _finish(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    import onnx

    _rename_outputs(model)
    _name_nodes(model)
    used = {i for n in model.graph.node for i in n.input} | {o.name for o in model.graph.output}
    kept = [i for i in model.graph.initializer if i.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "yoloquant", ""
    model.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))


def _rename_outputs(model: onnx.ModelProto) -> None:
    for index, output in enumerate(model.graph.output):
        old, new = output.name, f"output{index}"
        for node in model.graph.node:
            for names in (node.input, node.output):
                for position, name in enumerate(names):
                    if name == old:
                        names[position] = new
        output.name = new


def _name_nodes(model: onnx.ModelProto) -> None:
    """Every node gets a unique name; TensorRT refuses duplicates and cannot report unnamed ones."""
    seen: set[str] = set()
    for node in model.graph.node:
        base, count = node.name or node.op_type, 0
        name = base
        while name in seen:
            count += 1
            name = f"{base}_{count}"
        seen.add(name)
        node.name = name


def read_scales(model: onnx.ModelProto, names: Iterable[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scale and zero_point that Q/DQ nodes of a model really use, in the int8 convention, by point name.

    Raises:
        TargetError: A point is missing, or a node of its place uses other constants.
    """
    from onnx import numpy_helper

    constants = {i.name: i for i in model.graph.initializer}
    used: dict[str, Any] = {}
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear", "Mul"} and node.input[1].endswith("/scale"):
            used[node.input[1].removesuffix("/scale")] = node
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in names:
        if name not in used:
            raise TargetError(f"the artifact has no quantize or dequantize operation for point {name}")
        scale = np.asarray(numpy_helper.to_array(constants[used[name].input[1]]))
        scale = scale.reshape(-1) if scale.ndim > 1 else scale
        weight = used[name].op_type == "Mul"  # behind a ConvInteger, whose weights have no zero_point
        zero = np.zeros(scale.shape, np.int8) if weight else numpy_helper.to_array(constants[used[name].input[2]])
        offset = 128 if zero.dtype == np.uint8 else 0
        found[name] = (scale, zero.astype(np.int32) - offset)
    return found
