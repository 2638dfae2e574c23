"""The fast grid is torch's own, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yoloquant.quantization.qparams import QuantSpec
from yoloquant.quantization.tensor_grid import on_grid


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_it_is_torchs_kernel(bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = QuantSpec(bits=bits)
    scale = torch.tensor([10.0 ** rng.uniform(-6, 2)], dtype=torch.float32)
    zero_point = int(rng.integers(spec.qmin, spec.qmax + 1))
    steps = rng.uniform(2 * spec.qmin, 2 * spec.qmax, 4096)
    steps[::3] = np.floor(steps[::3]) + 0.5  # ties, as far as float32 has them
    x = torch.from_numpy(steps.astype(np.float32)) * scale
    kept = x.clone()
    wanted = torch.fake_quantize_per_tensor_affine(
        x, scale, torch.tensor([zero_point], dtype=torch.int32), spec.qmin, spec.qmax
    )
    found = on_grid(x, scale, zero_point, spec)
    assert torch.equal(found, wanted)
    assert torch.equal(x, kept)
    assert len(found.unique()) > 8
