#!/usr/bin/env bash
# LiteRT: int8 NEG negates the stored byte, whatever scale and zero point say, and turns the lowest code into itself
#
# Expected:  the result of -x in the output's scale and zero point, saturated, as ABS, ADD, SUB and MUL do it; or an error.
# Happens:   the XNNPACK, built-in and reference kernels write -q. With the same scale and zero point 10 on both sides nearly
#            every result is off by 20 steps. With zero point 0 all is right but for -128, which stays -128: the lowest value of the
#            tensor comes out as the lowest instead of the highest, 255 steps off. ABS and 0 - x (SUB) are right in all cases.
# Matters:   -x, a minimum written as -max(-x) and a rotation's -sin are NEG. It is one of the few operators that accept int8 and
#            do not look at its parameters; no error, no warning. Write 0 - x, or give the output the zero point -z and keep
#            -128 unused.
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
from one_op import KERNELS, codes, model, run

print("ai-edge-litert", version("ai-edge-litert"))
stored = np.arange(-128, 128).astype(np.int8)
shape, same = [stored.size], True
for (s1, z1), (s2, z2) in (((0.05, 0), (0.05, 0)), ((0.05, 10), (0.05, 10)), ((0.05, 10), (0.05, -10)), ((0.05, 10), (0.1, -20))):
    real = (stored.astype(int) - z1) * s1
    files = {"NEG": (model("NEG", [(shape, s1, z1)], (shape, s2, z2), "NegOptions"), [stored], -real),
             "0 - x": (model("SUB", [([1], s1, z1), (shape, s1, z1)], (shape, s2, z2), "SubOptions"), [np.int8([z1]), stored], -real),
             "ABS": (model("ABS", [(shape, s1, z1)], (shape, s2, z2), "AbsOptions"), [stored], np.abs(real))}
    print(f"scale and zero point {s1}, {z1} -> {s2}, {z2}")
    for op, (file, inputs, result) in files.items():
        right = codes(result, s2, z2).astype(int)
        for kernels in KERNELS:
            got = run(file, kernels, *inputs)
            wrong = np.abs(got - right)
            raw = bool((got == -stored).all())
            print(f"  {op:5s} {kernels:10s} wrong by more than one step: {(wrong > 1).mean():6.1%}, largest {wrong.max():3d}, equals -q: {raw}")
            if op == "NEG":
                same &= raw and got[0] == -128
            else:
                same &= wrong.max() <= 1
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
