#!/usr/bin/env bash
# OpenVINO: Resize with antialias=1 is computed without antialiasing, keep_aspect_ratio_policy is left out as well, and nothing says so
#
# Expected:  an attribute of ONNX 18 is carried out or refused. OpenVINO's Interpolate has an antialias attribute of its own.
# Happens:   convert_model and read_model both leave it out: linear and cubic Resize give exactly what the same file without the
#            attribute gives. A picture of noise that is shrunk to a quarter keeps 2.8 times the contrast that it should have.
#            keep_aspect_ratio_policy="not_larger" gives the sizes that were asked for (18 x 30), not those that keep the ratio (18 x 18).
# Matters:   F.interpolate(antialias=True) and torchvision's Resize, whose default it is, export to this attribute: a model with its
#            preprocessing inside sees aliased pictures in OpenVINO, those of plain cv2.resize, and small objects change most.
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
PICTURE = random.normal(0, 1, (1, 3, 64, 64)).astype(np.float32)
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


same = True
for mode in "linear", "cubic":
    for factor in 0.5, 0.25:
        results = {}
        for antialias in 0, 1:
            node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode=mode, coordinate_transformation_mode="half_pixel", antialias=antialias)
            made = model([node], 18, s=np.float32([1, 1, factor, factor]))
            exact, reference = by_onnxruntime(), ReferenceEvaluator(made).run(None, {"x": PICTURE})[0]
            assert np.allclose(exact, reference, atol=1e-4)
            results[antialias] = exact, by_openvino(openvino.convert_model), by_openvino(CORE.read_model)
        exact, *openvinos = results[1]
        plain = results[0][0]
        spread = [float(array.std()) for array in (exact, openvinos[0], plain)]
        print(f"{mode:6s} x {factor}: standard deviation with antialias {spread[0]:.3f}, OpenVINO {spread[1]:.3f}, without antialias {spread[2]:.3f};"
              f" OpenVINO is {np.abs(openvinos[0] - exact).max():.2f} off")
        same &= all(np.allclose(got, plain, atol=1e-4) and np.abs(got - exact).max() > 0.5 for got in openvinos)
PICTURE = PICTURE[..., :12, :12]
node = helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger")
made = model([node], 18, s=np.int64([18, 30]))
shapes = [by_onnxruntime().shape[2:], *(by_openvino(read).shape[2:] for read in (openvino.convert_model, CORE.read_model))]
print(f"12 x 12 to 18 x 30, not_larger: onnxruntime {shapes[0]}, OpenVINO {shapes[1]}, read_model {shapes[2]}")
same &= shapes == [(18, 18), (18, 30), (18, 30)]
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
