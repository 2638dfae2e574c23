"""One-shot pruning through the public verb and the command."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from core_models import checkpoint, write_images
from tiny_models import tiny_yolo
from ultralytics import YOLO

from yoloquant import QuantizeOptions, api
from yoloquant.bridge.checkpoint import load_model
from yoloquant.cli.main import main
from yoloquant.errors import DataError, PruneError, TargetError, UsageError
from yoloquant.pruning.make_sparse import RECORD
from yoloquant.pruning.plan import PrunePlan
from yoloquant.pruning.prune import prune
from yoloquant.sparsity.unstructured import sparsity_report
from yoloquant.targets.tensorrt.target import TensorRTTarget

HALF = {"amount": 0.5, "round_to": 2, "criterion": "l2", "images": 8}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("source")
    return checkpoint(root / "float.pt"), write_images(root / "data", train=10, val=2)


def weights(path: Path) -> int:
    return sum(p.numel() for p in load_model(path).module.parameters())


def test_a_pruned_checkpoint_is_an_ordinary_one(source: tuple[Path, Path], tmp_path: Path) -> None:
    result = prune(source[0], data=source[1], options=HALF, imgsz=64, output=tmp_path / "small.pt")
    assert result.path == tmp_path / "small.pt" and result.plan is not None
    assert result.plan.after.macs <= 0.5 * result.plan.before.macs
    assert weights(result.path) == result.plan.after.parameters
    assert YOLO(result.path)(torch.rand(1, 3, 64, 64), verbose=False)
    assert any("BatchNorm" in line for line in result.report)


def test_batchnorm_statistics_are_measured_anew_only_with_data(source: tuple[Path, Path], tmp_path: Path) -> None:
    with_data = prune(source[0], data=source[1], options=HALF, imgsz=64, output=tmp_path / "a.pt").path
    without = prune(source[0], options=HALF, imgsz=64, output=tmp_path / "b.pt").path
    states = [load_model(p).module.state_dict() for p in (with_data, without)]
    for name in states[0]:
        same = torch.equal(states[0][name], states[1][name])
        assert same or name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    assert not torch.equal(states[0]["model.0.bn.running_mean"], states[1]["model.0.bn.running_mean"])


def test_a_saved_plan_can_be_edited_and_applied(source: tuple[Path, Path], tmp_path: Path) -> None:
    planned = prune(source[0], options=HALF, imgsz=64, dry_run=True, output=tmp_path / "x.pt")
    assert planned.path is None and planned.plan is not None and not (tmp_path / "x.pt").exists()
    path = planned.plan.save(tmp_path / "plan.json")
    entry = next(e for e in planned.plan.entries if e.after < e.before)
    before, after = (f'"group": "{entry.group}", "before": {entry.before}, "after": {n}' for n in (entry.after, 1))
    path.write_text(path.read_text().replace(before, after))
    applied = prune(source[0], options={"plan": str(path)}, imgsz=64, output=tmp_path / "edited.pt")
    assert applied.plan is not None and applied.plan.kept[entry.group] == 1
    assert applied.plan.after.macs < PrunePlan.load(path).after.macs


@pytest.mark.parametrize("kind", ["unstructured", "2:4"])
def test_sparse_kinds_keep_the_shapes(kind: str, source: tuple[Path, Path], tmp_path: Path) -> None:
    options = {"kind": kind, "permutation": "channel" if kind == "2:4" else "none"}
    result = prune(source[0], options=options, imgsz=64, output=tmp_path / "sparse.pt")
    assert result.path is not None and result.plan is None
    assert weights(result.path) == weights(source[0])
    assert sparsity_report(load_model(result.path).module).share > 0.3


def test_class_folders_are_a_classifiers_labels(tmp_path: Path) -> None:
    model, rng = tiny_yolo("yolo11", "classify", nc=2), np.random.default_rng(0)
    model.save(tmp_path / "cls.pt")
    for split, count in (("train", 5), ("val", 1)):
        for index in range(2):
            folder = tmp_path / "data" / split / f"thing {index}"
            folder.mkdir(parents=True)
            for i in range(count):
                cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    options = {"amount": 0.3, "round_to": 2, "images": 8}
    found = [
        api.prune(tmp_path / "cls.pt", data=tmp_path / "data", options={**options, **more}, imgsz=64, dry_run=True).plan
        for more in ({}, {"criterion": "taylor"}, {"criterion": "l2"})
    ]
    assert all(found)
    usual, taylor, magnitude = ([(e.group, e.after) for e in plan.entries] for plan in found if plan)
    assert usual == taylor != magnitude
    (tmp_path / "plain").mkdir()
    for i in range(8):
        cv2.imwrite(str(tmp_path / "plain" / f"{i}.png"), rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(PruneError, match="needs labelled data: data=<data yaml>, or a classifier's folder"):
        api.prune(tmp_path / "cls.pt", data=tmp_path / "plain", criterion="taylor", images=8, imgsz=64)


def test_bad_input_says_what_to_do(source: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(PruneError, match="needs labelled data"):
        prune(source[0], options={"criterion": "taylor"}, imgsz=64, output=tmp_path / "x.pt")
    other = source[1].with_name("other.yaml")
    other.write_text(source[1].read_text().partition("names")[0] + "names: [wolf]\n")
    with pytest.raises(DataError, match=r"the model knows 3 classes, data .* has 1"):
        api.prune(source[0], data=other, options={**HALF, "criterion": "taylor"}, imgsz=64, output=tmp_path / "x.pt")
    with pytest.raises(PruneError, match="blocks need data"):
        prune(source[0], options={**HALF, "blocks": 1}, imgsz=64, output=tmp_path / "x.pt")
    with pytest.raises(PruneError, match="the most that"):
        prune(source[0], options={**HALF, "amount": 0.99}, imgsz=64, output=tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"must end in \.pt"):
        prune(source[0], options=HALF, output=tmp_path / "x.onnx")
    with pytest.raises(DataError):
        prune(source[0], data=tmp_path / "absent.yaml", options=HALF, imgsz=64, output=tmp_path / "x.pt")
    small = prune(source[0], options=HALF, imgsz=64, output=tmp_path / "small.pt").path
    with pytest.raises(PruneError, match="pruned already"):
        prune(small, options=HALF, imgsz=64, output=tmp_path / "x.pt")
    assert not (tmp_path / "x.pt").exists()


def test_the_command_prints_the_plan_and_writes_the_checkpoint(
    source: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [f"model={source[0]}", "amount=0.3", "round_to=2", "imgsz=64", f"output={tmp_path / 'c.pt'}"]
    assert main(["prune", *common, "--dry-run", "true", f"save_plan={tmp_path / 'plan.json'}"]) == 0
    out = capsys.readouterr().out
    assert "multiply-accumulates" in out and "->" in out and (tmp_path / "plan.json").is_file()
    assert main(["prune", *common]) == 0 and (tmp_path / "c.pt").is_file()
    assert main(["prune", f"model={source[0]}", "amount=2"]) == 2


@pytest.mark.slow
def test_a_24_model_is_24_in_the_file_that_tensorrt_reads(source: tuple[Path, Path], tmp_path: Path) -> None:
    path = prune(source[0], options={"kind": "2:4"}, imgsz=64, output=tmp_path / "sparse.pt").path
    artifact = api.quantize(path, data=source[1], scheme="tensorrt", options=QuantizeOptions(imgsz=64))
    exported = TensorRTTarget(compile_check=False, engine=False).export(artifact, tmp_path, "sparse")
    assert len(exported.metadata["sparse_24"]) > 20
    dense = api.quantize(source[0], data=source[1], scheme="tensorrt", options=QuantizeOptions(imgsz=64))
    setattr(dense.model.module, RECORD, {"kind": "2:4", "amount": 0.5})
    with pytest.raises(TargetError, match="not 2:4 any more"):
        TensorRTTarget(compile_check=False, engine=False).export(dense, tmp_path, "dense")
