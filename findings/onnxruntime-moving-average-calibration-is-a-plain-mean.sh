#!/usr/bin/env bash
# onnxruntime.quantization: CalibMovingAverage is a plain mean, and its constant has no effect
#
# Expected:  MinMax calibration with CalibMovingAverage=True keeps an exponential moving average of each batch's minimum
#            and maximum, weighted by CalibMovingAverageConstant (0.01 by default).
# Happens:   the range is the arithmetic mean of the batches' extremes (1, 2, 3 and 100 give 26.5); constants of 0.01,
#            0.5 and 0.99 write byte-equal models, and the order of the images does not matter.
# Matters:   whoever tunes the constant tunes nothing, and one outlier among N images moves the range by 1/N of it:
#            on 128 images every activation that one image drives higher is clipped.
# Versions:  onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-29, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
import hashlib, logging
from pathlib import Path

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


def top(levels=(1, 2, 3, 100), **options):
    quantize_static("float.onnx", "int8.onnx", Reader(levels), activation_type=QuantType.QUInt8, extra_options=options)
    scale = next(numpy_helper.to_array(t) for t in onnx.load("int8.onnx").graph.initializer if t.name == "x_scale")
    return round(float(scale) * 255, 3), hashlib.sha256(Path("int8.onnx").read_bytes()).hexdigest()[:12]


plain = top()[0]
averaged = {constant: top(CalibMovingAverage=True, CalibMovingAverageConstant=constant) for constant in (0.01, 0.5, 0.99)}
print("largest input code stands for", plain, "(min-max) and", averaged, "(moving average, by constant)")
backwards = top((100, 3, 2, 1), CalibMovingAverage=True)[0]
print("reversed order of the images:", backwards)
same = plain == 100 and {value for value, _ in averaged.values()} == {26.5} and len(set(averaged.values())) == 1 and backwards == 26.5
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
