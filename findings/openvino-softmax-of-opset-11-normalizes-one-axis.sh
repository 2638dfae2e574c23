#!/usr/bin/env bash
# OpenVINO and onnx's reference: Softmax of opset 11 and 12 normalizes one axis, where ONNX means all axes from there on
#
# Expected:  until opset 12 Softmax with axis=1 (the default) sees (N, C, H, W) as N rows of C x H x W and normalizes each row; from 13 on it
#            normalizes the one axis. A runtime that reads opset 11 files knows, as it does for opset 9.
# Happens:   OpenVINO is right for opset 9 and 10 and for LogSoftmax, and normalizes axis 1 alone for Softmax of 11 and 12: every pixel sums to
#            1 instead of the whole picture. onnx's reference evaluator does so for all of them, LogSoftmax too. onnxruntime is right.
# Matters:   the last axis is the only one where both agree. Attention maps and spatial softmaxes (keypoint heat maps) of files that were
#            exported for older devices come out at another scale, and the reference evaluator, asked as the judge, says that it is right.
# Versions:  openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.31.1. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
cat > check.py <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

onnxruntime.set_default_logger_severity(4)
print({name: version(name) for name in ("openvino", "onnx", "onnxruntime")})
random = np.random.default_rng(0)
PICTURE = random.normal(0, 1, (1, 8, 12, 12)).astype(np.float32)
CORE = openvino.Core()


def model(nodes, opset, **arrays):
    """A checked file of these nodes from x to y."""
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, PICTURE.shape), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], [numpy_helper.from_array(array, name) for name, array in arrays.items()])
    made = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), data_prop=True)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, "model.onnx")
    return made


def by_onnxruntime():
    return onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": PICTURE})[0]


def by_openvino(read):
    """What the CPU plugin makes of a file that was read by `read`, in float32."""
    return CORE.compile_model(read("model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([PICTURE])[0]


def sums(array, log):
    """The sum of the probabilities of the whole picture: 1 for all axes from 1 on, its 144 pixels for one axis."""
    return round(float((np.exp(array) if log else array).astype(float).sum()), 2)


same = True
for op in "Softmax", "LogSoftmax":
    for opset in 9, 11, 12, 13:
        made = model([helper.make_node(op, ["x"], ["y"], axis=1)], opset)
        log = op == "LogSoftmax"
        got = {"onnxruntime": sums(by_onnxruntime(), log), "OpenVINO convert_model": sums(by_openvino(openvino.convert_model), log),
               "read_model": sums(by_openvino(CORE.read_model), log), "onnx reference": sums(ReferenceEvaluator(made).run(None, {"x": PICTURE})[0], log)}
        print(f"{op:10s} opset {opset}: probabilities sum to {got}")
        flat, single = 1.0, 144.0
        wrong = opset in (11, 12) and not log
        same &= list(got.values()) == ([flat, single if wrong else flat, single if wrong else flat, single] if opset < 13 else [single] * 4)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
