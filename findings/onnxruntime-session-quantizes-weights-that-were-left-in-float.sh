#!/usr/bin/env bash
# onnxruntime: a convolution that was excluded from quantization gets int8 weights all the same, when the session starts
#
# Expected:  quantize_static(nodes_to_exclude=["conv1"]) leaves that layer in float: the file holds its float weights, and
#            the runtime computes with what the file holds.
# Happens:   the neighbours' Q/DQ pairs are on both sides of the excluded Conv, with or without a Relu behind it. While
#            the model is loaded an optimizer takes this for "weights that somebody forgot" and rounds them to int8, with
#            one scale for the whole tensor, even at level BASIC and even where all others are per channel. A channel
#            whose weights are below 1/254 of the largest becomes constant. Only session.disable_quant_qdq=1 (which turns off all
#            integer kernels) or no optimization avoid it; with a SiLU that is excluded too nothing happens.
# Matters:   the layer that a sensitivity study found to need float is quantized worse than before it was excluded, the
#            file still looks right in every viewer, and a layer-by-layer comparison of files finds no cause.
# Versions:  onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-30, x86-64.
# Source:    onnxruntime/core/optimizer/qdq_transformer/weight_bias_quantization.h says it in a comment.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
import logging

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

logging.disable(logging.WARNING)
print("onnxruntime", ort.__version__, "onnx", onnx.__version__)
random = np.random.default_rng(0)
IMAGES = [{"x": random.uniform(0, 1, (1, 3, 16, 16)).astype(np.float32)} for _ in range(5)]


class Images(CalibrationDataReader):
    def __init__(self):
        self.left = iter(IMAGES[:4])

    def get_next(self):
        return next(self.left, None)


def network(activation):
    """Three convolutions; in the second one channel 0 has large weights, channel 1 small ones (as after folding BN)."""
    nodes, weights, x = [], [], "x"
    for i, (inputs, outputs) in enumerate(((3, 8), (8, 2), (2, 2))):
        kernel = random.uniform(-0.3, 0.3, (outputs, inputs, 1, 1))
        if i == 1:
            kernel = np.array([3.0, 0.01]).reshape(2, 1, 1, 1) * np.tile([1.0, -1.0], 4).reshape(1, 8, 1, 1)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], name=f"conv{i}"))
        x = f"c{i}"
        if i < 2 and activation == "Relu":
            nodes.append(helper.make_node("Relu", [x], [f"a{i}"], name=f"act{i}"))
            x = f"a{i}"
        elif i < 2 and activation == "SiLU":
            nodes += [helper.make_node("Sigmoid", [x], [f"g{i}"], name=f"gate{i}"),
                      helper.make_node("Mul", [x, f"g{i}"], [f"a{i}"], name=f"act{i}")]
            x = f"a{i}"
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
                              [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, 2, 16, 16])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def loaded(level, **config):
    """What a session has made of the file: how conv1 is computed and with which weights."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = "loaded.onnx"
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    for key, value in config.items():
        options.add_session_config_entry(key.replace("_", ".", 1), value)
    ort.InferenceSession("quantized.onnx", options, providers=["CPUExecutionProvider"])
    graph = onnx.load("loaded.onnx").graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    node = [n for n in graph.node if "Conv" in n.op_type][1]
    name = node.input[3 if node.op_type == "QLinearConv" else 1]
    if name not in constants:  # Conv with a DequantizeLinear in front of its weights
        name = makers[name].input[0]
    values = constants[name]
    # a layout for wide registers fills up with zeros behind the two channels that there are
    return node.op_type, str(values.dtype), [np.unique(channel).size == 1 for channel in values[:2]]


same = True
for activation, excluded in ((None, ["conv1"]), ("Relu", ["conv1"]), ("SiLU", ["conv1"]), ("SiLU", ["conv1", "gate1", "act1"])):
    onnx.save(network(activation), "float.onnx")
    quantize_static("float.onnx", "quantized.onnx", Images(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=excluded)
    stored = {i.name: numpy_helper.to_array(i).dtype for i in onnx.load("quantized.onnx").graph.initializer}
    seen = {level: loaded(level) for level in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_ALL")}
    seen["disable_quant_qdq"] = loaded("ENABLE_ALL", session_disable_quant_qdq="1")
    print(f"activation {activation}, excluded {excluded}; in the file w1 is {stored['w1']}")
    for how, (op, dtype, constant) in seen.items():
        print(f"   {how:18s} {op:12s} weights {dtype}, constant the large and the small channel: {constant}")
    hit = excluded == ["conv1"]
    same &= stored["w1"] == np.float32 and seen["DISABLE_ALL"][1] == seen["disable_quant_qdq"][1] == "float32"
    same &= all(seen[level][1:] == ("int8" if hit else "float32", [False, hit]) for level in ("ENABLE_BASIC", "ENABLE_ALL"))
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
