#!/usr/bin/env bash
# onnxruntime.quantization: per-channel quantization rounds the bias of an all-zero channel to whole input steps
#
# Expected:  the int32 bias is always finer than anything else in an INT8 convolution; a channel whose weights are all zero
#            (masked by pruning, or dead) just returns its bias.
# Happens:   with per_channel=True such a channel gets weight scale 1, hence bias scale = input scale * 1. With pixels of 0 to
#            255 as input (normalisation folded into the weights) the step is 1: a bias of 0.4 becomes 0. Per tensor, which
#            should be the coarser choice, keeps 0.4.
# Matters:   weight-masked (unstructured or not yet physically pruned) YOLOs have such channels, and their constant reaches
#            every following layer; the INT8 model loses it in every pixel, without a warning. Remove dead channels first.
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



kernel = random.normal(0, 0.002, (8, 3, 3, 3)).astype(np.float32)
kernel[3] = 0
bias = np.full(8, 0.4, np.float32)
save([helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1] * 4)], {"w": kernel, "b": bias}, 8)
images = [random.integers(0, 256, (1, 3, 16, 16)).astype(np.float32) for _ in range(4)]
seen = {}
for per_channel in (False, True):
    quantize_static("float.onnx", "int8.onnx", Reader(images), activation_type=QuantType.QUInt8, per_channel=per_channel)
    arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load("int8.onnx").graph.initializer}
    stored = np.broadcast_to(arrays["b_quantized"] * arrays["b_quantized_scale"], 8)
    channel = run("int8.onnx", images[0])[0, 3]
    seen[per_channel] = (float(stored[3]), float(np.abs(np.delete(stored, 3) - 0.4).max()), float(channel.mean()))
    print(f"per_channel={per_channel}: input scale {float(arrays['x_scale'])}, dead channel's bias {stored[3]:.4f}, "
          f"largest error of the other biases {seen[per_channel][1]:.5f}, dead channel's output {channel.mean():.4f} "
          f"(float model {run('float.onnx', images[0])[0, 3].mean():.4f})")
same = abs(seen[False][0] - 0.4) < 1e-4 and seen[True][0] == 0 and seen[True][1] < 1e-3 and abs(seen[True][2]) < 1e-6
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
