"""The Edge TPU's documented operators and their limits, one small rule each.

Sources, named in the reasons where they decide:

- docs: https://coral.ai/docs/edgetpu/models-intro/ (tensor requirements; table 1, supported operations with known
  limitations), in the state of compiler 16.0, runtime 14; much of that table is repeated at
  https://developer.axis.com/computer-vision/on-device/system-on-chip/artpec-7/supported-ops/;
- issue N: https://github.com/google-coral/edgetpu/issues/N, logs of that compiler made public;
- ultralytics N: https://github.com/ultralytics/ultralytics/issues/N, the same.

Nothing here was tried on a device. Where documentation and public logs disagree, or neither decides, the verdict is
unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from ..litert.flatbuffer import Flatbuffer, OpInfo
from ..litert.operator_versions import REFUSED_FROM, needed
from .report import OperatorFinding, Status

Rule = Callable[[Flatbuffer, OpInfo], OperatorFinding]

OK = OperatorFinding()
EIGHT_BIT = frozenset({"INT8", "UINT8"})
SOFTMAX_ELEMENTS = 16_000


def check_operator(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """What the documentation says about an operator by itself."""
    rule = _RULES.get(op.kind)
    if rule is None:
        return _cpu("not among the documented operators")
    # what holds for every operator first: a rule may rely on constant parameters and known shapes
    for check in (_parameters, _types, _shapes, rule, _version):
        finding = check(file, op)
        if finding.status is not Status.MAPPED:
            return finding
    return OK


def refused(file: Flatbuffer) -> str:
    """Why the compiler would refuse the file as a whole; empty if nothing is known against it."""
    if not file.ops:
        return "it has no operators"
    for op in file.ops:
        limit = REFUSED_FROM.get(op.kind)
        if limit is not None and op.version >= limit:
            return f"it does not know {op.kind} version {op.version}, only up to {limit - 1}"
    return ""


def _cpu(reason: str) -> OperatorFinding:
    return OperatorFinding(Status.FALLBACK, reason)


def _unknown(reason: str) -> OperatorFinding:
    return OperatorFinding(Status.UNKNOWN, reason)


def _types(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs, tensor requirements: tensors are quantized to 8 bits."""
    # What is computed alone: the bias of an integer convolution is int32.
    for index in (*file.operands(op), *op.outputs):
        if file.tensors[index].dtype not in EIGHT_BIT:
            return _cpu(f"{file.tensors[index].dtype} tensor; only 8-bit integers run on the TPU")
        if not len(file.tensors[index].scale):
            return _cpu("a tensor has no quantization scale")
    return OK


