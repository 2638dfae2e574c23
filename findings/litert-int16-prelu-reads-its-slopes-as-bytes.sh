#!/usr/bin/env bash
# LiteRT: int16 PRELU reads its slopes as bytes, so negative inputs come out as noise around zero
#
# Expected:  slope times input on the negative side, within a step or two of the int16 grid, as int8 PRELU and int16 LEAKY_RELU
#            give it; or, as for int16 HARD_SWISH, ELU and SQUARE, "no kernel for this type" when the model is loaded.
# Happens:   the positive side is exact, the negative one is lost: -4 with slope 0.3 gives 0.003 instead of -1.2. The slopes are
#            stored in 16 bits and read in 8: channel 0 gets the low byte of the first slope, channel 1 its high byte, and so on,
#            which also gives half of them another sign. XNNPACK, built-in and reference kernels agree, and the model loads
#            without a word.
# Matters:   int16 activations are taken for layers where int8 is not good enough. Such a model with PReLU (face and keypoint
#            networks) behaves as if the activation were a ReLU with a little noise, so it still detects something, and a
#            comparison of kernel sets finds no difference.
# Versions:  ai-edge-litert 2.3.0. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6
cat > one_op.py <<'PY'
"""Write a .tflite file of one operator on int8 or int16 tensors and run it in the interpreter's three kernel sets."""
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

KERNELS = {"XNNPACK": OpResolverType.AUTO, "built-in": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
           "reference": OpResolverType.BUILTIN_REF}


def model(kind, op, inputs, output, options=None, fields=None, constants=()):
    """kind is INT8 or INT16; inputs and output are (shape, scale, zero_point), constants are int32 arrays."""
    file, graph = schema.ModelT(), schema.SubGraphT()
    file.version, file.buffers, graph.tensors = 3, [schema.BufferT()], []
    for name, (shape, scale, zero) in [(f"x{i}", spec) for i, spec in enumerate(inputs)] + [("y", output)]:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), list(shape), 0
        tensor.type = getattr(schema.TensorType, kind)
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = np.float32([scale]), np.int64([zero])
        graph.tensors.append(tensor)
    for i, values in enumerate(constants):
        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.data = np.frombuffer(np.int32(values).tobytes(), np.uint8)
        file.buffers.append(buffer)
        tensor.name, tensor.shape, tensor.type = f"c{i}".encode(), list(np.shape(values)), schema.TensorType.INT32
        tensor.buffer = len(file.buffers) - 1
        graph.tensors.append(tensor)
    code, node, count = schema.OperatorCodeT(), schema.OperatorT(), len(inputs)
    code.builtinCode = getattr(schema.BuiltinOperator, op)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
    node.opcodeIndex, node.outputs = 0, [count]
    node.inputs = list(range(count)) + [count + 1 + i for i in range(len(constants))]
    if options:
        node.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        node.builtinOptions = getattr(schema, options + "T")()
        for key, value in (fields or {}).items():
            setattr(node.builtinOptions, key, value)
    graph.inputs, graph.outputs, graph.operators = list(range(count)), [count], [node]
    file.operatorCodes, file.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run(content, kernels, *arrays):
    """Return the output codes, or the error as text."""
    try:
        interpreter = Interpreter(model_content=content, experimental_op_resolver_type=KERNELS[kernels])
        interpreter.allocate_tensors()
        for i, array in enumerate(arrays):
            interpreter.set_tensor(interpreter.get_input_details()[i]["index"], array)
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        return str(error).strip().replace("\n", " ")
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy()


def grid(low, high, kind):
    """Scale and zero point: symmetric for int16, the whole of 256 codes for int8."""
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if kind == "INT16":
        return max(-low, high) / 32767, 0
    scale = (high - low) / 255
    return scale, int(np.rint(-128 - low / scale))


def codes(real, scale, zero, kind):
    low, high, dtype = (-128, 127, np.int8) if kind == "INT8" else (-32768, 32767, np.int16)
    return np.clip(np.rint(real / scale) + zero, low, high).astype(dtype)


def values(stored, scale, zero):
    return (stored.astype(np.float64) - zero) * scale
PY
cat > check.py <<'PY'
from importlib.metadata import version

import numpy as np
from one_op import KERNELS, codes, grid, model, run, values

print("ai-edge-litert", version("ai-edge-litert"))
STEPS = 8
same = True
for slope in (0.3, -0.1):
    for kind in ("INT8", "INT16"):
        x, a = grid(-4, 6, kind), grid(-0.5, 0.5, kind)
        stored = codes(np.linspace(-4, 6, STEPS).reshape(1, 1, 1, STEPS), *x, kind)
        slopes = codes(np.full((1, 1, STEPS), slope), *a, kind)
        real = values(stored, *x)
        exact = np.where(real > 0, real, real * values(slopes, *a))
        y = grid(exact.min(), exact.max(), kind)
        file = model(kind, "PRELU", [(stored.shape, *x), (slopes.shape, *a)], (stored.shape, *y))
        for kernels in KERNELS:
            out = run(file, kernels, stored, slopes)
            error = np.abs(values(out, *y) - exact) / y[0]
            negative = real < 0
            print(f"slope {slope:+.1f} {kind:5s} {kernels:9s}", values(out, *y).round(3).ravel(), "error in steps, negative side: {:.1f}, positive side: {:.1f}"
                  .format(error[negative].max(), error[~negative].max()))
            same &= bool(error[~negative].max() < 1.1 and (error[negative].max() < 1.1) == (kind == "INT8"))
            if kind == "INT16":
                read = slopes.view(np.int8).ravel()[:STEPS]
                same &= bool(np.abs(out - stored * 1.0 * read * x[0] * a[0] / y[0])[negative].max() < 1.1 and error[negative].max() > 1000)
print("expected            ", exact.round(3).ravel())
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
