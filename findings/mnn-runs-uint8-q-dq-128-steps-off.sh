#!/usr/bin/env bash
# MNN: an ONNX file with uint8 Q/DQ pairs converts without a word and is 128 steps off, int8 pairs swap batch and channels
#
# Expected:  QuantizeLinear and DequantizeLinear are converted and mean what ONNX says, or the converter refuses them.
# Happens:   uint8 is taken for int8: values saturate at code 127 and every zero point gives the same result, a step of 0.04 puts it
#            5.12 too low. int8 pairs give the right values in the wrong shape: (1, 8, 4, 4) comes out as (8, 1, 4, 4), so a Relu or an
#            Add behind them runs, and a convolution behind them does not (it says so when it runs, not when it is converted).
# Matters:   uint8 is what onnxruntime.quantization writes by default and what most int8 ONNX files for PCs hold. MNN reads ONNX only by
#            this converter; element-wise graphs and heads come out shifted by half of their range.
# Versions:  MNN 3.6.1, onnx 1.23.2, onnxruntime 1.31.1 (for comparison). Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile MNN==3.6.1 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
cat > check.py <<'PY'
import subprocess
import sys
from importlib.metadata import version

import MNN.expr
import MNN.nn
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print({name: version(name) for name in ("MNN", "onnx", "onnxruntime")})
STEP = 0.04
PICTURE = np.random.default_rng(0).uniform(-4, 4, (1, 8, 4, 4)).astype(np.float32)


def model(zero_point):
    """Quantize, dequantize, LeakyRelu."""
    arrays = [numpy_helper.from_array(np.float32(STEP), "scale"), numpy_helper.from_array(zero_point, "zero")]
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]), helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
             helper.make_node("LeakyRelu", ["d"], ["y"], alpha=0.5)]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, PICTURE.shape) for name in "xy"]
    made = helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:], arrays), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made


def by_mnn(made):
    onnx.save(made, "model.onnx")
    # What the mnnconvert command calls, without the package that its wrapper installs on the first call.
    command = [sys.executable, "-c", "import sys, MNN, _tools; _tools.mnnconvert(sys.argv[1:])", "mnnconvert", "-f", "ONNX", "--bizCode", "x"]
    subprocess.run([*command, "--modelFile", "model.onnx", "--MNNModel", "model.mnn"], check=True, stdout=subprocess.DEVNULL)
    picture = MNN.expr.placeholder(list(PICTURE.shape), MNN.expr.NCHW)
    picture.write(PICTURE.ravel().tolist())
    return np.array(MNN.expr.convert(MNN.nn.load_module_from_file("model.mnn", ["x"], ["y"]).forward([picture])[0], MNN.expr.NCHW).read())


same = True
for zero_point in np.int8(3), np.uint8(131), np.uint8(128), np.uint8(100):
    made = model(zero_point)
    exact = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": PICTURE})[0]
    got = by_mnn(made)
    steps = np.abs(got.ravel() - exact.ravel()) / STEP
    print(f"{type(zero_point).__name__} zero point {int(zero_point):3d}: {tuple(exact.shape)} became {tuple(got.shape)}; steps apart: median {np.median(steps):.1f},"
          f" largest {steps.max():.1f}; mean {exact.mean():+.2f} became {got.mean():+.2f}")
    same &= got.shape == (8, 1, 4, 4) and (steps.max() < 1.01) == (zero_point.dtype == np.int8) and (np.median(steps) > 60) == (zero_point.dtype == np.uint8)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
