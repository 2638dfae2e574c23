#!/usr/bin/env bash
# LiteRT: int16 CONCATENATION takes inputs of different scales and copies their codes
#
# Expected:  what the int8 operator does: inputs whose scale is not the output's are refused when the model is loaded (and the
#            uint8 one rescales them). PACK, the other operator that only joins, checks both types.
# Happens:   with int16 tensors nothing is checked: the codes are copied and read with the output's scale. An input of range 1
#            beside one of range 6 comes out six times too large, in all three kernel sets, without a warning.
# Matters:   16-bit activations with 8-bit weights are LiteRT's answer where int8 loses too much, and a YOLO has a Concat in every
#            C2f, C3k2 and SPPF. A converter or a script that forgets to tie the ranges is stopped for int8 and not for int16:
#            the model loads, detects badly, and quantization gets the blame.
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
random = np.random.default_rng(0)
SHAPE = [1, 4, 4, 8]
ranges = ((-4, 6), (-1, 1))
same = True
for op, options, fields, join in (("CONCATENATION", "ConcatenationOptions", {"axis": 3}, lambda a, b: np.concatenate([a, b], 3)),
                                  ("PACK", "PackOptions", {"axis": 1, "valuesCount": 2}, lambda a, b: np.stack([a, b], 1)),
                                  ("ADD", "AddOptions", {}, np.add)):
    for kind in ("INT8", "INT16"):
        specs = [grid(low, high, kind) for low, high in ranges]
        stored = [codes(random.uniform(low, high, SHAPE), *spec, kind) for (low, high), spec in zip(ranges, specs)]
        exact = join(*(values(array, *spec) for array, spec in zip(stored, specs)))
        y = grid(exact.min(), exact.max(), kind) if op == "ADD" else specs[0]
        file = model(kind, op, [(SHAPE, *spec) for spec in specs], (exact.shape, *y), options, fields)
        for kernels in KERNELS:
            out = run(file, kernels, *stored)
            refused = isinstance(out, str)
            print(f"{op:13s} {kind:5s} {kernels:9s}", "refused" if refused else f"largest error {np.abs(values(out, *y) - exact).max():.3f} of a range of 6")
            if op == "ADD":
                same &= not refused and bool(np.abs(values(out, *y) - exact).max() < y[0])
            elif (op, kind) == ("CONCATENATION", "INT16"):
                same &= not refused and bool(np.array_equal(out, join(*stored))) and bool(np.abs(values(out, *y) - exact).max() > 4)
            else:
                same &= refused
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
