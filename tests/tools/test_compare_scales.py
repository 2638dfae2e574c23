"""Scales read back from artifacts, held against the checkpoint's plan bit by bit."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from conformance_models import tiny_host_model  # noqa: E402
from core_models import tiny_artifact  # noqa: E402
from validation_fakes import NAMES, write_dataset  # noqa: E402

from tools import compare_scales as tool  # noqa: E402
from yoloquant.quantization.plan import Plan  # noqa: E402


def _scales(plan: Plan) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {p.name: (p.params.scale.copy(), p.params.zero_point.copy()) for p in plan.points if p.params is not None}


def test_one_bit_is_told() -> None:
    plan = next(iter(tiny_artifact().plans.values()))
    scales = _scales(plan)
    held = tool.equality(plan, scales)
    assert held == tool.Equality(len(plan.points), sum(s.size for s, _ in scales.values()), ())
    name = plan.weights[0].name
    scale, zero = scales[name]
    next_float = scale.copy()
    next_float[0] = np.nextafter(scale[0], np.float32(np.inf))
    for wrong in ((next_float, zero), (scale, zero + 1), (scale[:1], zero[:1])):
        changed = {**scales, name: wrong}
        assert tool.equality(plan, changed).different == (name,)
        assert tool.fingerprint(changed, sorted(scales)) != tool.fingerprint(scales, sorted(scales))
    # what the plan has not is no scale of the checkpoint
    assert tool.equality(plan, {"model.99": (scale, zero)}).different == ("model.99",)


def test_a_whole_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    module = tiny_host_model().module
    module.names = dict(enumerate(NAMES))
    model, out = tmp_path / "tiny.pt", tmp_path / "out"
    torch.save({"model": module, "ema": None, "train_args": {"imgsz": 64}}, model)
    data = write_dataset(tmp_path / "set", count=10)
    arguments = [f"model={model}", f"data={data}", "imgsz=64", "images=8", "limit=6", f"output={out}"]
    targets = ["onnxruntime", "openvino"]
    assert tool.main([*arguments, f"targets={','.join(targets)}"]) == 0
    text = (out / "scales.md").read_text()
    assert text.strip() in capsys.readouterr().out
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| o")]
    assert [row[0] for row in rows] == targets and all(row[3] == "0" and row[5] and row[6] for row in rows)
    # the same scales in both, of which each has some for itself
    assert rows[0][4] == rows[1][4] and rows[0][1] != rows[1][1]
    # a runtime's own plan
    assert tool.main([*arguments, "targets=onnxruntime", "scheme=onnxruntime"]) == 0
    assert "plan 'onnxruntime' of tiny.pt" in capsys.readouterr().out
    monkeypatch.setattr(tool, "equality", lambda plan, scales: tool.Equality(1, 1, ("model.0",)))
    assert tool.main([*arguments, "targets=onnxruntime"]) == 1 and "model.0 differ" in capsys.readouterr().out
