#!/usr/bin/env bash
# LiteRT: int8 MAXIMUM and MINIMUM compare raw codes, whatever the scales say
#
# Expected:  tensors with different scales are rescaled before they are compared (ADD, SUB and MUL do that), or the
#            interpreter refuses the file (CONCATENATION does that).
# Happens:   XNNPACK, the built-in and the reference kernels all compare the stored bytes and copy the winner's byte.
#            With scales 0.06 and 0.03 more than half of the results are wrong, by up to 63 steps. No error, no warning.
# Matters:   Clip/ReLU-N written as MINIMUM against a constant, score clamping and box clipping become MAXIMUM/MINIMUM;
#            a constant usually gets its own scale (its value / 127). The clamp then acts at another place.
# Versions:  ai-edge-litert 2.3.0. Observed 2026-11-29, x86-64.
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
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 2
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
import numpy as np
from importlib.metadata import version
from one_op import KERNELS, codes, model, run

print("ai-edge-litert", version("ai-edge-litert"))
shape, first, second = [1, 16, 16, 8], 0.06, 0.03
random = np.random.default_rng(0)
a, b = (random.integers(-128, 128, shape).astype(np.int8) for _ in range(2))
seen = {}
for op, function in (("MAXIMUM", np.maximum), ("MINIMUM", np.minimum), ("SUB", np.subtract)):
    options = "SubOptions" if op == "SUB" else "MaximumMinimumOptions"
    file = model(op, [(shape, first, 0), (shape, second, 0)], (shape, first, 0), options)
    right = codes(function(a * first, b * second), first, 0).astype(int)
    for kernels in KERNELS:
        got = run(file, kernels, a, b)
        raw = bool((got == function(a, b)).all())
        seen[op, kernels] = raw
        wrong = np.abs(got - right)
        print(f"{op:8s} {kernels:10s} wrong by more than one step: {(wrong > 1).mean():.1%}, largest {wrong.max()}, equals the raw bytes' result: {raw}")
# The ordinary form of a clamp: min(x, 3.0), with the constant stored as 127 at scale 3/127.
limit = np.int8([127])
file = model("MINIMUM", [(shape, first, 0), ([1], 3 / 127, 0)], (shape, first, 0), "MaximumMinimumOptions")
top = run(file, "XNNPACK", a, limit).max() * first
print(f"min(x, 3.0) lets {top:.2f} through")
same = all(raw == (op != "SUB") for (op, _), raw in seen.items()) and abs(top - 7.62) < 1e-6
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
