#!/usr/bin/env bash
# onnxruntime: session.x64quantprecision=1 is followed on processors with VNNI too, and costs them their fast integer kernels
#
# Expected:  the header that documents the key speaks of processors "with no VNNI", whose sums of uint8 by int8 products overflow; where VNNI
#            adds exactly it should change nothing, so that a program can set it everywhere to be safe.
# Happens:   with VNNI as without it the weights of every QLinearConv and QGemm are rewritten from int8 to uint8, whose kernels use no VNNI.
#            The results are the same to the last bit; convolutions take several times as long. (The session asks whether the
#            tables of its uint8 and int8 kernels are different ones; they are on every x86 processor from AVX2 on.)
# Matters:   the key is what issue threads recommend against wrong INT8 results on x86. Set without looking at the processor, it makes an
#            INT8 detector about as slow as the float one on today's servers and laptops, and nothing tells.
# Versions:  onnxruntime 1.31.1, onnx 1.23.2, numpy 2.4.6. Observed 2026-12-01, x86-64 with AVX512-VNNI. Times are printed, not judged.
#            Without VNNI the rewriting is what the documentation says; the script then ends without a judgement.
set -euo pipefail
grep -q vnni /proc/cpuinfo || { echo "this processor has no VNNI: nothing to see here"; exit 0; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
import time
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print({name: version(name) for name in ("onnxruntime", "onnx", "numpy")})
CHANNELS, SIDE, LAYERS = 64, 80, 6
rng = np.random.default_rng(0)
scale, zero = "s", "z"
arrays = {scale: np.float32(0.05), zero: np.uint8(128), "ws": np.float32(0.004)}
nodes = [helper.make_node("QuantizeLinear", ["x", scale, zero], ["q0"]), helper.make_node("DequantizeLinear", ["q0", scale, zero], ["d0"])]
for i in range(LAYERS):
    arrays[f"wz{i}"] = np.int8(0)
    arrays[f"w{i}"] = rng.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)
    nodes += [helper.make_node("DequantizeLinear", [f"w{i}", "ws", f"wz{i}"], [f"dw{i}"]),
              helper.make_node("Conv", [f"d{i}", f"dw{i}"], [f"c{i}"], pads=[1] * 4),
              helper.make_node("QuantizeLinear", [f"c{i}", scale, zero], [f"q{i + 1}"]),
              helper.make_node("DequantizeLinear", [f"q{i + 1}", scale, zero], [f"d{i + 1}"])]
shape = [1, CHANNELS, SIDE, SIDE]
info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", f"d{LAYERS}")]
graph = helper.make_graph(nodes, "g", info[:1], info[1:], [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "m.onnx")


def session(setting):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = f"optimized{setting}.onnx"
    if setting:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession("m.onnx", options, providers=["CPUExecutionProvider"])


sessions = [session(0), session(1)]
x = rng.normal(0, 2, shape).astype(np.float32)
results = [each.run(None, {"x": x})[0] for each in sessions]
times = [[], []]
for _ in range(15):
    for each, found in zip(sessions, times):
        start = time.perf_counter()
        each.run(None, {"x": x})
        found.append(time.perf_counter() - start)
kinds = []
for setting in (0, 1):
    graph = onnx.load(f"optimized{setting}.onnx").graph
    types = {t.name: TensorProto.DataType.Name(t.data_type) for t in graph.initializer}
    kinds.append([types[node.input[3]] for node in graph.node if node.op_type == "QLinearConv"])
    print(f"x64quantprecision {'1' if setting else 'not set'}: weights of QLinearConv {kinds[-1]}")
print("results equal:", np.array_equal(*results), "| different values:", len(np.unique(results[0])))
print(f"time with the key against time without: {np.median(times[1]) / np.median(times[0]):.2f}")
same = kinds == [["INT8"] * LAYERS, ["UINT8"] * LAYERS] and np.array_equal(*results) and len(np.unique(results[0])) > 100
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
