"""A published family with many attention blocks, whole: areas batch the products differently from block to block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_export_artifact, tiny_images

pytestmark = pytest.mark.slow


def test_yolo12_keeps_every_range_and_runs(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="the litert extra is not installed")
    from yoloquant.targets.litert.target import LiteRTTarget

    target = LiteRTTarget()
    artifact = tiny_export_artifact("yolo12", schemes=[target.scheme])
    exported = target.export(artifact, tmp_path, "tiny")
    plan = artifact.plan_for(target.scheme)
    scales = target.read_scales(exported)
    assert set(scales) == set(plan.by_name)
    assert all(np.array_equal(scales[p.name][0], p.params.scale) for p in plan.points if p.params)
    assert exported.metadata["requantize"] == 0
    products = sum(":matmul:" in p.name for p in plan.points)
    operators = exported.metadata["operators"]
    assert products == operators.get("BATCH_MATMUL", 0) + operators.get("FULLY_CONNECTED of computed tensors", 0) > 0
    (image,) = tiny_images(1, seed=1)
    result = target.load(exported, threads=1)(image)[0]
    assert result.shape == (1, 4 + 3, sum((64 // s) ** 2 for s in artifact.info.strides))
    assert np.isfinite(result).all() and result[:, 4:].max() <= 1
