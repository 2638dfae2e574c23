#!/usr/bin/env bash
# onnxruntime: a Pad of zeros in front of a MaxPool is fused into it, where padding is minus infinity
#
# Expected:  the session fuses a Pad of zeros into an AveragePool (with count_include_pad) or a Conv, and leaves a MaxPool behind a Pad of
#            zeros alone, as ONNX pads its pools with nothing; the level BASIC, "semantics preserving", changes no result.
# Happens:   from BASIC on the Pad of zeros disappears into the pads of the MaxPool. Where a window at the border holds only negative
#            values, the maximum was 0 and is now negative. onnxoptimizer's default pass fuse_pad_into_pool does the same to
#            the file. A Pad of another value stays; behind a ReLU nothing shows; OpenVINO is right.
# Matters:   yolov3-tiny is built like this (ZeroPad2d((0, 1, 0, 1)), MaxPool2d(2, 1) behind a SiLU), as are models from Darknet and
#            Keras (ZeroPadding2D). Float and int8 files alike differ from PyTorch in the last row and column of that map and in
#            all that is computed from them, which is taken for the price of quantization or of another resize.
# Versions:  onnxruntime 1.31.1, onnxoptimizer 0.4.2, openvino 2026.4.1, onnx 1.23.2. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxoptimizer==0.4.2 onnxruntime==1.31.1 openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
from importlib.metadata import version

import numpy as np
import onnxoptimizer
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

print({name: version(name) for name in ("onnxruntime", "onnxoptimizer", "openvino", "onnx")})
SIZE = 13
levels = onnxruntime.GraphOptimizationLevel
pre = np.random.default_rng(0).normal(-1, 1, (1, 8, SIZE, SIZE))
x = (pre / (1 + np.exp(-pre))).astype(np.float32)  # what a SiLU gives


def exact(value, activation):
    """MaxPool2d(2, 1) behind a Pad of one row below and one column to the right."""
    map_ = np.pad(np.maximum(x, 0) if activation == "Relu" else x, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=value)
    return np.max([map_[:, :, i:i + SIZE, j:j + SIZE] for i in (0, 1) for j in (0, 1)], axis=0)


def build(value, activation):
    nodes = [helper.make_node(activation, ["x"], ["a"]), helper.make_node("Pad", ["a", "pads", "value"], ["p"]),
             helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[2, 2], strides=[1, 1])]
    arrays = [numpy_helper.from_array(np.int64([0, 0, 0, 0, 0, 0, 1, 1]), "pads"), numpy_helper.from_array(np.float32(value), "value")]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def ort(model, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def ov(model):
    import onnx

    onnx.save(model, "m.onnx")
    return openvino.Core().compile_model(openvino.convert_model("m.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]


RUNS = {"onnxruntime, no optimization": lambda m: ort(m, levels.ORT_DISABLE_ALL), "onnxruntime, BASIC": lambda m: ort(m, levels.ORT_ENABLE_BASIC),
        "onnxruntime, default": lambda m: ort(m, levels.ORT_ENABLE_ALL), "openvino": ov,
        "onnxoptimizer, then no optimization": lambda m: ort(onnxoptimizer.optimize(m), levels.ORT_DISABLE_ALL)}
wrong = {}
for title, arguments in {"zeros behind SiLU": (0, "Identity"), "zeros behind ReLU": (0, "Relu"), "-1 behind SiLU": (-1, "Identity")}.items():
    model, want = build(*arguments), exact(*arguments)
    for name, run in RUNS.items():
        off = np.abs(run(model) - want) > 1e-5
        wrong[title, name] = int(off.sum())
        inside = int(off[:, :, :-1, :-1].sum())
        print(f"{title:18s} {name:36s} {wrong[title, name]:3d} of {want.size} values wrong, {inside} of them not in the last row or column")
        assert inside == 0
affected = {name for (title, name), count in wrong.items() if count}
same = affected == {"onnxruntime, BASIC", "onnxruntime, default", "onnxoptimizer, then no optimization"}
same &= all(count > 100 if title == "zeros behind SiLU" and name in affected else count == 0 for (title, name), count in wrong.items())
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
