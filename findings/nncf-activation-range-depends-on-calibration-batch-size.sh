#!/usr/bin/env bash
# NNCF: the same calibration images give other ranges when they come in other batches
#
# Expected:  post-training ranges are the minimum and maximum over all calibration images (or a statistic of their values),
#            so it does not matter whether the loader yields them one by one.
# Happens:   the default is the mean over the dataset's items of each item's extreme, and an item is a batch. Maxima of 1,
#            2, 3 and 100 become 26.5 in batches of one, 51 in batches of two and 100 in one batch of four.
# Matters:   the batch size of the calibration loader decides how much is clipped; a recipe tuned at batch 1 is not the same
#            at batch 32, and comparing "NNCF min-max" with another tool's min-max compares different ranges.
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



images = [np.full((1, 3, 16, 16), level, np.float32) for level in (1, 2, 3, 100)]
network, seen = model(), {}
for size in (1, 2, 4):
    batches = [np.concatenate(images[i : i + size]) for i in range(0, 4, size)]
    seen[size] = tops(nncf.quantize(network, nncf.Dataset(batches)))[0][1]
    print(f"batches of {size}: the input's range ends at {seen[size]}")
raise SystemExit(0 if seen == {1: 26.5, 2: 51.0, 4: 100.0} else "the recorded behaviour has changed")
PY
venv/bin/python check.py
