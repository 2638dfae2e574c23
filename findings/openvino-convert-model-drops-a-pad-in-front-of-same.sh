#!/usr/bin/env bash
# OpenVINO: convert_model drops a Pad in front of a convolution or pooling with SAME padding, read_model keeps it
#
# Expected:  Pad, then Conv with auto_pad SAME_UPPER, is computed as written: the Pad makes the picture larger, SAME goes by that size.
# Happens:   convert_model folds the Pad into the operator, whose own SAME padding then counts alone: the result has the size that it
#            would have without the Pad (12 x 12 instead of 14 x 14; 6 x 6 instead of 7 x 7 with stride 2), and other values. Also for
#            SAME_LOWER and average pooling. read_model and compile_model(path) of the same file are right. With explicit pads all agree.
# Matters:   convert_model is the documented way to an OpenVINO file and what exporters call. A shape that differs by one is caught if
#            somebody adds it to another branch; in front of a global pooling or a stride it goes through.
# Versions:  openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.31.1 (which agrees with onnx's reference). Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
cat > check.py <<'PY'
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

onnxruntime.set_default_logger_severity(4)
print({name: version(name) for name in ("openvino", "onnx", "onnxruntime")})
random = np.random.default_rng(0)
PICTURE = random.normal(0, 1, (1, 8, 12, 12)).astype(np.float32)
CORE = openvino.Core()


def model(nodes, opset, **arrays):
    """A checked file of these nodes from x to y."""
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, PICTURE.shape), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], [numpy_helper.from_array(array, name) for name, array in arrays.items()])
    made = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), data_prop=True)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, "model.onnx")
    return made


def by_onnxruntime():
    return onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": PICTURE})[0]


def by_openvino(read):
    """What the CPU plugin makes of a file that was read by `read`, in float32."""
    return CORE.compile_model(read("model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([PICTURE])[0]


WEIGHT = random.normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32)
PADS = np.int64([0, 0, 1, 1, 0, 0, 1, 1])
same = True
for op, inputs in ("Conv", ["padded", "w"]), ("AveragePool", ["padded"]):
    for padding in {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"pads": [1, 1, 1, 1]}:
        for stride in 1, 2:
            nodes = [helper.make_node("Pad", ["x", "p"], ["padded"]), helper.make_node(op, inputs, ["y"], kernel_shape=[3, 3], strides=[stride] * 2, **padding)]
            made = model(nodes, 17, p=PADS, **({"w": WEIGHT} if op == "Conv" else {}))
            exact, reference = by_onnxruntime(), ReferenceEvaluator(made).run(None, {"x": PICTURE})[0]
            read, converted = by_openvino(CORE.read_model), by_openvino(openvino.convert_model)
            assert np.allclose(exact, reference, atol=1e-4) and read.shape == exact.shape and np.allclose(exact, read, atol=1e-4)
            right = converted.shape == exact.shape and np.allclose(exact, converted, atol=1e-4)
            print(f"{op:11s} {str(padding):26s} stride {stride}: onnxruntime, onnx and read_model {exact.shape[2:]}, convert_model {converted.shape[2:]}")
            same &= right == ("pads" in padding)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
