#!/usr/bin/env bash
# LiteRT: XNNPACK rejects a whole model over one MAX_POOL that the interpreter alone runs, and the reverse
#
# Expected:  a delegate takes the nodes it supports and leaves the others to the built-in kernels.
# Happens:   if input and output of MAX_POOL_2D, TRANSPOSE or SLICE have different scales, XNNPACK (the default) accepts
#            the node first and then fails while preparing it; allocate_tensors() raises and nothing runs. The built-in
#            kernels run the same file, ignoring the scales (bytes are copied). REDUCE_MAX is the mirror image: XNNPACK
#            copies bytes, the built-in kernels refuse.
# Matters:   the same .tflite opens on one build and not on another (with or without XNNPACK), and where it opens its
#            values may be off by the ratio of the scales. Give such operators one range for input and output.
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
from one_op import model, run

print("ai-edge-litert", version("ai-edge-litert"))
shape, fine, coarse = [1, 16, 16, 8], 0.03, 0.06
x = np.random.default_rng(0).integers(-60, 60, shape).astype(np.int8)
pool = {"padding": 1, "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
tiles = x.reshape(1, 8, 2, 8, 2, 8)
cases = {
    "MAX_POOL_2D": ([1, 8, 8, 8], "Pool2DOptions", pool, (), tiles.max((2, 4))),
    "TRANSPOSE": ([1, 8, 16, 16], "TransposeOptions", {}, ([0, 3, 1, 2],), x.transpose(0, 3, 1, 2)),
    "SLICE": ([1, 16, 16, 4], "SliceOptions", {}, ([0, 0, 0, 0], [1, 16, 16, 4]), x[..., :4]),
    "REDUCE_MAX": ([1, 1, 1, 8], "ReducerOptions", {"keepDims": True}, ([1, 2],), x.max((1, 2), keepdims=True)),
}
seen = {}
for op, (out_shape, options, fields, constants, raw) in cases.items():
    file = model(op, [(shape, coarse, 0)], (out_shape, fine, 0), options, fields, constants)
    for kernels in ("XNNPACK", "built-in"):
        got = run(file, kernels, x)
        if isinstance(got, str):
            outcome, detail = "refused", got[:110]
        else:
            outcome = "bytes copied" if (got == raw).all() else "rescaled" if (got == 2 * raw).all() else "other"
            detail = ""
        seen[op, kernels] = outcome
        print(f"{op:12s} {kernels:9s} {outcome} {detail}")
recorded = {(op, kernels): ("refused" if (kernels == "XNNPACK") == (op != "REDUCE_MAX") else "bytes copied")
            for op in cases for kernels in ("XNNPACK", "built-in")}
raise SystemExit(0 if seen == recorded else "the recorded behaviour has changed")
PY
venv/bin/python check.py
