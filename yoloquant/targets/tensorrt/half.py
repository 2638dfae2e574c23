"""The model for TensorRT 11, whose types come from the network alone: its float parts in FP16, its scales unchanged.

Everything up to the last convolutions computes in FP16, what decodes their results (DFL, anchors, pixels) in float32:
FP16 resolves pixels above 512 only to 0.5. Q/DQ pairs stay in float32 with their exact scales, behind casts that the
compiler removes; scales in FP16 (opset 19) would change each by up to 0.05 %, and those of dead channels to 0, which
the parser refuses. Measured with TensorRT-RTX 1.7.1 on yolo11n: either way all 87 planned convolutions run in Int8, in
engines of 239 and 234 layers. Weights are stored as int8 behind a DequantizeLinear.

In ONNX Runtime it scores as the model it comes from, within noise: fidelity 0.953 [0.939, 0.966] beside 0.949 [0.938,
0.962] (yolo11n, 640 px, 128 COCO val2017 images). No TensorRT 11 was at hand.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from ...errors import TargetError
from ...quantization.qparams import QParams, QuantSpec, quantize
from .graph import DEQUANTIZE, QUANTIZE, WEIGHTED, OnnxGraph

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
_FLOAT_INPUTS = {"Resize": {1, 2}}  # operands that are float32 whatever the operator computes in (ONNX, Resize-13)


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Derive the FP16-typed model.

    Args:
        model: What this target exports: float32, with or without Q/DQ pairs.

    Returns:
        A checked model with the same float32 inputs and outputs, node names and opset.

    Raises:
        TargetError: It cannot be typed that way.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _Converter(result).run()
    try:
        onnx.checker.check_model(result, full_check=True)
    except Exception as exc:  # the checker raises classes of its own
        raise TargetError(f"the model cannot be written in FP16: {exc}") from exc
    return result


def body(graph: OnnxGraph) -> frozenset[str]:
    """Names of the nodes up to the last operators with weights; what follows decodes the head's results."""
    names: set[str] = set()
    for node in graph.of_type(*WEIGHTED):
        # the same question as in the tracer, asked of ONNX: what has no weights behind it decodes
        if any(graph.is_weight(i) for i in node.input[:2]) and not _is_dfl(graph, node):
            names.add(node.name)
            names.update(n.name for i in node.input for n in graph.ancestors(i, "")[0])
    return frozenset(names)


def _is_dfl(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    """Whether a convolution is the expectation over DFL's bins: one output channel, the bins' numbers as weights."""
    weight = graph.value(node.input[1])
    if node.op_type != "Conv" or weight is None or weight.ndim != 4 or weight.shape[0] != 1:
        return False
    return len(node.input) == 2 and bool(np.array_equal(weight.ravel(), np.arange(weight.size)))


class _Converter:
    """Rewrites a model in place, in one walk over its nodes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, OnnxGraph(model)
        self.body = body(self.graph)
        self.floats = _float_tensors(model)
        self.type_of = {value.name: FLOAT for value in model.graph.input}
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[tuple[str, int], str] = {}
        self.added: list[onnx.TensorProto] = []

    def run(self) -> None:
        for node in self.graph.nodes:
            for converted in self._convert(node):
                self.nodes.append(converted)
        for output in self.model.graph.output:
            self._restore(output.name)
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.nodes)
        # float32 originals of what is FP16 now would double the file
        used = {i for node in self.nodes for i in node.input}
        kept = [i for i in (*self.model.graph.initializer, *self.added) if i.name in used]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(kept)
        # Types that were inferred before do not hold any more.
        del self.model.graph.value_info[:]

    def _convert(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if node.op_type == QUANTIZE and self.graph.is_weight(node.input[0]):
            return  # its DequantizeLinear reads the integers
        converted = onnx.NodeProto()
        converted.CopyFrom(node)
        if node.op_type == DEQUANTIZE:
            self._dequantize(converted)
            kind = FLOAT
        else:
            kind = HALF if node.name in self.body and node.op_type != QUANTIZE else FLOAT
            fixed = _FLOAT_INPUTS.get(node.op_type, set())
            for position, name in enumerate(node.input):
                if name in self.floats and position not in fixed:
                    converted.input[position] = self._as(name, kind)
        for name in node.output:
            self.type_of[name] = kind
        yield converted

    def _dequantize(self, node: onnx.NodeProto) -> None:
        source = self.graph.producer(node.input[0])
        if source is None or source.op_type != QUANTIZE or not self.graph.is_weight(source.input[0]):
            return
        weight, grid = self.graph.value(source.input[0]), self.graph.grid_of(source)
        if weight is None:  # behind operators that move values: leave that to the compiler
            raise TargetError(f"the weight of {node.name} is no plain constant; export the model again")
        spec = QuantSpec(axis=grid.axis if grid.scale.ndim else None)
        params = QParams(grid.scale, np.zeros(grid.scale.shape, np.int32))
        integers = quantize(weight, params, spec).astype(np.int8)
        name = f"{source.input[0]}/int8"
        if (name, 0) not in self.made:
            self.made[name, 0] = name
            self.added.append(numpy_helper.from_array(integers, name))
        node.input[0] = name

    def _as(self, name: str, kind: int) -> str:
        """A tensor's name in a type; casts and constants are made once."""
        constant = self.graph.initializers.get(name)
        if kind == (FLOAT if constant is not None else self.type_of[name]):
            return name
        if (name, kind) not in self.made:
            name_of_cast = self.made[name, kind] = f"{name}/{'half' if kind == HALF else 'float'}"
            if constant is None:
                self.nodes.append(helper.make_node("Cast", [name], [name_of_cast], f"{name_of_cast}/cast", to=kind))
            else:
                self.added.append(_half_constant(constant, name_of_cast))
        return self.made[name, kind]

    def _restore(self, output: str) -> None:
        """Give an output that the body computes back its type."""
        if self.type_of.get(output, FLOAT) == FLOAT or output not in self.floats:
            return
        inner = f"{output}/half"
        for node in self.nodes:
            for names in (node.input, node.output):
                for position, name in enumerate(names):
                    if name == output:
                        names[position] = inner
        self.nodes.append(helper.make_node("Cast", [inner], [output], f"{output}/cast", to=FLOAT))


def _half_constant(constant: onnx.TensorProto, name: str) -> onnx.TensorProto:
    value = numpy_helper.to_array(constant)
    # What is too large becomes infinite, which is told below.
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise TargetError(f"the constant {constant.name} reaches {np.abs(value).max():.3g}, beyond FP16 (65504)")
    return numpy_helper.from_array(half, name)


def _float_tensors(model: onnx.ModelProto) -> frozenset[str]:
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    names = {v.name for v in values if v.type.tensor_type.elem_type == FLOAT}
    return frozenset(names | {i.name for i in model.graph.initializer if i.data_type == FLOAT})
