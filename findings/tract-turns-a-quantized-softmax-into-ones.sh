#!/usr/bin/env bash
# tract: a Softmax between QuantizeLinear/DequantizeLinear pairs returns 1.0 for every element
#
# Expected:  what it gives for all other operators of a Q/DQ model: convolution, pooling, Add, Mul, Sigmoid, Resize and MatMul agree
#            with onnxruntime to the last step.
# Happens:   a Softmax with a pair on both sides gives the largest value of the output's grid, 1.0, for every element. With a pair
#            on one side only, or none, the same Softmax is exact.
# Matters:   tract is the ONNX engine of Rust and WebAssembly programs. Quantizers put a pair behind Softmax by default
#            (onnxruntime's quantize_static does), and a YOLO has it in its attention blocks (11 and later) and in DFL: boxes and
#            features are nonsense, while an older model without attention, decoded on the host, works.
# Versions:  tract 0.23.9, onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet tract==0.23.9 onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import tract
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(3)
print({name: version(name) for name in ("tract", "onnxruntime", "onnx")})
SHAPE = [1, 8, 4, 4]
x = np.random.default_rng(0).uniform(-2, 6, SHAPE).astype(np.float32)
ARRAYS = {"xs": np.float32(8 / 255), "xz": np.uint8(64), "ys": np.float32(1 / 255), "yz": np.uint8(0)}


def pair(source, grid, name):
    return [helper.make_node("QuantizeLinear", [source, grid + "s", grid + "z"], [name + "q"]),
            helper.make_node("DequantizeLinear", [name + "q", grid + "s", grid + "z"], [name])]


def both(nodes):
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy"]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], [numpy_helper.from_array(np.asarray(v), k) for k, v in ARRAYS.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "m.onnx")
    want = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    return want, tract.onnx().load("m.onnx").into_model().into_runnable().run([x])[0].to_numpy()


def node(op, source, result):
    return helper.make_node(op, [source], [result], **({"axis": 1} if op == "Softmax" else {}))


CASES = {"Sigmoid between pairs": [*pair("x", "x", "d"), node("Sigmoid", "d", "p"), *pair("p", "y", "y")],
         "Softmax without pairs": [node("Softmax", "x", "y")],
         "Softmax behind a pair": [*pair("x", "x", "d"), node("Softmax", "d", "y")],
         "Softmax in front of a pair": [node("Softmax", "x", "p"), *pair("p", "y", "y")],
         "Softmax between pairs": [*pair("x", "x", "d"), node("Softmax", "d", "p"), *pair("p", "y", "y")]}
ones = {}
for name, nodes in CASES.items():
    want, got = both(nodes)
    ones[name] = bool((got == 1).all())
    print(f"{name:27s} largest difference {np.abs(got - want).max():.4f}; tract", got.ravel()[:4].round(3), "onnxruntime", want.ravel()[:4].round(3))
    if not ones[name] and np.abs(got - want).max() > 1.5 / 255:
        ones[name] = None
same = list(ones.values()) == [False, False, False, False, True]
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
