#!/usr/bin/env bash
# LiteRT: int8 SQRT rounds down, while every neighbouring operator rounds to nearest
#
# Expected:  the nearest code of the output, an error of at most half a step and of zero on average, as RSQRT, LOG and ABS have.
# Happens:   the XNNPACK, built-in and reference kernels cut the fraction off: results are up to one step too small and never
#            too large, half a step too small on average; fewer than half of the 255 codes give the nearest result.
# Matters:   the square roots of norms, standard deviations and distances are low by half a step as a whole, which the following
#            sum or division keeps, whereas rounding errors average out. A bit-exact emulation (fake quantization in
#            training, a comparison of runtimes) that rounds as elsewhere differs in half of the elements.
# Versions:  ai-edge-litert 2.3.0. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6
cat > one_op.py <<'PY'
"""Write a .tflite file of one int8 operator and run it in the interpreter's three kernel sets."""
import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

KERNELS = {"XNNPACK": OpResolverType.AUTO, "built-in": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
           "reference": OpResolverType.BUILTIN_REF}


def model(op, inputs, output, options=None, fields=None, constants=()):
    """inputs and output are (shape, scale, zero_point), constants are int32 arrays."""
    file, graph = schema.ModelT(), schema.SubGraphT()
    file.version, file.buffers, graph.tensors = 3, [schema.BufferT()], []
    for name, (shape, scale, zero) in [(f"x{i}", spec) for i, spec in enumerate(inputs)] + [("y", output)]:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), schema.TensorType.INT8, 0
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
    """Return the output codes, or the first line of the error as text."""
    try:
        interpreter = Interpreter(model_content=content, experimental_op_resolver_type=KERNELS[kernels])
        interpreter.allocate_tensors()
        for i, array in enumerate(arrays):
            interpreter.set_tensor(interpreter.get_input_details()[i]["index"], array)
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        return str(error).strip().replace("\n", " ")
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy()


def codes(real, scale, zero):
    return np.clip(np.rint(real / scale) + zero, -128, 127).astype(np.int8)
PY
cat > check.py <<'PY'
from importlib.metadata import version

import numpy as np
from one_op import KERNELS, model, run

print("ai-edge-litert", version("ai-edge-litert"))
stored = np.arange(-127, 128).astype(np.int8)  # without the code of zero, for RSQRT and LOG
real = (stored.astype(int) + 128) * 0.05
FUNCTIONS = {"SQRT": (np.sqrt, None), "RSQRT": (lambda x: 1 / np.sqrt(x), None), "LOG": (np.log, None), "ABS": (np.abs, "AbsOptions")}
shape, same = [stored.size], True
for op, (function, options) in FUNCTIONS.items():
    result = function(real)
    low = min(float(result.min()), 0.0)
    scale = (float(result.max()) - low) / 255
    zero = int(np.rint(-128 - low / scale))
    file = model(op, [(shape, 0.05, -128)], (shape, scale, zero), options)
    for kernels in KERNELS:
        error = run(file, kernels, stored) - (result / scale + zero)
        nearest = np.abs(error) <= 0.51
        print(f"{op:5s} {kernels:10s} error in steps: mean {error.mean():+.3f}, from {error.min():+.3f} to {error.max():+.3f}; nearest code in {nearest.mean():.0%}")
        if op == "SQRT":
            same &= bool(-1.01 < error.min() < -0.9 and error.max() < 0.01 and nearest.mean() < 0.6)
        else:
            same &= bool(np.abs(error).max() < 0.55)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
