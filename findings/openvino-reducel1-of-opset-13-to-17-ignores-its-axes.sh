#!/usr/bin/env bash
# OpenVINO: ReduceL1, ReduceLogSum and ReduceLogSumExp of opset 13 to 17 ignore their axes and reduce everything
#
# Expected:  these operators read their axes from the attribute until opset 17 and from the second input since 18; only ReduceSum changed
#            in 13. OpenVINO reads all of them right in opset 11 and 18.
# Happens:   in opset 13 to 17 the attribute is overlooked for these three and all axes are reduced: (1, 8, 12, 12) over axis 1 becomes
#            (1, 1, 1, 1). ReduceL2, ReduceMean, ReduceMax, ReduceProd and ReduceSumSquare are right. The number broadcasts, so x / ReduceL1(x) runs.
# Matters:   13 to 17 are the opsets that exporters write by default. F.normalize(p=1) and scores from a logsumexp come out divided by one number
#            of the whole picture, in the right shape.
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


WRONG = "ReduceL1", "ReduceLogSum", "ReduceLogSumExp"
same = True
for op in *WRONG, "ReduceL2", "ReduceMean", "ReduceMax", "ReduceProd", "ReduceSumSquare":
    off = {}
    for opset in 11, 13, 17, 18:
        positive = helper.make_node("Abs", ["x"], ["a"])
        reduced = helper.make_node(op, ["a"], ["r"], axes=[1]) if opset < 18 else helper.make_node(op, ["a", "axes"], ["r"])
        made = model([positive, reduced, helper.make_node("Div", ["a", "r"], ["y"])], opset, **({} if opset < 18 else {"axes": np.int64([1])}))
        exact = by_onnxruntime()
        both = [by_openvino(read) for read in (openvino.convert_model, CORE.read_model)]
        assert both[0].shape == exact.shape and np.array_equal(*both)
        off[opset] = round(float(np.abs(both[0] - exact).mean() / np.abs(exact).mean()), 2)
        same &= (off[opset] > 0.3) == (op in WRONG and opset in (13, 17))
    print(f"|x| / {op:16s} over the channels: mean error of the result by opset, as a part of it: {off}")
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
