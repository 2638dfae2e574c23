#!/usr/bin/env bash
# LiteRT: int8 DIV gives the largest value of the output when the numerator is one step away from zero
#
# Expected:  0.02 / 2.55 = 0.008 is stored as the output's code for zero, within half a step like every other quotient.
# Happens:   with a numerator of one step (rarely two) and a divisor from 64 or 128 steps on, the XNNPACK, built-in and
#            reference kernels return the far end of the output's range: 25.5 for the quotient above. All other quotients
#            are within one step. The kernel widens the numerator to 32 bits and shifts the quotient back; the smaller the
#            numerator, the larger that shift, and just where it exceeds 31 the result is wrong (rule: the public div.h).
# Matters:   a normalisation x / sum, a softmax written out or a box divided by its size turns the values next to zero into
#            the largest ones: 255 steps off, not one. ai-edge-quantizer's default policy makes DIV int8. A comparison of
#            random values sees it in 2 of 1000 elements, a feature map full of near-zero values in far more.
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
# (scale, zero point) of numerator, divisor and output: values at or above zero, as behind a ReLU or a sigmoid; then signed ones.
CASES = {"positive": ((0.02, -128), (0.01, -128), (0.1, -128)), "signed": ((0.03, -7), (0.02, 5), (0.08, 0))}
numerator, divisor = (codes.ravel() for codes in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij"))


def shift(numerator, divisor, ratio):
    """Bits the kernel shifts to the right: the divisor's, plus the unused ones of the numerator, less those of the scales' ratio."""
    signed = int(numerator) if divisor > 0 else -int(numerator)
    unused = 31 - (signed if signed >= 0 else ~signed).bit_length()
    return abs(int(divisor)).bit_length() - 1 + unused - int(np.frexp(ratio)[1])


same = True
for name, ((s1, z1), (s2, z2), (s3, z3)) in CASES.items():
    kept = np.abs(divisor - z2) >= 20  # no quotient leaves the output's range, none divides by zero
    a, b = numerator[kept], divisor[kept]
    right = (a - z1) * s1 / ((b - z2) * s2)
    assert (np.abs(right / s3 + z3) <= 129).all()
    too_far = np.array([n != 0 and shift(n, d, s1 / (s2 * s3)) > 31 for n, d in zip(a - z1, b - z2)])
    shape = [a.size]
    file = model("DIV", [(shape, s1, z1), (shape, s2, z2)], (shape, s3, z3), "DivOptions")
    for kernels in KERNELS:
        got = (run(file, kernels, a.astype(np.int8), b.astype(np.int8)).astype(int) - z3) * s3
        steps = np.abs(got - right) / s3
        wrong = steps > 1.01
        print(f"{name:8s} {kernels:10s} wrong {wrong.mean():.2%}, by up to {steps.max():.0f} steps; numerators of the wrong ones "
              f"{np.unique(a[wrong] - z1)} steps, divisors from {np.abs(b[wrong] - z2).min()} steps on; worst of the others {steps[~wrong].max():.2f}")
        same &= bool(0.001 < wrong.mean() < 0.01 and steps.max() > 120 and np.abs(a[wrong] - z1).max() <= 2)
        same &= bool(np.abs(b[wrong] - z2).min() >= 64 and (wrong == too_far).all())
        if name == "positive":
            one = (a - z1 == 1) & (b - z2 == 255)
            print(f"         {kernels:10s} {s1:.2f} / {255 * s2:.2f} = {right[one][0]:.4f}, got {got[one][0]:.2f}")
            same &= bool(abs(got[one][0] - 255 * s3) < 1e-6)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
