#!/usr/bin/env bash
# onnxruntime and torch: reduce_range takes the bit from opposite operands
#
# Expected:  both options exist for the same reason (u8 x s8 products that saturate without VNNI), so both make the same
#            operand 7 bits wide.
# Happens:   onnxruntime's quantize_static(reduce_range=True) writes weights within +-64 and keeps 8-bit activations; torch's
#            reduce_range=True observers give activations codes 0..127 and leave the weights at -128..127. In torch it is
#            moreover on by default (engines x86 and fbgemm, PTQ and QAT), in onnxruntime it is off.
# Matters:   a QAT model trained with torch's default configuration spends 7 bits on activations, where SiLU networks are
#            most sensitive; its ranges moved to an 8-bit runtime have twice the step that was meant, and turning
#            reduce_range on in both tools takes a bit from each operand.
# Versions:  torch 2.13.0, onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-29, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile torch==2.13.0 onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
import logging, warnings

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from torch.ao.quantization import HistogramObserver, get_default_qat_qconfig, get_default_qconfig

logging.disable(logging.WARNING)
warnings.filterwarnings("ignore")
print("torch", torch.__version__, "onnxruntime", onnxruntime.__version__)
random = np.random.default_rng(0)
x = random.uniform(0, 1, (1, 3, 16, 16)).astype(np.float32)
kernel = random.normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32)
graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g",
                          [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 14, 14])],
                          [numpy_helper.from_array(kernel, "w")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "float.onnx")


class Reader(CalibrationDataReader):
    def __init__(self):
        self.items = iter([{"x": x}])

    def get_next(self):
        return next(self.items, None)


def in_onnxruntime(**options):
    quantize_static("float.onnx", "int8.onnx", Reader(), activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    per_channel=True, **options)
    arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load("int8.onnx").graph.initializer}
    return int(np.abs(arrays["w_quantized"].astype(int)).max()), round(float(x.max() / arrays["x_scale"]))


def in_torch(**options):
    observer = HistogramObserver(**options)
    observer(torch.from_numpy(x))
    weights = get_default_qconfig("x86").weight()
    weights(torch.from_numpy(kernel))
    scale = weights.calculate_qparams()[0].numpy()
    codes = np.rint(kernel / scale[:, None, None, None])
    return int(np.abs(codes).max()), round(float(x.max() / observer.calculate_qparams()[0]))


rows = {"onnxruntime, default": in_onnxruntime(), "onnxruntime, reduce_range": in_onnxruntime(reduce_range=True),
        "torch observer, default": in_torch(), "torch observer, reduce_range": in_torch(reduce_range=True)}
for name, (weight, activation) in rows.items():
    print(f"{name:28s} largest weight code {weight}, code of the largest activation {activation}")
defaults = {}
for engine in ("x86", "fbgemm", "onednn", "qnnpack"):
    post, aware = get_default_qconfig(engine).activation(), get_default_qat_qconfig(engine).activation()
    defaults[engine] = (post.quant_max, aware.quant_max)
print("highest activation code of torch's default configurations (post-training, QAT):", defaults)
weights_8bit = all(127 <= rows[name][0] <= 128 for name in rows if name != "onnxruntime, reduce_range")
same = weights_8bit and rows["onnxruntime, reduce_range"][0] == 64 and [rows[n][1] > 200 for n in rows] == [True, True, True, False]
same = same and defaults == {"x86": (127, 127), "fbgemm": (127, 127), "onednn": (255, 255), "qnnpack": (255, 255)}
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
