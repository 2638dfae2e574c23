#!/usr/bin/env bash
# onnxruntime.quantization: in QOperator format two convolutions that share a bias both get the first one's int32 bias
#
# Expected:  the int32 bias is scaled by input scale * weight scale, so convolutions with different inputs get a bias each,
#            also if the float model stores it once (the QDQ format shows that the tool can do it).
# Happens:   with QuantFormat.QOperator the shared initializer is quantized once, with the first input's scale, and the second
#            QLinearConv reads the same integers as if they had its own scale: the bias is wrong by the ratio of the scales.
# Matters:   detectors whose head is shared between pyramid levels (RetinaNet, FCOS, NanoDet style) call one convolution on
#            several inputs; every level but the first gets wrong logits. No warning, and the model loads and runs.
# Versions:  onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
import logging

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

logging.disable(logging.WARNING)
print("onnxruntime", ort.__version__, "onnx", onnx.__version__)
random = np.random.default_rng(0)


class Reader(CalibrationDataReader):
    def __init__(self, images):
        self.items = iter([{"x": image} for image in images])

    def get_next(self):
        return next(self.items, None)


def save(nodes, constants, channels):
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, 16, 16])],
                              [numpy_helper.from_array(value, name) for name, value in constants.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "float.onnx")


def run(path, x):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]



kernel = random.normal(0, 0.2, (3, 3, 3, 3)).astype(np.float32)
bias = random.normal(0, 1, 3).astype(np.float32)
nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, name="first"), helper.make_node("Relu", ["c"], ["r"]),
         helper.make_node("Conv", ["r", "w", "b"], ["y"], pads=[1] * 4, name="second")]
images = [random.normal(0, 0.1, (1, 3, 16, 16)).astype(np.float32) for _ in range(4)]
apart = [helper.make_node("Conv", ["r", "w", "b2"], ["y"], pads=[1] * 4, name="second")]
errors = {}
for shared in (True, False):
    save(nodes if shared else nodes[:2] + apart, {"w": kernel, "b": bias} | ({} if shared else {"b2": bias}), 3)
    exact = run("float.onnx", images[0])
    for style in (QuantFormat.QDQ, QuantFormat.QOperator):
        quantize_static("float.onnx", "int8.onnx", Reader(images), activation_type=QuantType.QUInt8, per_channel=True, quant_format=style)
        errors[shared, style.name] = float(np.abs(run("int8.onnx", images[0]) - exact).max() / exact.std())
        print(f"bias {'shared' if shared else 'stored twice'}, {style.name:9s}: largest error {errors[shared, style.name]:.3f} standard deviations of the output")
same = all((error > 0.5) == (key == (True, "QOperator")) for key, error in errors.items())
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
