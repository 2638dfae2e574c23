#!/usr/bin/env bash
# onnxruntime: two Q/DQ pairs in a row are replaced by one with a scale that the file does not contain
#
# Expected:  Q, DQ, Q, DQ with different scales is a requantization: it stays, or is reduced only where both pairs agree.
# Happens:   both pairs go, and one comes whose range is what the two have in common, divided by 255: scales 0.05 and 0.1
#            become 0.0498. The values leave the second pair's grid (by up to a whole step), and as the
#            int32 bias behind was scaled for the second pair, the Conv that reads it is not fused any more: it runs in
#            float. session.disable_double_qdq_remover=1 gives the integer kernel back.
# Matters:   such pairs stand where a tensor enters a concatenation or an addition with a shared range, or where two tools
#            quantized one after the other. The reference evaluator, OpenVINO and a device's toolchain round twice as the
#            file says; ONNX Runtime does not, and is slower for it.
# Versions:  onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-30, x86-64.
# Source:    onnxruntime/core/optimizer/double_qdq_pairs_remover.h claims equality to the original sequence.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

print("onnxruntime", ort.__version__, "onnx", onnx.__version__)


def model(pairs, conv):
    """Q/DQ pairs of (scale, zero point) behind each other, then a Conv with integer weights and bias, or nothing."""
    nodes, constants, x = [], {}, "x"
    for i, (scale, zero) in enumerate(pairs):
        constants |= {f"s{i}": np.float32(scale), f"z{i}": np.uint8(zero)}
        nodes += [helper.make_node("QuantizeLinear", [x, f"s{i}", f"z{i}"], [f"q{i}"]),
                  helper.make_node("DequantizeLinear", [f"q{i}", f"s{i}", f"z{i}"], [f"d{i}"])]
        x = f"d{i}"
    if conv:
        # weights of at most 60: no sum of two products exceeds 16 bits on processors without VNNI
        weights = np.random.default_rng(0).integers(-60, 61, (4, 8, 3, 3)).astype(np.int8)
        constants |= {"w": weights, "ws": np.float32(0.01), "wz": np.int8(0), "b": np.int32([100, -200, 300, 50]),
                      "bs": np.float32(np.float32(pairs[-1][0]) * np.float32(0.01)), "bz": np.int32(0),
                      "so": np.float32(0.1), "zo": np.uint8(128)}
        nodes += [helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
                  helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bd"]),
                  helper.make_node("Conv", [x, "wd", "bd"], ["c"], pads=[1] * 4),
                  helper.make_node("QuantizeLinear", ["c", "so", "zo"], ["cq"]),
                  helper.make_node("DequantizeLinear", ["cq", "so", "zo"], ["cd"])]
        x = "cd"
    shape = [1, 4 if conv else 8, 9, 9]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 9, 9])],
                              [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)],
                              [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def run(content, level="ENABLE_ALL", **config):
    """The result, the scales of the QuantizeLinear nodes and the convolution's operator."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = "loaded.onnx"
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    for key, value in config.items():
        options.add_session_config_entry(key.replace("_", ".", 1), value)
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    result = session.run(None, {"x": np.random.default_rng(1).uniform(-4, 16, (1, 8, 9, 9)).astype(np.float32)})[0]
    graph = onnx.load("loaded.onnx").graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    scales = [round(float(constants[n.input[1]]), 4) for n in graph.node if n.op_type == "QuantizeLinear"]
    return result, scales, next((n.op_type for n in graph.node if "Conv" in n.op_type), "-")


same = True
for pairs in (((0.05, 0), (0.1, 128)), ((0.05, 20), (0.05, 30)), ((0.04, 0), (0.05, 0)), ((0.1, 20), (0.1, 20))):
    plain = model(pairs, conv=False)
    exact, before, _ = run(plain, "DISABLE_ALL")
    got, after, _ = run(plain)
    error = np.abs(got - exact).max() / max(scale for scale, _ in pairs)
    content = model(pairs, conv=True)
    wanted, _, _ = run(content, "DISABLE_ALL")
    default, _, op = run(content)
    kept, _, op_kept = run(content, session_disable_double_qdq_remover="1")
    off, off_kept = ((np.abs(y - wanted) > 0.05).mean() for y in (default, kept))
    print(f"pairs {pairs}: scales {before} -> {after}, values off by up to {error:.2f} steps")
    print(f"   the convolution behind: {op}, {off:.1%} of its codes differ; with disable_double_qdq_remover: {op_kept}, {off_kept:.1%}")
    equal = pairs[0] == pairs[1]
    same &= len(after) == 1 and (after[0] in before) == (equal or pairs[0][1] == pairs[1][1]) and op_kept == "QLinearConv" and off_kept < 0.01
    same &= (error == 0 and op == "QLinearConv" and off < 0.01) if equal else (op == "Conv" and off > 0.05)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
