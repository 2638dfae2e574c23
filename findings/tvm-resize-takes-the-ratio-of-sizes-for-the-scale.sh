#!/usr/bin/env bash
# TVM: Resize computes with output size / input size instead of the scale that the model gives
#
# Expected:  an ONNX Resize with scales=[1, 1, 1, 0.5] maps output column i to input column 2 i + 0.5 (half_pixel), whatever the width:
#            ONNX says that the scale is used as it is given, and the output's size is floor(width * scale).
# Happens:   the importer keeps the output's size only, and works with width / floor(width * scale): of 11 columns it takes every 2.2nd, as
#            PyTorch does with recompute_scale_factor=True. Nearest picks other columns, linear mixes others, in every mode of coordinates
#            that depends on the scale. Where width * scale is whole there is no difference, so tests of even sizes pass.
# Matters:   pictures and feature maps of odd sizes (rectangular inputs, 1.5 times, a half) come out sampled by up to a whole column
#            elsewhere, from a file that ONNX Runtime and onnx's reference compute as it says.
# Versions:  apache-tvm 0.27.0.post1, onnx 1.23.2, onnxruntime 1.31.1 (for comparison). Observed 2026-12-01, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile apache-tvm==0.27.0.post1 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
cat > check.py <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import tvm
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

print({name: version(name) for name in ("apache-tvm", "onnx", "onnxruntime")})


def columns(width, scale, mode, coordinates):
    """What column every output is taken from, by ONNX Runtime, onnx's reference and TVM."""
    row = np.arange(width, dtype=np.float32).reshape(1, 1, 1, width)
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode, coordinate_transformation_mode=coordinates)
    sizes = {"x": width, "y": int(np.floor(width * scale))}
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 1, size]) for name, size in sizes.items()]
    scales = numpy_helper.from_array(np.array([1, 1, 1, scale], np.float32), "scales")
    model = helper.make_model(helper.make_graph([node], "g", info[:1], info[1:], [scales]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    built = tvm.compile(relax.transform.LegalizeOps()(from_onnx(model)), target="llvm")
    by_tvm = relax.VirtualMachine(built, tvm.cpu())["main"](tvm.runtime.tensor(row)).numpy()
    return [np.asarray(y).ravel() for y in (session.run(None, {"x": row})[0], ReferenceEvaluator(model).run(None, {"x": row})[0], by_tvm)]


same = True
for width, scale, mode, coordinates in (
    (12, 0.5, "linear", "half_pixel"), (11, 0.5, "linear", "half_pixel"), (11, 0.5, "nearest", "half_pixel"),
    (11, 0.5, "linear", "asymmetric"), (9, 1.5, "linear", "half_pixel"),
):
    exact, reference, got = columns(width, scale, mode, coordinates)
    apart = np.abs(exact - got).max()
    print(f"{width} columns times {scale}, {mode}, {coordinates}: up to {apart:.2f} columns apart\n  ONNX Runtime {exact.round(2)}\n  TVM          {got.round(2)}")
    same &= np.allclose(exact, reference, atol=1e-5) and (apart < 1e-5 if width == 12 else apart > 0.1)
    # what TVM computes instead: the same with the ratio of the sizes
    ratio = width / len(exact)
    if (mode, coordinates) == ("linear", "half_pixel"):
        same &= np.allclose(got, np.clip((np.arange(len(exact)) + 0.5) * ratio - 0.5, 0, width - 1), atol=1e-4)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
