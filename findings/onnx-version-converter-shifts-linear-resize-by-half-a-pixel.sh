#!/usr/bin/env bash
# onnx: the version converter moves linear upsampling by half a pixel when it crosses opset 11
#
# Expected:  convert_version keeps what a model computes, or raises. Resize of opset 10 (Upsample of 9) has no pixel centres: it
#            is coordinate_transformation_mode="asymmetric" of opset 11, which the converter has to write.
# Happens:   it leaves the attribute out, so the default of opset 11 applies, half_pixel. For mode="nearest" and whole factors that
#            happens to be the same. For mode="linear" every value between two pixels is another: a ramp is off by a
#            quarter of the distance of two pixels. No warning, and the checker is content.
# Matters:   quantize_static, Q/DQ per channel (opset 13) and most runtimes ask for a newer opset, and converting is the first thing
#            that one does with an old export. A model with bilinear upsampling (segmentation, pose heads, FPNs) then has its
#            feature maps shifted against each other: it still works, a little worse, and INT8 gets the blame.
# Versions:  onnx 1.23.2, onnxruntime 1.31.1. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
cat > check.py <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
x = np.tile(np.arange(6, dtype=np.float32), (1, 1, 6, 1))
same = True


def run(model):
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


for op, opset in (("Upsample", 9), ("Resize", 10)):
    for mode in ("nearest", "linear"):
        graph = helper.make_graph([helper.make_node(op, ["x", "s"], ["y"], mode=mode)], "g",
                                  [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
                                  [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 12, 12])],
                                  [numpy_helper.from_array(np.float32([1, 1, 2, 2]), "s")])
        old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        before = run(old)
        print(f"{op} {mode}, opset {opset}: first row", before[0, 0, 0].tolist())
        for target in (11, 17, 21):
            new = version_converter.convert_version(old, target)
            after = run(new)
            written = {a.name: helper.get_attribute_value(a) for a in new.graph.node[-1].attribute}
            print(f"  opset {target}: first row", after[0, 0, 0].tolist(), written)
            same &= bool(np.allclose(before, after)) == (mode == "nearest") and "coordinate_transformation_mode" not in written
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
