#!/usr/bin/env bash
# TFLite Micro: RELU6 copies the stored codes, whatever scale its result has
#
# Expected:  what LiteRT gives, to a step: RELU, the nearest relative, rescales when its input and its result have different grids.
# Happens:   int8 and int16 RELU6 clamp the input's codes and hand them on. With an input of -4 to 8 and a result of 0 to 6, the grids
#            that a quantizer finds, 0 comes out as 2, 3 as 3.5 and 6 as 5 in int8; no error when the model is loaded.
# Matters:   RELU6 stays an operator of its own behind an Add, a Concat or a pooling, or where a quantizer reads the tensor in front of
#            it. A model that was checked in LiteRT, on the PC and on the phone, is wrong on the microcontroller only.
# Versions:  tflite-micro 0.dev20261023182759, ai-edge-litert 2.3.0. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet tflite-micro==0.dev20261023182759 ai-edge-litert==2.3.0 flatbuffers==25.12.19 numpy==2.4.6
cat > check.py <<'PY'
from importlib.metadata import version

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tflite_micro.python.tflite_micro import runtime

print({name: version(name) for name in ("tflite-micro", "ai-edge-litert")})
LIMITS = {np.int8: (-128, 127), np.int16: (-32768, 32767)}


def grid(low, high, dtype):
    """Scale and zero point: all 256 codes for int8, symmetric for int16."""
    if dtype is np.int16:
        return max(-low, high) / 32767, 0
    scale = (high - low) / 255
    return scale, int(np.rint(-128 - low / scale))


def model(op, dtype, size, x, y):
    """A .tflite file of one operator, x and y being the grids of its input and its result."""
    file, graph = schema.ModelT(), schema.SubGraphT()
    file.version, file.buffers, graph.tensors = 3, [schema.BufferT()], []
    for name, (scale, zero) in (("x", x), ("y", y)):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), [1, size], 0
        tensor.type = schema.TensorType.INT8 if dtype is np.int8 else schema.TensorType.INT16
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = np.float32([scale]), np.int64([zero])
        graph.tensors.append(tensor)
    code, node = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, op)
    code.version, node.opcodeIndex, node.inputs, node.outputs = 1, 0, [0], [1]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [node]
    file.operatorCodes, file.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def litert(content, codes, kernels):
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], codes)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy()


def micro(content, codes):
    interpreter = runtime.Interpreter.from_bytes(content)
    interpreter.set_input(codes, 0)
    interpreter.invoke()
    return interpreter.get_output(0).copy()


real = np.linspace(-4, 8, 13)
same = True
for dtype, (lowest, highest) in LIMITS.items():
    for op, top in (("RELU6", 6), ("RELU", 8)):
        for title, y_range in (("grids differ", (0, top)), ("one grid", (-4, 8))):
            x, y = grid(-4, 8, dtype), grid(*y_range, dtype)
            codes = np.clip(np.rint(real / x[0]) + x[1], lowest, highest).astype(dtype)[None]
            content = model(op, dtype, real.size, x, y)
            results = {kernels.name: litert(content, codes, kernels) for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_REF)}
            assert all(np.array_equal(value, results["AUTO"]) for value in results.values())
            got = micro(content, codes)
            steps = int(np.abs(got.astype(int) - results["AUTO"].astype(int)).max())
            values = [((result.astype(float) - y[1]) * y[0]).round(2).ravel()[[0, 4, 7, 10, 12]].tolist() for result in (results["AUTO"], got)]
            print(f"{dtype.__name__:5s} {op:5s} {title:12s} of -4, 0, 3, 6, 8: LiteRT {values[0]}, Micro {values[1]}; {steps} steps apart")
            same &= (steps > 50) if op == "RELU6" and title == "grids differ" else steps <= 1
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
