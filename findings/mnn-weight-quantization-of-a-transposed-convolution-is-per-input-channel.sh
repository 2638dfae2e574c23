#!/usr/bin/env bash
# MNN: --weightQuantBits gives a transposed convolution one scale per input channel, a convolution one per output channel
#
# Expected:  mnnconvert --weightQuantBits 8 gives each output channel its scale: every weight comes out within half a step of its own
#            output channel's 127th part, as it does for Conv, and an output channel of zeros stays zero.
# Happens:   the scales of ConvTranspose lie along its first axis, which holds input channels there. Output channels whose weights span
#            a factor of 30 share them: the weakest is off by five of its own steps instead of half of one, with 4 bits by 50, and an
#            output channel of zeros gets weights (the ranges are asymmetric by default and need not hold 0). No warning.
# Matters:   the masks of YOLO's segmentation models come from a ConvTranspose, and so do most upsamplers. Its loss is not that of
#            "8 bits per channel", which every other tool means, and grows with the spread of its output channels.
# Versions:  MNN 3.6.1, onnx 1.23.2. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile MNN==3.6.1 onnx==1.23.2 numpy==2.4.6
cat > check.py <<'PY'
import subprocess
import sys
from importlib.metadata import version

import MNN.expr
import MNN.nn
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

print({name: version(name) for name in ("MNN", "onnx")})
random = np.random.default_rng(0)
CHANNELS = 16
# Output channels from strong to weak, the last one all zeros.
STRENGTH = np.append(np.geomspace(3, 0.1, CHANNELS - 1), 0)
PLAIN = random.normal(0, 0.1, (CHANNELS, CHANNELS)) * STRENGTH  # rows: inputs, columns: outputs


def converted(op, options):
    """The weights (input, output channel) that a 1x1 layer has after conversion: what it makes of an identity matrix."""
    weight = (PLAIN if op == "ConvTranspose" else PLAIN.T).astype(np.float32)[:, :, None, None]
    shape = [1, CHANNELS, 1, CHANNELS]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x", "w"], ["y"], kernel_shape=[1, 1])], "g", info[:1], info[1:],
                              [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "layer.onnx")
    # What the mnnconvert command calls, without the package that its wrapper installs on the first call.
    command = [sys.executable, "-c", "import sys, MNN, _tools; _tools.mnnconvert(sys.argv[1:])", "mnnconvert", "-f", "ONNX", "--bizCode", "x"]
    files = ["--modelFile", "layer.onnx", "--MNNModel", "layer.mnn"]
    subprocess.run([*command, *files, *options], check=True, stdout=subprocess.DEVNULL)
    picture = MNN.expr.placeholder(shape, MNN.expr.NCHW)
    picture.write(np.eye(CHANNELS, dtype=np.float32).ravel().tolist())
    net = MNN.nn.load_module_from_file("layer.mnn", ["x"], ["y"])
    result = MNN.expr.convert(net.forward([picture])[0], MNN.expr.NCHW)
    return np.array(result.read())[0, :, 0].T


same = True
step = np.abs(PLAIN).max(0) / 127
for op in "Conv", "ConvTranspose":
    for options in (), ("--weightQuantBits", "8"), ("--weightQuantBits", "8", "--weightQuantAsymmetric", "0"), ("--weightQuantBits", "4"):
        got = converted(op, options)
        error = np.abs(got - PLAIN).max(0)
        steps = error[:-1] / step[:-1]
        print(f"{op:13s} {' '.join(options):47s} worst error in steps: strongest output {steps[0]:.1f}, weakest {steps[-1]:.1f};"
              f" weights of the zero channel up to {np.abs(got[:, -1]).max():.1e}")
        if op == "Conv" or not options:
            same &= steps.max() < (10 if "4" in options else 0.6) and np.abs(got[:, -1]).max() == 0
        else:
            same &= steps[0] < 4 and steps[-1] > (40 if "4" in options else 4) and (np.abs(got[:, -1]).max() > 0) == (len(options) == 2)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
