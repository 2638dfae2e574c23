#!/usr/bin/env bash
# onnxoptimizer: of two Reshapes in a row the first is dropped, although the second copies dimensions from it
#
# Expected:  the second Reshape alone gives the same shape, so the first may go, unless the second has a 0 ("as in my input"); then
#            its 0 is replaced by the number, or both stay.
# Happens:   the default passes drop the first and leave the second as it is. Its 0 now copies from another tensor: (1, 8, 6, 6)
#            reshaped to (1, 2, 144) and then to (0, 0, 4, -1) becomes (1, 8, 4, 9) instead of (1, 2, 4, 36), the same numbers
#            in another shape; if the sizes do not fit, the file is written all the same and fails when it runs.
# Matters:   x.view(b, -1, n) in torch exports as 0 and -1 with a dynamic batch, and channel shuffles, DFL and attention are chains of
#            them. What follows often takes either shape: a Softmax over the last axis or a MatMul broadcasts over another
#            dimension, and only the boxes are wrong.
# Versions:  onnxoptimizer 0.4.2, onnxruntime 1.31.1, onnx 1.23.2. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnxoptimizer==0.4.2 onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
from importlib.metadata import version

import numpy as np
import onnxoptimizer
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(4)
print({name: version(name) for name in ("onnxoptimizer", "onnxruntime", "onnx")})
x = np.random.default_rng(0).normal(0, 1, (1, 8, 6, 6)).astype(np.float32)


def run(model):
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0]
    except Exception as error:  # whatever the runtime raises
        return f"refused when run ({type(error).__name__})"


def both(first, second, passes=None):
    """Result of two Reshapes and a Softmax over the last axis, as they are and optimized."""
    nodes = [helper.make_node("Reshape", ["x", "a"], ["r"]), helper.make_node("Reshape", ["r", "b"], ["s"]),
             helper.make_node("Softmax", ["s"], ["y"], axis=-1)]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(second))],
                              [numpy_helper.from_array(np.int64(v), k) for k, v in (("a", first), ("b", second))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    after = onnxoptimizer.optimize(model, passes)
    return run(model), run(after), [node.op_type for node in after.graph.node]


same = True
for first, second, alike in (([1, 2, 144], [1, 2, 4, 36], True), ([1, 2, 144], [0, 0, 4, -1], False), ([4, -1], [0, 12, 6], False)):
    before, after, ops = both(first, second)
    said = after if isinstance(after, str) else after.shape
    print(f"{first} then {second}: {before.shape}, optimized {said}, left: {ops}")
    same &= ops == ["Reshape", "Softmax"] and isinstance(before, np.ndarray)
    same &= (isinstance(after, np.ndarray) and after.shape == before.shape and bool(np.allclose(before, after))) == alike
for name in onnxoptimizer.get_fuse_and_elimination_passes():
    if both([1, 2, 144], [0, 0, 4, -1], [name])[2] == ["Reshape", "Softmax"]:
        print("the pass that does it:", name)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
