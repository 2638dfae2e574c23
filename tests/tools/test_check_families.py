"""Training, quantizing and scoring model families: a whole run on a tiny one, and its parts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import check_families as tool  # noqa: E402
from tools.bench import families  # noqa: E402
from tools.bench.families import Training, described, trained  # noqa: E402

MODEL = """
nc: 6
scales: {n: [0.33, 0.125, 1024]}
backbone: [[-1, 1, Conv, [64, 3, 2]], [-1, 1, Conv, [128, 3, 2]], [-1, 1, Conv, [128, 3, 2]]]
head: [[[1, 2], 1, Detect, [nc]]]
"""


def test_the_key_holds_everything_that_shapes_a_checkpoint() -> None:
    base = Training()
    changed = [Training(imgsz=96), Training(scenes=7), Training(epochs=7), Training(batch=7), Training(seed=7)]
    assert len({t.key for t in (base, *changed)}) == 6
    assert Training(threads=7).key == base.key


def test_names_of_families() -> None:
    pytest.importorskip("ultralytics")
    for family in tool.DEFAULTS["families"].split(","):
        assert described(family) == Path(f"{family}.yaml")
    with pytest.raises(FileNotFoundError, match="yolo99"):
        described("yolo99n")


def test_a_checkpoint_is_trained_once_and_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def train(family: str, training: Training, data: Path, folder: Path) -> Path:
        calls.append(family)
        best = tmp_path / "best.pt"
        if len(calls) == 1:
            raise KeyboardInterrupt
        best.write_bytes(b"weights")
        return best

    monkeypatch.setattr(families, "_train", train)
    kept = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        trained("yolov8n", Training(), tmp_path, kept)
    first = trained("yolov8n", Training(), tmp_path, kept)
    assert trained("yolov8n", Training(), tmp_path, kept) == first and first.read_bytes() == b"weights"
    assert calls == ["yolov8n", "yolov8n"]
    assert trained("yolov8n", Training(epochs=2), tmp_path, kept) != first


def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([f"work={tmp_path}", "epochs=none"]) == 2
    assert tool.main([f"work={tmp_path}", "targets=tpu9"]) == 2
    assert "tpu9" in capsys.readouterr().err


@pytest.mark.nightly
def test_a_family_that_fails_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = tmp_path / "tinyn.yaml", tmp_path / "out.md"
    model.write_text(MODEL)
    arguments = [f"families=yolo99n,{model}", f"work={tmp_path / 'work'}", f"out={out}", "targets=onnxruntime,openvino"]
    arguments += ["imgsz=64", "scenes=16", "val=8", "epochs=1", "batch=8", "images=8", "bootstrap=100"]
    assert tool.main(arguments) == 4, "one family failed"
    text = out.read_text()
    assert text.strip() in capsys.readouterr().out
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows[0][0] == "yolo99n" and "FileNotFoundError" in rows[0][2]
    assert [row[:2] for row in rows[1:]] == [["tinyn", t] for t in ("fp32", "onnxruntime", "openvino")]
    (result,) = (tmp_path / "work" / "results" / "auto").glob("tinyn-*/rows.json")
    kept = {row["target"]: row for row in json.loads(result.read_text())["rows"]}
    (checkpoint,) = (tmp_path / "work" / "checkpoints").glob("*.pt")
    stamp = checkpoint.stat().st_mtime_ns
    for target in ("onnxruntime", "openvino"):
        row: dict[str, Any] = kept[target]
        assert row["error"] == "" and row["gap_error"] == "" and row["gap"] == pytest.approx(0, abs=0.001)
        whole, total = (int(word) for word in row["integers"].split(" of "))
        assert 0 < whole <= total
    assert kept["onnxruntime"]["integers"] == "15 of 15"
    assert tool.main([arguments[0].replace("yolo99n,", ""), *arguments[1:], "scheme=portable", "agree=false"]) == 0
    assert checkpoint.stat().st_mtime_ns == stamp, "it was trained again"


def test_a_report_of_failures_and_intervals() -> None:
    settings = tool.Settings.parse({**tool.DEFAULTS, "targets": "onnxruntime"})
    row = {
        "family": "yolov8n", "target": "litert", "error": "", "map50_95": 0.3, "drop": (0.004, -0.001, 0.009),
        "fidelity": (0.95, 0.94, 0.96), "integers": "63 of 64", "gap": 0.0005, "gap_error": "",
    }  # fmt: skip
    failed = {"family": "yolov9t", "target": "", "error": "ValueError: a | b"}
    lines = tool.report([row, failed], settings).splitlines()
    assert "+0.40 [-0.10, +0.90] | 0.950 [0.940, 0.960] | 63 of 64 | +0.050 |" in lines[-2]
    assert "failed: ValueError: a / b" in lines[-1] and lines[-1].count("|") == lines[-2].count("|")
