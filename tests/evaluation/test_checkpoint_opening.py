"""Another checkpoint's float model: opened here, and by workers without tracing it again."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_checkpoint

from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.host_model import model_info
from yoloquant.errors import ModelError, UsageError
from yoloquant.evaluation import checkpoint_opening
from yoloquant.evaluation.checkpoint_opening import CheckpointOpening


def test_a_worker_opens_what_was_traced_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_checkpoint(tmp_path)
    host = load_model(path)
    info = model_info(host, host.resolve_imgsz(64))
    opening = CheckpointOpening(path, info, threads=1)
    image = np.random.default_rng(0).random((1, 3, *info.imgsz), dtype=np.float32)
    expected = opening()(image)
    packed = pickle.dumps(opening)
    monkeypatch.setattr(checkpoint_opening, "load_model", lambda path: pytest.fail("the worker reads the checkpoint"))
    found = pickle.loads(packed)()(image)
    for mine, theirs in zip(expected, found, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_cannot_be_opened_is_told_by_the_worker(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path)
    host = load_model(path)
    info = model_info(host, host.resolve_imgsz(64))
    missing = pickle.loads(pickle.dumps(CheckpointOpening(tmp_path / "none.pt", info, 1)))
    with pytest.raises(ModelError, match=r"none\.pt"):
        missing()
    other = pickle.loads(pickle.dumps(CheckpointOpening(path, replace(info, names=("a", "b")), 1)))
    with pytest.raises(UsageError, match="has another task or other classes"):
        other()
