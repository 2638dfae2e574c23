#!/usr/bin/env bash
# OpenCV 4: the dnn module ignores count_include_pad, dilations, nearest_mode and SAME_LOWER, without a word
#
# Expected:  an attribute that the importer does not support ends in an error, as mode="cubic" of Resize does.
# Happens:   readNetFromONNX takes the model and computes something else. AveragePool with count_include_pad=1, which is torch's
#            default for AvgPool2d(3, padding=1), leaves the padding out: 28 % of the values of a 12x14 map are wrong. MaxPool
#            forgets its dilations and gives a result of another shape. Resize rounds as it likes, and SAME_LOWER pads like
#            SAME_UPPER. OpenCV 5.0 with its new importer computes all four rightly.
# Matters:   cv2.dnn is what a YOLO runs on where nothing else may be installed, and 4.x is what systems ship. A detector with an
#            average pooling loses accuracy at the borders of every feature map, which is then blamed on quantization or on
#            preprocessing; upgrading to 5.0 changes its results.
# Versions:  opencv-python-headless 4.14.0.94 and 5.0.0.93, onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6 opencv-python-headless==4.14.0.94
python3.11 -m venv newer
newer/bin/pip install --quiet numpy==2.4.6 opencv-python-headless==5.0.0.93
cat > check.py <<'PY'
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SHAPE = [1, 4, 12, 14]
random = np.random.default_rng(0)
x = random.normal(0, 1, SHAPE).astype(np.float32)
np.save("x.npy", x)
RUN = """
import cv2, numpy as np, sys
try:
    net = cv2.dnn.readNetFromONNX(sys.argv[1])
    net.setInput(np.load("x.npy"))
    np.save("y.npy", net.forward())
    print(cv2.__version__)
except cv2.error:
    print("refused")
"""
scales = numpy_helper.from_array(np.float32([1, 1, 2, 2]), "s")
kernel = numpy_helper.from_array(random.normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32), "w")
POOL = {"kernel_shape": [3, 3], "pads": [1] * 4}
CASES = {
    "AveragePool plain": (helper.make_node("AveragePool", ["x"], ["y"], **POOL), None),
    "AveragePool count_include_pad=1": (helper.make_node("AveragePool", ["x"], ["y"], count_include_pad=1, **POOL), None),
    "MaxPool dilations=2": (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[2] * 4, dilations=[2, 2]), None),
    "Resize nearest_mode=ceil": (helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest", nearest_mode="ceil",
                                                  coordinate_transformation_mode="asymmetric"), scales),
    "Conv auto_pad=SAME_LOWER": (helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"), kernel),
    "Resize mode=cubic": (helper.make_node("Resize", ["x", "", "s"], ["y"], mode="cubic"), scales),
}
found = {}
for name, (node, array) in CASES.items():
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [array] if array else [])
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    onnx.save(model, "m.onnx")
    want = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    row = []
    for python in (sys.executable, "newer/bin/python"):
        said = subprocess.run([python, "-c", RUN, "m.onnx"], capture_output=True, text=True, check=True).stdout.split()[-1]
        if said == "refused":
            row.append("refused")
            continue
        got = np.load("y.npy")
        if got.shape != want.shape:
            row.append(f"{said}: shape {got.shape} instead of {want.shape}")
        else:
            wrong = float((np.abs(got - want) > 1e-3).mean())
            row.append(f"{said}: right" if wrong == 0 else f"{said}: {wrong:.0%} of the values wrong, by up to {np.abs(got - want).max():.2f}")
    found[name] = row
    print(f"{name:32s}", " | ".join(row))
ignored = list(CASES)[1:5]
same = found["AveragePool plain"][0].endswith("right") and found["Resize mode=cubic"][0] == "refused"
same &= all("wrong" in found[name][0] or "shape" in found[name][0] for name in ignored)
same &= all(found[name][1].endswith("right") for name in ignored)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
