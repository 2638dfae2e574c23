"""The commands around a device: bundle, predict, bench and analyze, on the demonstration model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from core_models import checkpoint, write_images

from yoloquant import QuantizeOptions, api
from yoloquant.cli.main import main
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.data.demo import IMGSZ, generator
from yoloquant.io import resource
from yoloquant.runtime.core.bundle_manifest import read

SMALL = 160  # where nothing depends on what is found


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("device")
    data = Path(generator().write_demo_set(folder / "data", train=8, val=4, imgsz=IMGSZ))
    options = QuantizeOptions(imgsz=IMGSZ, calibration=CalibrationOptions(images=8))
    artifact = api.quantize(str(resource("datasets", "demo.pt")), data=data, scheme="onnxruntime", options=options)
    return artifact.save(folder / "demo_int8.pt"), data


@pytest.mark.slow
def test_a_bundle_is_written_detects_and_is_measured(
    quantized: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = quantized
    out = tmp_path / "bundles"
    assert main(["export", f"model={model}", "target=onnx", "bundle=true", f"data={data}", f"output={out}"]) == 0
    assert "python -m yoloquant_runtime verify" in capsys.readouterr().out
    (folder,) = (p for p in out.iterdir() if p.is_dir())
    assert read(folder).accuracy is not None
    images = data.parent / "images" / "val"
    found = tmp_path / "found.jsonl"
    assert main(["predict", f"model={folder}", f"source={images}", f"output={found}", "conf=0.25"]) == 0
    frames = [json.loads(line) for line in found.read_text().splitlines()]
    assert len(frames) == 4 and any(frame["xyxy"] for frame in frames)
    measured = tmp_path / "bench.json"
    assert main(["bench", f"model={folder}", "rounds=2", "runs=2", "warmup=1", f"output={measured}"]) == 0
    assert "p99" in capsys.readouterr().out.lower() and json.loads(measured.read_text())
    assert main(["predict", f"model={folder}", f"source={tmp_path / 'absent.mp4'}"]) == 2


def test_analysis_writes_what_pruning_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = checkpoint(tmp_path / "float.pt"), write_images(tmp_path / "data", train=8, val=2)
    folder = tmp_path / "found"
    arguments = [f"model={model}", f"data={data}", "imgsz=64", "round_to=2", "images=2", f"output={folder}"]
    assert main(["analyze", *arguments, "ratios=0.5", "only=model.1,model.2.*"]) == 0
    assert "sensitivity.json" in capsys.readouterr().out and list(folder.glob("*.png"))
    sensitivity = f"sensitivity={folder / 'sensitivity.json'}"
    pruning = [f"model={model}", "imgsz=64", "round_to=2", "amount=0.2", "dry_run=true"]
    assert main(["prune", *pruning, sensitivity, "tolerance=10"]) == 0
    assert main(["analyze", *arguments, "metric=magic"]) == 2


@pytest.mark.slow
def test_one_recipe_prunes_fine_tunes_exports_and_judges_against_the_unpruned_model(tmp_path: Path) -> None:
    data = Path(generator().write_demo_set(tmp_path / "data", train=8, val=4, imgsz=SMALL))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {resource('datasets', 'demo.pt')}\ndata: {data}\ntargets: [onnxruntime]\nimgsz: {SMALL}\n"
        f"output: {tmp_path / 'out'}\ncalibration: {{images: 8}}\n"
        "prune:\n  options: {amount: 0.2, round_to: 2, criterion: l2}\n"
        "  arguments: {epochs: 1, batch: 4, workers: 0, plots: false, device: cpu}\n"
        "validation: {bootstrap: 100, memory: false, latency: false}\n"
    )
    assert main(["run", str(recipe)]) in {0, 1, 3}
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    (target,) = report["targets"]
    assert target["comparison"]["map_drop"] is not None
    pruned = tmp_path / "out" / "prune" / "weights" / "best.pt"
    assert pruned.stat().st_size < 0.95 * Path(str(resource("datasets", "demo.pt"))).stat().st_size
