#!/usr/bin/env bash
# onnxslim: a Mul along the width is folded into the channels of the convolution in front of it
#
# Expected:  Conv followed by Mul is folded only if the constant runs along the channels, (1, C, 1, 1) or (C, 1, 1); a constant of any
#            other shape is left alone, as one is whose length is not the number of channels.
# Happens:   the shape is squeezed before it is looked at: any constant of C numbers in one dimension is multiplied into the weights
#            channel by channel. (W,) and (1, 1, 1, W) run along the columns and (H, 1) along the rows; where W or H is C, the Mul
#            disappears and the result is wrong by as much as the factors differ. No warning; Add, Sub and Div are left alone.
# Matters:   COCO has 80 classes and the finest level of a YOLO has 80 x 80 cells at 640 pixels, so a weight by column behind the
#            class convolution (a mask of the road, a border weight, a stride table) is folded at 640 and is right at 512. The export
#            calls onnxslim by default (simplify=True of Ultralytics), and the torch model beside it is right.
# Versions:  onnxslim 0.1.98, onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxslim==0.1.98 onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import onnxslim
from onnx import TensorProto, helper, numpy_helper

print({name: version(name) for name in ("onnxslim", "onnxruntime", "onnx")})
CLASSES = 80
random = np.random.default_rng(0)
WEIGHT = random.normal(0, 0.2, (CLASSES, 8, 1, 1)).astype(np.float32)
FACTORS = np.linspace(0, 1, CLASSES, dtype=np.float32)


def both(cells, shape, op="Mul"):
    """Largest difference between the model and what onnxslim makes of it, and the operators that are left."""
    x = random.normal(0, 1, (1, 8, cells, cells)).astype(np.float32)
    factors = np.resize(FACTORS, int(np.prod(shape))).reshape(shape) + np.float32(0.1)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node(op, ["c", "k"], ["y"])]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CLASSES, cells, cells])],
                              [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(factors, "k")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    slim = onnxslim.slim(onnx.ModelProto.FromString(model.SerializeToString()))
    results = [onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0] for m in (model, slim)]
    return float(np.abs(results[0] - results[1]).max()), [node.op_type for node in slim.graph.node]


found = {}
for name, arguments in {
    "along the channels, (1, 80, 1, 1)": (80, (1, 80, 1, 1)),
    "along the columns, (80,), 80 cells": (80, (80,)),
    "along the columns, (1, 1, 1, 80), 80 cells": (80, (1, 1, 1, 80)),
    "along the rows, (80, 1), 80 cells": (80, (80, 1)),
    "along the columns, (64,), 64 cells": (64, (64,)),
    "added along the columns, (80,), 80 cells": (80, (80,), "Add"),
}.items():
    error, ops = found[name] = both(*arguments)
    print(f"{name:44s} {'wrong by ' + format(error, '.2f') if error > 1e-4 else 'right'}, left: {ops}")
wrong = [name for name, (error, _) in found.items() if error > 0.5]
same = wrong == list(found)[1:4] and all(found[name][1] == ["Conv"] for name in wrong)
same &= all(error < 1e-4 for name, (error, _) in found.items() if name not in wrong)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
