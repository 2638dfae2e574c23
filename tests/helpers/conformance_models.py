"""A small detector whose output depends on its input, without any training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from yoloquant import targets
from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.host_model import HostModel
from yoloquant.graph.traced_model import TracedModel
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.calibrate import observe, solve_plan
from yoloquant.quantization.saturation import with_safe_weights
from yoloquant.quantization.scheme import PORTABLE, derive

IMGSZ = (64, 64)
NAMES = {0: "cat", 1: "dog", 2: "bird"}
# A stem, residual blocks, pooling, upsampling, concats and a head with two levels: every structure that schemes treat.
LAYERS = {
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "C2f", [16, True]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "C2f", [16, True]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "SPPF", [32, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, 1, "C2f", [16]],
        [[9, 6], 1, "Detect", ["nc"]],
    ],
}


def tiny_host_model(seed: int = 0) -> HostModel:
    """Random weights, normalised layer by layer so that no activation dies or explodes."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(seed)
    model = DetectionModel({"nc": len(NAMES), **LAYERS}, ch=3, nc=len(NAMES), verbose=False)
    model.names = dict(NAMES)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # average over the batches that follow
        norm.reset_running_stats()
    model.train()
    with torch.no_grad():
        for image in sample_images(4, seed=2):
            model(torch.from_numpy(np.repeat(image, 2, 0)))
    for norm in norms:
        norm.momentum = 0.03
    return load_model(model.eval())


def sample_images(count: int, *, seed: int = 0) -> list[np.ndarray]:
    """Smooth coloured blobs, float32 (1, 3, height, width), 0 to 1."""
    rng = np.random.default_rng(seed)
    noise = torch.from_numpy(rng.random((count, 3, 8, 8), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(noise, IMGSZ, mode="bicubic", align_corners=False).clamp(0, 1).numpy()
    return [np.ascontiguousarray(smooth[i : i + 1]) for i in range(count)]


def calibrated(host: HostModel) -> Artifact:
    """An artifact with a plan for every scheme."""
    schemes = {PORTABLE.name: PORTABLE}
    for name in targets.names():
        scheme = targets.get(name).scheme
        schemes.setdefault(scheme.name, scheme)
    artifact = Artifact(TracedModel.of(host, IMGSZ), {}, provenance={"calibration": {"sha256": "0" * 64}})
    plans = [derive(artifact.graph, s) for s in schemes.values()]
    # weights rounded for themselves: how far kernels are apart is tested, and one flipped step grows in this net
    seen = replace(observe(artifact.graph, plans, sample_images(16)), moments={})
    solved = {p.scheme: solve_plan(artifact.graph, p, seen) for p in plans}
    # as calibration does it: processors without VNNI would clamp
    clamping = [solved[s.name] for s in schemes.values() if s.sums_in_16_bits]
    solved |= {p.scheme: p for p in with_safe_weights(artifact.graph, clamping, sample_images(4))}
    return replace(artifact, plans=solved)


def content(path: Path) -> dict[str, bytes]:
    """Bytes of every file of an artifact, by name relative to it."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {str(f.relative_to(path)) if path.is_dir() else "": f.read_bytes() for f in files}


__all__ = ["IMGSZ", "NAMES", "calibrated", "content", "sample_images", "tiny_host_model"]
