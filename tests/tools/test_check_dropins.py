"""What the comparison of drop-ins with Ultralytics' own validation says, and when it fails."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from yoloquant.runtime.tasks import spec_of
from yoloquant.types import Task

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_dropins  # noqa: E402
from check_dropins import Figure, compare  # noqa: E402


def scored(**metrics: float) -> Any:
    return SimpleNamespace(accuracy=SimpleNamespace(metrics=metrics), error="")


@pytest.mark.parametrize("task", list(Task))
def test_every_metric_of_a_task_has_ultralytics_name(task: Task) -> None:
    names = [m.name for m in spec_of(task).metrics]
    theirs = {check_dropins.THEIRS[name]: 0.5 for name in names}
    figures = compare("onnxruntime", spec_of(task), scored(**dict.fromkeys(names, 0.5)), theirs)
    assert [f.metric for f in figures] == names and all(f.equal for f in figures)


def test_classes_must_agree_more_closely_than_precision() -> None:
    assert Figure("a", "mask_map50_95", 0.5, 0.5009).equal and not Figure("a", "mask_map50_95", 0.5, 0.5011).equal
    assert Figure("a", "top1", 0.5, 0.5004).equal and not Figure("a", "top1", 0.5, 0.5009).equal


def test_a_file_without_a_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="litert was not scored: broken"):
        compare("litert", spec_of(Task.POSE), SimpleNamespace(accuracy=None, error="broken"), {})  # type: ignore[arg-type]


@pytest.mark.parametrize(("theirs", "code"), [(0.5, 0), (0.6, 1)])
def test_one_figure_that_differs_is_a_failure(
    theirs: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Figure("FP32", "top1", 0.4, 0.4), Figure("litert", "top1", 0.5, theirs)]
    monkeypatch.setattr(check_dropins, "measure", lambda options, folder: found)
    assert check_dropins.main(["model=a.pt", "data=b", f"out={tmp_path / 'table.md'}"]) == code
    assert ("DIFFERS" in (tmp_path / "table.md").read_text()) is bool(code)
    assert "| litert | top1 | 0.5000 |" in capsys.readouterr().out


def test_ties_alone_are_no_failure_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Figure("litert", "top1", 0.5, 0.502, 0.5), Figure("litert", "top5", 0.8, 0.8, 0.8)]
    monkeypatch.setattr(check_dropins, "measure", lambda options, folder: found)
    assert check_dropins.main(["model=a.pt", "data=b"]) == 0
    assert "| litert | top1 | 0.5000 | 0.5020 | ties: 0.5000 in order |" in capsys.readouterr().out
    assert Figure("litert", "top1", 0.5, 0.502, 0.501).remark == "DIFFERS"  # not ours in order either
    assert Figure("litert", "top1", 0.5, 0.5004, 0.5).remark == "ties: 0.5000 in order"  # asked though close enough


def test_ties_keep_their_order_while_it_lasts() -> None:
    values = np.random.default_rng(0).integers(0, 5, 5000).astype(np.float32)
    wanted, before = np.argsort(-values, kind="stable"), np.argsort
    with check_dropins.ties_in_order():
        found = np.argsort(-values)
        tensors = torch.from_numpy(values)
        assert (tensors.argsort(0, descending=True).numpy() == wanted).all()
        assert (torch.argsort(tensors, descending=True).numpy() == wanted).all()
    assert (found == wanted).all() and np.argsort is before
