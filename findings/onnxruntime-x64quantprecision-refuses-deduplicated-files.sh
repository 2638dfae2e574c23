#!/usr/bin/env bash
# onnxruntime: with session.x64quantprecision=1 an INT8 file does not load once a simplifier has merged its equal constants
#
# Expected:  merging equal constants changes nothing about a model, and a session setting about precision nothing about which files load.
# Happens:   ONNX Runtime's own quantize_static gives every weight a zero point of its own, all of them 0. onnxslim, onnxsim, onnxoptimizer
#            and onnx_ir merge them into one, per tensor and per channel alike. Without the key such a file loads. With it, session
#            creation fails ("Attempt to replace the existing tensor"), from the level EXTENDED on: the weights of every layer are turned into uint8
#            and the zero point is replaced once for each of them.
# Matters:   the key is the documented remedy for wrong INT8 sums on x86 without VNNI, and simplifiers are a usual last step of an export:
#            whoever does both gets a file that loads everywhere but in the program that was made careful.
# Versions:  onnxruntime 1.31.1, onnx 1.23.2, onnxslim 0.1.98, onnxsim 0.8.1, onnxoptimizer 0.4.2, onnx-ir 1.1.0. Observed 2026-12-01, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.31.1 onnx==1.23.2 onnxslim==0.1.98 onnxsim==0.8.1 onnxoptimizer==0.4.2 onnx-ir==1.1.0 numpy==2.4.6
cat > check.py <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnx_ir
import onnx_ir.passes.common as passes
import onnxoptimizer
import onnxruntime
import onnxsim
import onnxslim
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

print({name: version(name) for name in ("onnxruntime", "onnx", "onnxslim", "onnxsim", "onnxoptimizer", "onnx-ir")})
LAYERS, SHAPE = 3, [1, 3, 16, 16]
rng = np.random.default_rng(0)
nodes, arrays = [], {}
for i in range(LAYERS):
    arrays[f"w{i}"] = rng.normal(0, 0.1, (8, 8 if i else 3, 3, 3)).astype(np.float32)
    arrays[f"b{i}"] = rng.normal(0, 0.1, 8).astype(np.float32)
    nodes += [helper.make_node("Conv", [f"r{i}" if i else "x", f"w{i}", f"b{i}"], [f"c{i}"], name=f"conv{i}", pads=[1] * 4),
              helper.make_node("Relu", [f"c{i}"], [f"r{i + 1}"], name=f"relu{i}")]
info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE), helper.make_tensor_value_info(f"r{LAYERS}", TensorProto.FLOAT, [1, 8, 16, 16])]
graph = helper.make_graph(nodes, "g", info[:1], info[1:], [numpy_helper.from_array(a, n) for n, a in arrays.items()])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "float.onnx")


class Images(CalibrationDataReader):
    def __init__(self):
        self.left = iter([{"x": rng.normal(size=SHAPE).astype(np.float32)} for _ in range(4)])

    def get_next(self):
        return next(self.left, None)


def merged_by_onnx_ir(model):
    model = onnx_ir.serde.deserialize_model(model)
    passes.DeduplicateInitializersPass()(model)
    return onnx_ir.serde.serialize_model(model)


STEPS = {"as quantized": lambda m: m, "onnxslim": onnxslim.slim, "onnxsim": lambda m: onnxsim.simplify(m)[0],
         "onnxoptimizer": lambda m: onnxoptimizer.optimize(m, ["eliminate_duplicate_initializer"]), "onnx_ir": merged_by_onnx_ir}
LEVELS = onnxruntime.GraphOptimizationLevel


def loads(model, key, level=LEVELS.ORT_ENABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.graph_optimization_level = 4, level
    if key:
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        return str(exc).strip().rpartition(":")[2].strip()[-60:]
    return "loads"


same = True
for per_channel in (False, True):
    quantize_static("float.onnx", "int8.onnx", Images(), per_channel=per_channel, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    for name, step in STEPS.items():
        model = step(onnx.load("int8.onnx"))
        weights = {t.name for t in model.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 4}
        points = {n.input[2] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in weights}
        plain, careful, basic = loads(model, False), loads(model, True), loads(model, True, LEVELS.ORT_ENABLE_BASIC)
        print(f"per_channel={per_channel!s:5s} {name:13s} {len(points)} zero points of {len(weights)} weights; without the key: {plain}; "
              f"with it: {careful}; with it, level BASIC: {basic}")
        same &= len(weights) == LAYERS and plain == basic == "loads"
        same &= (len(points), careful == "loads") == ((LAYERS, True) if name == "as quantized" else (1, False))
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