def _shapes(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs, tensor requirements: constant sizes, and only the three innermost dimensions above 1."""
    for index in (*file.operands(op), *op.outputs):
        tensor = file.tensors[index]
        if tensor.dynamic:
            return _cpu("the shape is only known at run time")
        if prod(tensor.shape[:-3]) != 1:
            return _cpu(f"shape {_text(tensor.shape)}: only the 3 innermost dimensions may be above 1")
    return OK


_REDUCTIONS = ("MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM")
_CONSTANT: dict[str, tuple[int, ...]] = {  # positions of operands that are parameters
    **dict.fromkeys((*_REDUCTIONS, "EXPAND_DIMS", "PAD", "PRELU", "RESHAPE", "TRANSPOSE"), (1,)),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), (1,)),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "SLICE"), (1, 2)),
    "SPLIT": (0,),
    "STRIDED_SLICE": (1, 2, 3),
    "TRANSPOSE_CONV": (0, 1, 3),
}


def _parameters(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs, tensor requirements: parameters are constant when the model is compiled."""
    # Optional operands, such as a bias, may be absent.
    positions = [i for i in _CONSTANT.get(op.kind, ()) if i < len(op.inputs)]
    if all(file.tensors[op.inputs[i]].constant for i in positions):
        return OK
    if file.multiplies_computed(op):
        return _cpu("multiplies two computed tensors; its weight must be constant")
    return _cpu("a parameter is computed; it must be constant")


def _version(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """A version above the one that an operator's features need may be newer than the compiler."""
    lowest = needed(file, op)
    if lowest is not None and op.version > lowest:
        return _unknown(f"version {op.version}, though {lowest} would do; the compiler may be older than that")
    return OK


def _plain(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """No known limitation."""
    return OK


def _elementwise(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: no known limitation; broadcasting is not mentioned."""
    shapes = {file.tensors[i].shape for i in op.inputs}
    if len(shapes) == 1:
        return OK
    return _unknown(f"broadcasts {' and '.join(_text(file.tensors[i].shape) for i in op.inputs)}; not documented")


def _unfused(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: no fused activation function."""
    return _cpu("has a fused activation function") if op.options.get("fusedActivationFunction") else OK


def _concatenation(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: no fused activation; a constant input must be all zeros and one of two."""
    constants = [i for i in op.inputs if file.tensors[i].constant]
    if constants and (len(op.inputs) != 2 or any(_real(file, i) for i in constants)):
        return _cpu("a constant input must be all zeros and one of two")
    return _unfused(file, op)


def _real(file: Flatbuffer, index: int) -> bool:
    """Whether a constant tensor stands for something besides zero."""
    tensor = file.tensors[index]
    # Zero is stored as the zero_point, which need not be 0.
    zero = int(tensor.zero_point[0]) if len(tensor.zero_point) else 0
    return bool((file.values(index) != zero).any())


def _convolution(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: the same dilation in x and y."""
    across, down = op.options.get("dilationWFactor", 1), op.options.get("dilationHFactor", 1)
    return OK if across == down else _cpu(f"dilation {across} in x and {down} in y; they must be equal")


def _connected(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: default weight format, one-dimensional output (issue 27: not with a 2-D output)."""
    if op.options.get("weightsFormat"):
        return _cpu("its weights are not in the default format")
    return _one_dimensional(file, op.outputs[0])


def _one_dimensional(file: Flatbuffer, index: int) -> OperatorFinding:
    shape = file.tensors[index].shape
    return OK if prod(shape[:-1]) == 1 else _cpu(f"shape {_text(shape)} is not one-dimensional")


def _softmax(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: 1-D input of at most 16,000 elements.

    Ultralytics 4754 shows the DFL softmax of YOLOv8n at 224 px, which is not 1-D, mapped by compiler 16.0.
    """
    shape = file.tensors[op.inputs[0]].shape
    if prod(shape[:-1]) == 1:
        return OK if prod(shape) <= SOFTMAX_ELEMENTS else _cpu(f"more than {SOFTMAX_ELEMENTS:,} elements")
    return _unknown(f"shape {_text(shape)}: documented for 1-D inputs only, though logs show others mapped")


def _axes(file: Flatbuffer, op: OpInfo, index: int, where: int = 1) -> tuple[int, ...]:
    """Axes in a constant operand, counted from the front."""
    rank = len(file.tensors[index].shape)
    # Negative axes count from the back.
    return tuple(int(a) % rank for a in file.values(op.inputs[where]).reshape(-1))


def _batch(file: Flatbuffer, op: OpInfo, index: int) -> int:
    """Position of the batch dimension, which only tensors of four and more dimensions have; else -1."""
    return 0 if len(file.tensors[index].shape) > 3 else -1


def _reduction(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: no reduction in the batch dimension."""
    source = op.inputs[0]
    return _cpu("reduces the batch dimension") if _batch(file, op, source) in _axes(file, op, source) else OK


def _mean(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: the z dimension of a z reduction is a multiple of 4. Issue 461: large inputs are not mapped."""
    source = op.inputs[0]
    shape = file.tensors[source].shape
    if len(shape) - 1 in _axes(file, op, source) and shape[-1] % 4:
        return _cpu(f"reduces {shape[-1]} channels, which is no multiple of 4")
    return _reduction(file, op)


def _pad(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: no padding in the batch dimension."""
    added = file.values(op.inputs[1])
    batch = _batch(file, op, op.inputs[0])
    return _cpu("pads the batch dimension") if batch == 0 and added[0].any() else OK


def _pack(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: no packing in the batch dimension."""
    rank = len(file.tensors[op.outputs[0]].shape)
    batch = rank > 3 and op.options.get("axis", 0) % rank == 0
    return _cpu("packs in the batch dimension") if batch else OK


def _split(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: no splitting in the batch dimension; the axis is the first operand."""
    source = op.inputs[1]
    return _cpu("splits the batch dimension") if _batch(file, op, source) in _axes(file, op, source, 0) else OK


def _prelu(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: alpha has one dimension."""
    return _one_dimensional(file, op.inputs[1])


def _reshape(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: some reshapes of large tensors are not mapped; how large is not said."""
    source, result = ([n for n in file.tensors[i].shape if n != 1] for i in (op.inputs[0], op.outputs[0]))
    if source == result:
        return OK  # only dimensions of 1 come and go
    return _unknown("documented, but not for large tensors; how large is not said")


def _resize(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: 3-D, and not every size; issue 420: compiler 15.0 refuses version 3, which half pixel centres need.

    Doubling nearest neighbours, as YOLO's neck does, is mapped in many public logs (ultralytics 4754).
    """
    source, result = (file.tensors[i].shape for i in (op.inputs[0], op.outputs[0]))
    if op.options.get("halfPixelCenters") or op.options.get("alignCorners"):
        return _unknown("half pixel centres or aligned corners need version 3, which older compilers refuse")
    if op.kind == "RESIZE_NEAREST_NEIGHBOR" and all(b == a or b == 2 * a for a, b in zip(source, result, strict=True)):
        return OK
    return _unknown("documented, but not for every size, to avoid a loss of precision")


def _squeeze(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: only leading dimensions of 1 may go."""
    source, result = (file.tensors[i].shape for i in (op.inputs[0], op.outputs[0]))
    kept = source[len(source) - len(result) :]
    return OK if kept == result else _cpu("removes a dimension that is not leading")


def _strided_slice(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: strides of 1, no ellipsis mask, no new axis mask."""
    if op.options.get("ellipsisMask") or op.options.get("newAxisMask"):
        return _cpu("has an ellipsis or a new axis mask")
    return OK if (file.values(op.inputs[3]) == 1).all() else _cpu("a stride is not 1")


def _transpose(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    """Docs: no known limitation. Issue 433, ultralytics 4089: refused for larger tensors by compiler 16.0."""
    return _unknown("documented, but logs show it refused for larger tensors")


def _undecided(file: Flatbuffer, op: OpInfo) -> OperatorFinding:
    return _unknown("sources differ on whether it is supported")


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("ADD", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB"), _elementwise),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _unfused),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _convolution),
    **dict.fromkeys(("EXPAND_DIMS", "L2_NORMALIZATION", "LOGISTIC", "LSTM", "QUANTIZE"), _plain),
    **dict.fromkeys(("RELU", "RELU6", "RELU_N1_TO_1", "RSQRT", "SLICE", "SPACE_TO_DEPTH", "TANH"), _plain),
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN", "SUM"), _reduction),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
    "CONCATENATION": _concatenation,
    "FULLY_CONNECTED": _connected,
    "MEAN": _mean,
    "PACK": _pack,
    "PAD": _pad,
    "PRELU": _prelu,
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _plain,
    "UNPACK": _undecided,
}
