#!/usr/bin/env bash
# torch: fake quantization turns NaN into the lowest code with gradient 0, and per channel it sends +inf there as well
#
# Expected:  NaN goes through fake_quantize like through any other float operation, so a diverged QAT run shows NaN losses;
#            +inf saturates at the highest code.
# Happens:   fake_quantize_per_tensor_affine, _per_channel_affine and the learnable variant return quant_min for NaN, with a
#            gradient of zero. The per-channel function also returns quant_min for +inf; the per-tensor one saturates
#            rightly. torch.quantize_per_tensor gives 127 for NaN, quantized_decomposed's reference gives 0.
# Matters:   "the loss is finite" does not show that the activations are: a NaN born in one layer is laundered by the next
#            quantizer and training goes on. Check finiteness in front of the quantizers, not at the loss. (Once the range
#            observer itself has seen NaN, its scale becomes NaN and stays so.)
# Versions:  torch 2.13.0. Observed 2026-11-29, x86-64 (other processors convert NaN to integers differently).
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile torch==2.13.0 numpy==2.4.6
cat > check.py <<'PY'
import warnings

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators that pt2e quantization uses

warnings.filterwarnings("ignore")
print("torch", torch.__version__)
SCALE, ZERO, LOW, HIGH = 0.1, 5, -128, 127
values = [float("nan"), float("inf"), float("-inf"), 1.0]
scales, zeros = torch.tensor([SCALE]), torch.tensor([ZERO], dtype=torch.int32)
functions = {
    "per tensor": lambda x: torch.fake_quantize_per_tensor_affine(x, SCALE, ZERO, LOW, HIGH),
    "per channel": lambda x: torch.fake_quantize_per_channel_affine(x[None], scales, zeros, 0, LOW, HIGH)[0],
    "learnable": lambda x: torch._fake_quantize_learnable_per_tensor_affine(x, scales, zeros.float(), LOW, HIGH, 1.0),
}
seen = {}
for name, function in functions.items():
    x = torch.tensor(values, requires_grad=True)
    y = function(x)
    y.sum().backward()
    seen[name] = [round(v / SCALE) + ZERO for v in y.tolist()]
    print(f"{name:11s} codes of nan, inf, -inf, 1.0: {seen[name]}, gradients {x.grad.tolist()}")
    if x.grad[0] != 0:
        raise SystemExit("the recorded behaviour has changed")
plain = torch.clamp(torch.round(torch.tensor(values) / SCALE) + ZERO, LOW, HIGH)
print("the same formula written with clamp and round:", plain.tolist())
decomposed = torch.ops.quantized_decomposed.quantize_per_tensor(torch.tensor(values[:1]), SCALE, ZERO, LOW, HIGH, torch.int8)
real = torch.quantize_per_tensor(torch.tensor(values[:1]), SCALE, ZERO, torch.qint8).int_repr()
print("code of nan by quantized_decomposed:", decomposed.item(), "and by quantize_per_tensor:", real.item())
same = seen == {"per tensor": [-128, 127, -128, 15], "per channel": [-128, -128, -128, 15], "learnable": [-128, 127, -128, 15]}
same = same and bool(plain[0].isnan()) and (decomposed.item(), real.item()) == (0, 127)
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
