#!/usr/bin/env bash
# onnxruntime and OpenCV 5: AveragePool with ceil_mode and count_include_pad divides by positions that do not exist
#
# Expected:  with ceil_mode the last window may reach beyond the padded picture; those positions count in no average (ONNX since
#            opset 19 says so, torch's AvgPool2d has always done it), so a picture of ones stays ones.
# Happens:   onnxruntime's float kernel does so, but the int8 kernel that the same Q/DQ model gets when the session fuses it divides
#            by the whole kernel: ones become 0.5 at the right and lower edge and 0.25 in the corner. OpenCV 5.0's dnn does
#            the same in float; OpenCV 4.14 and OpenVINO are right. Optimization level BASIC is right too.
# Matters:   torch.nn.AvgPool2d(2, 2, ceil_mode=True) exports exactly these two attributes (count_include_pad is its default), as
#            the downsampling of the ResNet-D backbones of RT-DETR. With sizes that are not a multiple of the stride
#            the int8 model is wrong at one edge by up to half of the value; at 640 pixels nothing shows.
# Versions:  onnxruntime 1.31.1, onnx 1.23.2, opencv-python-headless 5.0.0.93 and 4.14.0.94, openvino 2026.4.1. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6 openvino==2026.4.1 opencv-python-headless==5.0.0.93
python3.11 -m venv older
older/bin/pip install --quiet numpy==2.4.6 opencv-python-headless==4.14.0.94
cat > check.py <<'PY'
import subprocess
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

SIZE = 5
onnxruntime.set_default_logger_severity(3)
POOL = helper.make_node("AveragePool", ["d"], ["p"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, count_include_pad=1)


def save(path, nodes):
    arrays = [numpy_helper.from_array(np.float32(1 / 100), "s"), numpy_helper.from_array(np.uint8(0), "z")]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, n, n]) for name, n in (("x", SIZE), ("y", (SIZE + 1) // 2))]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], arrays)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)


def pair(source, name):
    return [helper.make_node("QuantizeLinear", [source, "s", "z"], [name + "q"]), helper.make_node("DequantizeLinear", [name + "q", "s", "z"], [name])]


pool = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, count_include_pad=1)
save("float.onnx", [pool])
save("int8.onnx", [*pair("x", "d"), POOL, *pair("p", "y")])
ones = np.ones((1, 1, SIZE, SIZE), np.float32)
levels = onnxruntime.GraphOptimizationLevel


def ort(path, level=levels.ORT_ENABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"x": ones})[0]


def opencv(python):
    code = "import cv2, sys, numpy as np; n = cv2.dnn.readNetFromONNX(sys.argv[1]); n.setInput(np.ones((1, 1, 5, 5), np.float32)); print(cv2.__version__, *n.forward().ravel())"
    lines = subprocess.run([python, "-c", code, "float.onnx"], capture_output=True, text=True, check=True).stdout.split()
    return lines[0], np.float32(lines[1:]).reshape(1, 1, 3, 3)


new, old = opencv(sys.executable), opencv("older/bin/python")
results = {f"onnxruntime {onnxruntime.__version__}, float": ort("float.onnx"),
           f"onnxruntime {onnxruntime.__version__}, int8, level BASIC": ort("int8.onnx", levels.ORT_ENABLE_BASIC),
           f"onnxruntime {onnxruntime.__version__}, int8, default": ort("int8.onnx"),
           f"openvino {openvino.__version__}, int8": openvino.Core().compile_model(openvino.convert_model("int8.onnx"), "CPU")(ones)[0],
           f"opencv {old[0]}, float": old[1], f"opencv {new[0]}, float": new[1]}
for name, value in results.items():
    print(name, value.round(3).tolist())
low = np.float32([[1, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 0.25]])[None, None]
wrong = [name for name, value in results.items() if np.allclose(value, low)]
right = [name for name, value in results.items() if np.allclose(value, 1)]
same = len(right) == 4 and wrong == [f"onnxruntime {onnxruntime.__version__}, int8, default", f"opencv {new[0]}, float"]
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
