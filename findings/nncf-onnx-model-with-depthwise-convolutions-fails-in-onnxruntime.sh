#!/usr/bin/env bash
# NNCF: the int8 ONNX of a network with depthwise convolutions loads in onnxruntime and fails when it runs
#
# Expected:  nncf.quantize on an ONNX model writes one scale per activation tensor and scales per channel for weights only, since no ONNX
#            runtime has int8 kernels for activations per channel; what it writes runs in onnxruntime, which calibrated it.
# Happens:   what a depthwise convolution reads is quantized per channel (QuantizeLinear with axis 1), with both presets. onnxruntime
#            fuses that pair into a QLinearConv without looking at its size, and run() ends in "input zero point must be a scalar or
#            1D tensor of size 1", while creating the session succeeds. Optimization level BASIC runs it, in float. Convolutions
#            with one or two groups are right.
# Matters:   MobileNets and the detectors built on them are the networks that int8 is for. A pipeline that only loads what it has
#            made ships a file that cannot run at the default level.
# Versions:  nncf 3.4.0, onnx 1.23.2, onnxruntime 1.31.1. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile nncf==3.4.0 onnx==1.23.2 onnxruntime==1.31.1 openvino==2026.4.1 numpy==2.4.6
cat > check.py <<'PY'
import logging
from importlib.metadata import version

import nncf
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

nncf.set_log_level(logging.ERROR)
onnxruntime.set_default_logger_severity(4)
print({name: version(name) for name in ("nncf", "onnx", "onnxruntime")})
random = np.random.default_rng(0)
CHANNELS = 8


def network(groups):
    """Four convolutions with ReLU, the second one with groups."""
    nodes, arrays, source = [], [], "x"
    for i in range(4):
        group = groups if i == 1 else 1
        weight = random.normal(0, 0.2, (CHANNELS, CHANNELS // group, 3, 3)).astype(np.float32)
        arrays.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes.append(helper.make_node("Conv", [source, f"w{i}"], [f"c{i}"], name=f"conv{i}", kernel_shape=[3, 3], pads=[1] * 4, group=group))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}" if i < 3 else "y"], name=f"relu{i}"))
        source = f"r{i}"
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, 16, 16]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def scales(model):
    """Number of scales of each activation, by the convolution that reads it."""
    arrays = {array.name: numpy_helper.to_array(array) for array in model.graph.initializer}
    readers = {name: node for node in model.graph.node for name in node.input}
    found = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            conv = readers[readers[node.output[0]].output[0]]
            found[conv.name] = int(arrays[node.input[1]].size)
    return found


def outcome(model, level):
    """What onnxruntime says of a quantized model: its result, or the step that fails and why."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    try:
        return session.run(None, {"x": PICTURE})[0]
    except Exception as error:  # whatever the runtime raises
        return "fails when run: " + str(error).split("QLinearConv : ")[-1]


def words(result, exact):
    return result if isinstance(result, str) else f"runs, mean error {np.abs(result - exact).mean():.4f} of {np.abs(exact).mean():.2f}"


PICTURE = random.normal(0, 1, (1, CHANNELS, 16, 16)).astype(np.float32)
images = nncf.Dataset([{"x": random.normal(0, 1, (1, CHANNELS, 16, 16)).astype(np.float32)} for _ in range(8)])
same = True
for groups in (1, 2, CHANNELS):
    for preset in nncf.QuantizationPreset.PERFORMANCE, nncf.QuantizationPreset.MIXED:
        plain = network(groups)
        exact = outcome(plain, "ORT_ENABLE_ALL")
        model = nncf.quantize(plain, images, preset=preset)
        counts = scales(model)
        basic, default = (outcome(model, level) for level in ("ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"))
        print(f"groups {groups} {preset.name:11s} scales of what each convolution reads {counts}")
        print(f"    BASIC: {words(basic, exact)}; default: {words(default, exact)}")
        depthwise = groups == CHANNELS
        same &= counts == {f"conv{i}": CHANNELS if depthwise and i == 1 else 1 for i in range(4)}
        same &= not isinstance(basic, str) and isinstance(default, str) == depthwise
        same &= "zero point must be a scalar" in default if isinstance(default, str) else True
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
