#!/usr/bin/env bash
# OpenVINO: 16-bit Q/DQ and FakeQuantize with 65536 levels are removed, and with them the saturation
#
# Expected:  a 16-bit quantizer that the CPU cannot execute in integers is computed in float: rounding and clipping stay
#            (that is what happens to 255, 1024 or 65535 levels).
# Happens:   the CPU plugin deletes int16 and uint16 Q/DQ pairs and FakeQuantize with 65536 levels, so values beyond the
#            range pass unchanged: a range of +-1 lets 9 through. With 65535 levels the same node clips at 1.
# Matters:   16-bit activations (the LiteRT 16x8 and NPU recipes) rely on saturation where ranges were clipped on purpose;
#            such a model scores differently in OpenVINO than in ONNX Runtime, and a simulation by FakeQuantize lies.
# Versions:  openvino 2026.4.1, onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-29, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet openvino==2026.4.1 onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import openvino.opset13 as op
from onnx import TensorProto, helper, numpy_helper

print("openvino", ov.__version__, "onnxruntime", ort.__version__)
x = np.linspace(-6, 6, 13, dtype=np.float32).reshape(1, 1, 1, 13)
core = ov.Core()


def on_openvino(model):
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]


def qdq(dtype):
    info = np.iinfo(dtype)
    zero = dtype(0) if info.min else dtype((info.max + 1) // 2)
    constants = {"s": np.float32(1 / (info.max - int(zero))), "z": zero, "k": np.float32(1.5)}
    nodes = [helper.make_node("Mul", ["x", "k"], ["a"]), helper.make_node("QuantizeLinear", ["a", "s", "z"], ["q"]),
             helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]), helper.make_node("Mul", ["d", "k"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def fake_quantize(levels):
    p = op.parameter(x.shape, np.float32)
    low, high = np.float32(-1), np.float32(1)
    return ov.Model([op.multiply(op.fake_quantize(op.multiply(p, high), low, high, low, high, levels), high)], [p], "m")


seen = {}
for dtype in (np.int8, np.uint8, np.int16, np.uint16):
    model = qdq(dtype)
    onnx.checker.check_model(model, full_check=True)
    reference = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    got = on_openvino(core.read_model(model.SerializeToString()))
    seen[dtype.__name__] = round(float(got.max()), 2)
    print(f"Q/DQ {dtype.__name__:7s} largest output: onnxruntime {reference.max():.3f}, openvino {got.max():.3f}")
for levels in (256, 1024, 65535, 65536):
    seen[levels] = round(float(on_openvino(fake_quantize(levels)).max()), 2)
    print(f"FakeQuantize of +-1, {levels} levels: largest output {seen[levels]}")
same = seen == {"int8": 1.5, "uint8": 1.5, "int16": 13.5, "uint16": 13.5, 256: 1.0, 1024: 1.0, 65535: 1.0, 65536: 6.0}
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
