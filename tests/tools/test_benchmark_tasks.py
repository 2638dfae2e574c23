"""The table of a task's exports, from real files of a tiny classifier."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_models import tiny_export_artifact

from yoloquant import targets

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import benchmark_tasks  # noqa: E402


@pytest.mark.slow
def test_exported_files_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    artifact = tiny_export_artifact("yolo11", "classify", [targets.get("onnxruntime").scheme])
    monkeypatch.setattr(benchmark_tasks, "calibrated", lambda options, names: artifact)
    rng = np.random.default_rng(0)
    for name in artifact.info.names:
        folder = tmp_path / "data" / "val" / name
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "0.png"), rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    out = tmp_path / "table.md"
    given = [f"data={tmp_path / 'data'}", "targets=onnxruntime", "threads=1", f"out={out}"]
    assert benchmark_tasks.main(["model=tiny.pt", *given]) == 0
    rows = [line.split(" | ") for line in out.read_text().splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["| FP32 (PyTorch)", "| onnxruntime"]
    top1 = next(i for i, title in enumerate(rows[0]) if title.startswith("top-1"))
    assert 0 <= float(rows[2][top1].split()[0]) <= 1 and float(rows[2][-1].strip(" |")) > 0
    assert "onnxruntime" in capsys.readouterr().out


def test_a_name_that_is_no_checkpoints_is_refused_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark_tasks.main(["model=a.pt", "data=b.yaml", "artifact=kept.bin"]) == 2
    assert "must end in .pt" in capsys.readouterr().out
