"""How many of a network's convolutions a runtime really executes in integers.

The decode's own projection (DFL) counts where a runtime has it as a convolution; it is float by design. So is what a
scheme leaves out. OpenVINO also runs the convolution behind an attention's reshape in float, in NNCF's models too.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from yoloquant import targets
from yoloquant.types import ExportedModel

_FLOAT_CONVS = ("Conv", "FusedConv", "NhwcFusedConv")
_CONVS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
_INTEGER = frozenset({"i8", "u8"})


def integers(exported: ExportedModel) -> str:
    """Convolutions in integers, and what else each runtime tells.

    Args:
        exported: An INT8 artifact.

    Returns:
        A few words; empty for a runtime that does not tell.
    """
    if exported.path.suffix == ".tflite":
        return _litert(exported)
    if "tensorrt_rtx" in exported.metadata:
        found = exported.metadata["tensorrt_rtx"]
        planned = len(exported.metadata["planned_convs"])
        return f"{found['int8_convs']} of {planned}" if found["built"] else str(found["summary"])
    if exported.target == "openvino":
        return _openvino(exported)
    return _onnxruntime(exported.path) if exported.path.suffix == ".onnx" else ""


def _litert(exported: ExportedModel) -> str:
    """The decode tail's projection is a float convolution; requantizations cost time, however integer they are."""
    from yoloquant.targets.litert.flatbuffer import Flatbuffer

    file = Flatbuffer.read(exported.path)
    convs = [op for op in file.ops if op.kind in _CONVS]
    whole = sum(not file.is_float(op) for op in convs)
    return f"{whole} of {len(convs)}, {exported.metadata['requantize']} requantize"


def _openvino(exported: ExportedModel) -> str:
    runner = targets.get("openvino").load(exported, 1)
    try:
        kinds = Counter(kind for layer, _, kind in runner.executed() if layer == "Convolution")  # type: ignore[attr-defined]
    finally:
        runner.close()
    return f"{sum(n for kind, n in kinds.items() if kind in _INTEGER)} of {sum(kinds.values())}"


def _onnxruntime(path: Path) -> str:
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns that the file is for this machine alone
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        counts = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    whole = counts["QLinearConv"]
    return f"{whole} of {whole + sum(counts[kind] for kind in _FLOAT_CONVS)}"
