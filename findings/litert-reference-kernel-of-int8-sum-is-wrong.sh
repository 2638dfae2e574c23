#!/usr/bin/env bash
# LiteRT: the reference kernel of int8 SUM returns nonsense, the optimized ones are exact
#
# Expected:  BUILTIN_REF is the slow but right answer that optimized kernels are judged by.
# Happens:   for int8 SUM it is the other way round: XNNPACK and the built-in kernels equal the exact sum in every code,
#            the reference kernels are off in (nearly) every value by up to 200 of 255 steps.
# Matters:   comparing with BUILTIN_REF is the usual way to find the layer that a delegate breaks; a model with a sum
#            (the expectation of a DFL box head, a normalisation) then accuses the healthy side. Builds for devices that
#            register only the reference kernels return these values.
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
shape, scale = [1, 16, 16, 8], 0.06
x = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
seen = {}
for name, axes, out_shape, out_scale in (("space", [1, 2], [1, 1, 1, 8], 0.5), ("channels", [3], [1, 16, 16, 1], 0.3)):
    file = model("SUM", [(shape, scale, 0)], (out_shape, out_scale, 0), "ReducerOptions", {"keepDims": True}, [axes])
    right = codes((x * scale).sum(tuple(axes), keepdims=True), out_scale, 0).astype(int)
    for kernels in KERNELS:
        wrong = np.abs(run(file, kernels, x) - right)
        seen[name, kernels] = int(wrong.max())
        print(f"sum over {name:8s} {kernels:10s} wrong: {(wrong > 0).mean():.1%}, largest {wrong.max()} steps")
same = all(error > 50 if kernels == "reference" else error == 0 for (_, kernels), error in seen.items())
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
