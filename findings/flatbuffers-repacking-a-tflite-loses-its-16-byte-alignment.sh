#!/usr/bin/env bash
# flatbuffers: reading and writing a .tflite in Python moves its weights and Ethos-U commands off their 16-byte alignment
#
# Expected:  ModelT.InitFromPackedBuf and Pack, generated from the schema, keep what the schema demands: Buffer.data is
#            force_align: 16. A file that is written back unchanged is as good as before.
# Happens:   Python's generated code ignores force_align: only the length in front of the bytes is aligned, to 4. In a file
#            by vela each buffer begins at a multiple of 16, after the round trip half of them do not, among them command
#            streams. Readers on a PC take such a file and say nothing.
# Matters:   renaming a tensor, adding metadata or correcting a scale is done exactly so. The Ethos-U driver refuses command
#            streams and base addresses that are not 16-byte aligned, and builds for microcontrollers use the flatbuffer in
#            place: the file works on the desk and fails on the device.
# Versions:  flatbuffers 25.12.19, ai-edge-litert 2.3.0, ethos-u-vela 5.2.0. Observed 2026-11-30, x86-64.
# Source:    tensorflow/lite/schema/schema.fbs, table Buffer.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet ai-edge-litert==2.3.0 flatbuffers==25.12.19 ethos-u-vela==5.2.0 numpy==2.4.6
cat > check.py <<'PY'
import contextlib, io
from importlib.metadata import version
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ethosu.vela import vela

print({name: version(name) for name in ("flatbuffers", "ai-edge-litert", "ethos-u-vela")})
INT8, INT32 = schema.TensorType.INT8, schema.TensorType.INT32


def pack(model):
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def network(channels, layers):
    """int8 convolutions in a row."""
    random = np.random.default_rng(channels)
    file, graph = schema.ModelT(), schema.SubGraphT()
    file.version, file.buffers, graph.tensors, graph.operators = 3, [schema.BufferT()], [], []

    def tensor(name, shape, dtype, scale, values=None):
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, shape, dtype, 0
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = np.float32(scale), np.zeros(len(scale), np.int64)
        if values is not None:
            made.buffer = len(file.buffers)
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            file.buffers.append(buffer)
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    x = tensor("x", [1, 16, 16, channels], INT8, [0.05])
    graph.inputs = [x]
    for i in range(layers):
        kernel = random.integers(-127, 128, (channels, 3, 3, channels)).astype(np.int8)
        bias = random.integers(-99, 99, channels).astype(np.int32)
        node, options = schema.OperatorT(), schema.Conv2DOptionsT()
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        node.opcodeIndex, node.builtinOptionsType, node.builtinOptions = 0, schema.BuiltinOptions.Conv2DOptions, options
        node.inputs = [x, tensor(f"w{i}", list(kernel.shape), INT8, [0.01] * channels, kernel),
                       tensor(f"b{i}", [channels], INT32, [0.0005] * channels, bias)]
        x = tensor(f"y{i}", [1, 16, 16, channels], INT8, [0.05])
        node.outputs = [x]
        graph.operators.append(node)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 3
    graph.outputs, file.subgraphs, file.operatorCodes, file.description = [x], [graph], [code], "convolutions"
    return file


def places(content):
    """Position of each tensor's constant bytes in the file, modulo 16."""
    model = schema.Model.GetRootAs(content, 0)
    graph, found = model.Subgraphs(0), {}
    for i in range(graph.TensorsLength()):
        buffer = model.Buffers(graph.Tensors(i).Buffer())
        if buffer.DataLength():
            found[graph.Tensors(i).Name().decode()] = buffer._tab.Vector(buffer._tab.Offset(4)) % 16
    return found


before, after, commands = [], [], []
for channels in (8, 16):
    for layers in (1, 2, 3, 4):
        Path("network.tflite").write_bytes(pack(network(channels, layers)))
        with contextlib.redirect_stdout(io.StringIO()):
            vela.main(["network.tflite", "--accelerator-config", "ethos-u55-128", "--output-dir", "compiled"])
        compiled = Path("compiled/network_vela.tflite").read_bytes()
        repacked = pack(schema.ModelT.InitFromPackedBuf(compiled, 0))
        first, second = places(compiled), places(repacked)
        print(f"{layers} convolutions of {channels} channels: by vela {first}, written back {second}")
        before += first.values()
        after += second.values()
        commands.append(next(place for name, place in second.items() if "command_stream" in name))
off = sum(place != 0 for place in after)
print(f"off a multiple of 16: {sum(place != 0 for place in before)} of {len(before)} before, {off} of {len(after)} after, "
      f"command streams {sum(place != 0 for place in commands)} of {len(commands)}")
same = not any(before) and off >= 4 and all(place % 4 == 0 for place in after)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
