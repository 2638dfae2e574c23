#!/usr/bin/env bash
# onnxruntime.quantization: CalibMaxIntermediateOutputs throws calibration images away
#
# Expected:  CalibMaxIntermediateOutputs=N bounds memory: after N images the extremes are folded into the running range
#            and the buffers are freed, so the result is that of all images.
# Happens:   every full group of N is dropped without being looked at. Only the remainder after the last full group
#            counts: of five images with N=2 the first four leave no trace, and where the number of images is a multiple
#            of N the call ends in "No data is collected".
# Matters:   the option is set when calibration runs out of memory, that is, for large YOLOs on many images, and then
#            the ranges of a whole detector come from the last handful: codes saturate, nothing warns.
# Versions:  onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-29, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

logging.disable(logging.WARNING)
print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__)
shape = [1, 3, 8, 8]
weight = np.random.default_rng(0).normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32)
graph = helper.make_graph(
    [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])], [numpy_helper.from_array(weight, "w")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "float.onnx")


class Reader(CalibrationDataReader):
    def __init__(self, levels):
        self.images = iter([np.full(shape, level, np.float32) for level in levels])

    def get_next(self):
        image = next(self.images, None)
        return None if image is None else {"x": image}


def top(levels, **options):
    quantize_static("float.onnx", "int8.onnx", Reader(levels), activation_type=QuantType.QUInt8, extra_options=options)
    scale = next(numpy_helper.to_array(t) for t in onnx.load("int8.onnx").graph.initializer if t.name == "x_scale")
    return round(float(scale) * 255, 3)


levels = (100, 50, 20, 10, 5)
everything = top(levels)
bounded = {size: top(levels, CalibMaxIntermediateOutputs=size) for size in (2, 3, 4, 6)}
print("images with maxima", levels, "-> largest code", everything, "; by CalibMaxIntermediateOutputs:", bounded)
try:
    outcome = top(levels, CalibMaxIntermediateOutputs=5)
except ValueError as error:
    outcome = str(error)
print("five images, limit 5:", outcome)
same = everything == 100 and bounded == {2: 5, 3: 10, 4: 5, 6: 100} and "No data" in str(outcome)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
