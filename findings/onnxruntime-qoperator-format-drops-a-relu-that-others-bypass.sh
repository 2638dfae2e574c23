#!/usr/bin/env bash
# onnxruntime.quantization: in QOperator format a Relu disappears although the value before it is used elsewhere
#
# Expected:  a Relu behind a convolution may be folded into the convolution's output range (zero point = lowest code) only
#            if nothing else reads the convolution's output.
# Happens:   for c = Conv(x), y = Relu(c) + c, QuantFormat.QOperator removes the Relu and feeds both inputs of the addition
#            from the convolution, whose range still holds negative values: y becomes 2c, off by more than a standard
#            deviation. The QDQ format is right, and so is QOperator with ActivationSymmetric=True.
# Matters:   skip connections around an activation (CReLU, leaky ReLU written out, pre-activation residual blocks of custom
#            backbones) are computed wrongly by a file that loads and runs without a warning.
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



kernel = random.normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32)
save([helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4, name="conv"), helper.make_node("Relu", ["c"], ["r"], name="relu"),
      helper.make_node("Add", ["r", "c"], ["y"], name="add")], {"w": kernel}, 8)
images = [random.normal(0, 1, (1, 3, 16, 16)).astype(np.float32) for _ in range(4)]
exact = run("float.onnx", images[0])
seen = {}
for style in (QuantFormat.QDQ, QuantFormat.QOperator):
    for symmetric in (False, True):
        quantize_static("float.onnx", "int8.onnx", Reader(images), activation_type=QuantType.QUInt8, per_channel=True, reduce_range=True,
                        quant_format=style, extra_options={"ActivationSymmetric": symmetric})
        error = float(np.abs(run("int8.onnx", images[0]) - exact).max() / exact.std())
        kinds = [node.op_type for node in onnx.load("int8.onnx").graph.node]
        seen[style.name, symmetric] = ("Relu" in kinds, error > 0.5)
        print(f"{style.name:9s} ActivationSymmetric={symmetric!s:5s} Relu kept: {'Relu' in kinds!s:5s} largest error {error:.3f} standard deviations")
recorded = {("QDQ", False): (True, False), ("QDQ", True): (True, False), ("QOperator", False): (False, True), ("QOperator", True): (True, False)}
raise SystemExit(0 if seen == recorded else "the recorded behaviour has changed")
PY
venv/bin/python check.py
