#!/usr/bin/env bash
# torch.onnx.export: a 4-bit or 7-bit quantizer of a pt2e model becomes an 8-bit one if it is per tensor, per channel it is right
#
# Expected:  quantize_per_tensor(x, scale, zero_point, quant_min, quant_max, dtype), which is what convert_pt2e writes, is
#            exported with its limits: QuantizeLinear and a Clip, or an error as for fake_quantize_per_tensor_affine with limits
#            that ONNX does not have.
# Happens:   quant_min and quant_max are dropped: -8..7 and 0..127 (reduce_range) are exported as plain int8 and uint8
#            QuantizeLinear, and values beyond the range pass unclipped, 16 or 2 times as far. The per-channel operator gets a Clip
#            and is right. No warning; the ONNX is even more accurate than the model it was made from.
# Matters:   per tensor are the activations, per channel the weights. A 4-bit model that was trained with clipped activations is
#            evaluated as one of 8 bits, with an error that looks like a gain, and reduce_range, whose point is that products
#            do not saturate without VNNI, is void in the file that is shipped.
# Versions:  torch 2.13.0, onnxscript 0.7.2, onnx 1.23.2, onnxruntime 1.31.1. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile torch==2.13.0 onnxscript==0.7.2 onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
cat > check.py <<'PY'
import contextlib
import io
import logging
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
print("torch", torch.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
ops = torch.ops.quantized_decomposed
scales, zeros = torch.tensor([0.03, 0.02]), torch.zeros(2, dtype=torch.int32)


class Pair(torch.nn.Module):
    def __init__(self, low, high, dtype, per_channel):
        super().__init__()
        self.limits, self.per_channel = (low, high, dtype), per_channel

    def forward(self, x):
        if self.per_channel:
            codes = ops.quantize_per_channel(x, scales, zeros, 1, *self.limits)
            return ops.dequantize_per_channel(codes, scales, zeros, 1, *self.limits)
        return ops.dequantize_per_tensor(ops.quantize_per_tensor(x, 0.03, 0, *self.limits), 0.03, 0, *self.limits)


x = torch.linspace(-6, 6, 200).reshape(1, 2, 10, 10)
same = True
for low, high, dtype in ((-128, 127, torch.int8), (-8, 7, torch.int8), (0, 127, torch.uint8)):
    for per_channel in (False, True):
        module = Pair(low, high, dtype, per_channel).eval()
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(module, (x,), dynamo=True).save("m.onnx")
        session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        want = module(x).numpy()
        nodes = [node.op_type for node in onnx.load("m.onnx").graph.node]
        error = float(np.abs(got - want).max())
        print(f"{low}..{high} {'per channel' if per_channel else 'per tensor '} torch: {want.min():.2f} to {want.max():.2f}, ONNX: {got.min():.2f} to {got.max():.2f}", nodes)
        wrong = not per_channel and (low, high) != (-128, 127)
        same &= (error > 2) if wrong else (error < 1e-5)
        same &= ("Clip" in nodes) == per_channel
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
