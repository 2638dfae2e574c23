"""What the tools that compare training with calibration compute from their measurements."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from core_models import write_images

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools import benchmark_qat, compare_bits
from tools.bench.held import held_out
from tools.bench.mirror import mirror
from tools.bench.qat import table
from yoloquant.data.dataset import ValidationSet


def test_held_back_images_are_not_trained_on(tmp_path: Path) -> None:
    data = write_images(tmp_path / "set", train=10, val=5)
    described = yaml.safe_load(held_out(str(data), tmp_path / "held", 3).read_text())
    folder = Path(described["path"])
    train, val = ((folder / described[k]).read_text().split() for k in ("train", "val"))
    assert len(train) == 7 and len(val) == 3 and not set(train) & set(val)
    assert all(Path(p).is_file() and "train" in p for p in (*train, *val))
    again = yaml.safe_load(held_out(str(data), tmp_path / "again", 3).read_text())
    assert (tmp_path / "again" / again["val"]).read_text().split() == val


def row(method: str, fidelity: float | None = None, **changes: Any) -> dict[str, Any]:
    interval = None if fidelity is None else {"value": fidelity, "low": fidelity - 0.1, "high": fidelity + 0.1}
    return {"runtime": "", "method": method, "error": "", "scales": None, "map50_95": 0.5, "map_drop": interval,
            "fidelity": interval, **changes}  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "share"), [(0.2, 0.2, 0.0), (0.2, 0.995, 1.0), (0.595, 0.795, 0.5), (0.5, 0.4, -0.2)]
)
def test_share_of_lost_fidelity_that_is_won_back(before: float, after: float, share: float) -> None:
    rows = [row("fp32"), row("w4a8 PTQ", before), row("w4a8 QAT", after)]
    assert compare_bits._recovered(rows, "w4a8") == pytest.approx(share, abs=3e-3)
    assert compare_bits._recovered(rows, "w4a4") is None


def test_the_table_shows_errors_and_scales() -> None:
    text = table(
        [row("fp32"), row("QAT", 0.9, runtime="litert", scales=(3, 4)), row("PTQ", runtime="litert", error="broken")]
    )
    lines = text.splitlines()
    assert lines[2].startswith("| PyTorch | fp32 | 0.5000 |")
    assert "+90.00 (+80.00 to +100.00) | 0.900 (0.800 to 1.000) | 3 of 4" in lines[3]
    assert "broken" in lines[4]


def test_masks_and_keypoints_have_a_line_of_their_own() -> None:
    keypoints = {"map50_95": 0.25, "map_drop": None, "fidelity": {"value": 0.8, "low": 0.7, "high": 0.9}}
    lines = table([row("QAT", 0.9, runtime="litert", scales=(4, 4), further={"keypoints": keypoints})]).splitlines()
    assert lines[2].endswith("| 4 of 4 |") and lines[3] == "| | keypoints | 0.2500 |  | 0.800 (0.700 to 0.900) | |"


def test_the_shape_of_keypoints_is_kept(tmp_path: Path) -> None:
    data = write_images(tmp_path / "set", train=4, val=1)
    data.write_text(f"{data.read_text()}\nkpt_shape: [5, 3]\nflip_idx: [0, 2, 1, 4, 3]\n")
    described = yaml.safe_load(held_out(str(data), tmp_path / "held", 1).read_text())
    assert described["kpt_shape"] == [5, 3] and described["flip_idx"] == [0, 2, 1, 4, 3]


def test_ultralytics_is_told_of_keypoints_where_there_are_any(tmp_path: Path) -> None:
    data = ValidationSet.from_yaml(write_images(tmp_path / "set", train=1, val=2))
    plain, posed = (yaml.safe_load(mirror(data, tmp_path / "links", shape).read_text()) for shape in (None, (5, 3)))
    assert "kpt_shape" not in plain and posed == {**plain, "kpt_shape": [5, 3]}
    assert len(list((tmp_path / "links" / "labels" / "val").iterdir())) == 2


def test_arguments_reach_training() -> None:
    settings = benchmark_qat.Settings.parse(
        ["train=epochs=3,lr0=1e-4", "qat=scheme=litert,float_val=False", "targets=litert"]
    )
    assert settings.train == {"epochs": 3, "lr0": 1e-4} and settings.qat == {"scheme": "litert", "float_val": False}
    assert (settings.calibrated, settings.trained) == ("PTQ, litert", "QAT, litert")


def test_an_unknown_variant_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_bits.main(["variants=w3a3", "output=runs/none"]) == 2
    assert "allowed are w4a8, w4a4, minmax" in capsys.readouterr().err
