#!/usr/bin/env bash
# onnxruntime.quantization: CalibrationMethod.Entropy returns the plain minimum and maximum
#
# Expected:  entropy (KL) calibration searches a clipping threshold; on heavy-tailed data it cuts outliers off, and more
#            histogram bins (CalibNumBins) make the search finer.
# Happens:   quantize_static builds a histogram of 128 bins for 128 quantized bins, so the search has one candidate, the whole
#            range: the written scales equal MinMax bit for bit, with one value of 100 among 6000 below 5 as well. CalibNumBins
#            and CalibNumQuantizedBins are not read. Percentile calibration does clip the same data.
# Matters:   "we tried entropy, it gives the same mAP" is a finding about this default, not about the model; a user who
#            fights outliers with Entropy has changed nothing.
# Versions:  onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
import contextlib, io, logging

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

logging.disable(logging.WARNING)
print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__)
random = np.random.default_rng(1)
images = [np.clip(np.abs(random.standard_t(2, (1, 3, 16, 16))), 0, 5).astype(np.float32) for _ in range(8)]
images[0][0, 0, 0, 0] = 100
kernel = random.normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32)
nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Sigmoid", ["c"], ["s"]), helper.make_node("Mul", ["c", "s"], ["y"])]
graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 14, 14])], [numpy_helper.from_array(kernel, "w")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "float.onnx")


class Reader(CalibrationDataReader):
    def __init__(self, order):
        self.items = iter([{"x": image} for image in order])

    def get_next(self):
        return next(self.items, None)


def scales(method, order=images, **options):
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static("float.onnx", "int8.onnx", Reader(order), activation_type=QuantType.QUInt8,
                        calibrate_method=method, extra_options=options)
    arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load("int8.onnx").graph.initializer}
    return {name: float(arrays[f"{name}_scale"]) for name in "xcs"}


plain = scales(CalibrationMethod.MinMax)
tries = {"entropy": scales(CalibrationMethod.Entropy), "entropy, outlier last": scales(CalibrationMethod.Entropy, images[::-1]),
         "entropy, 2048 bins": scales(CalibrationMethod.Entropy, CalibNumBins=2048, CalibNumQuantizedBins=128)}
clipped = scales(CalibrationMethod.Percentile, CalibPercentile=99.9)
for name, found in {"min-max": plain, **tries, "percentile 99.9": clipped}.items():
    print(f"{name:22s} largest code stands for", {key: round(255 * value, 4) for key, value in found.items()})
same = all(found == plain for found in tries.values()) and clipped["x"] < plain["x"] / 10
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
