#!/usr/bin/env bash
# NNCF: an already quantized model is quantized again, each time with smaller ranges
#
# Expected:  nncf.quantize recognises a model that it (or a Q/DQ ONNX file) has quantized, and raises or leaves it alone.
# Happens:   it puts a second FakeQuantize behind every first one. As the default range is the mean of the images' extremes
#            and the first quantizer has already clipped them, the range shrinks with every pass, without a word.
# Matters:   a pipeline that "compresses to INT8" whatever it is given (a QAT checkpoint exported with Q/DQ, a file from
#            yesterday's run) silently replaces trained ranges by narrower ones: large activations saturate.
# Versions:  nncf 3.4.0, openvino 2026.4.1. Observed 2026-11-29, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile nncf==3.4.0 openvino==2026.4.1 numpy==2.4.6
cat > check.py <<'PY'
import logging

import numpy as np
import nncf
import openvino as ov
import openvino.opset13 as op

nncf.set_log_level(logging.ERROR)
print("nncf", nncf.__version__, "openvino", ov.__version__)
random = np.random.default_rng(0)


def model():
    """Conv, Swish, Conv with a free batch dimension."""
    x = op.parameter([-1, 3, 16, 16], np.float32, name="x")
    y = x
    for inputs, outputs in ((3, 8), (8, 4)):
        kernel = random.normal(0, 0.2, (outputs, inputs, 3, 3)).astype(np.float32)
        y = op.convolution(op.swish(y) if inputs == 8 else y, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    return ov.Model([op.result(y)], [x], "m")


def tops(quantized):
    """Upper end of each activation FakeQuantize, by its name, in graph order."""
    nodes = [n for n in quantized.get_ordered_ops() if n.get_type_name() == "FakeQuantize"]
    return [(n.get_friendly_name(), round(float(np.max(n.input_value(2).get_node().get_data())), 2)) for n in nodes]



images = nncf.Dataset([np.full((1, 3, 16, 16), level, np.float32) for level in (1, 2, 3, 100)])
network, rows = model(), []
for times in (1, 2, 3):
    network = nncf.quantize(network, images)
    rows.append(tops(network))
    print(f"after {times}:", rows[-1])
inputs = [[top for name, top in row if name.startswith("x/")] for row in rows]
same = [len(row) for row in rows] == [2, 4, 6] and inputs[0] == [26.5] and inputs[1] == [26.5, 8.13] and inputs[2][2] < 8
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
