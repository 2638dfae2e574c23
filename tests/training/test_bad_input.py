"""What cannot be trained is refused with a clear error before anything is trained."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from core_models import checkpoint, tiny_artifact, tiny_host
from tiny_models import tiny_yolo
from train_runs import run, write_images

from yoloquant.errors import ArtifactError, DataError, ModelError, UsageError, YoloquantError

QAT = {"preset": "fast", "images": 8}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("source")
    return checkpoint(root / "float.pt"), write_images(root / "data", train=8, val=4)


def refused(kind: type[Exception], match: str, start: Callable[..., Any]) -> None:
    def forbidden(trainer: Any) -> None:
        raise AssertionError("a batch was trained")

    with pytest.raises(kind, match=match):
        start(callbacks={"on_train_batch_start": forbidden})


@pytest.mark.parametrize(
    ("qat", "match"),
    [
        ({"colour": "red"}, "no option 'colour'; allowed are preset"),
        ("quick", "preset='quick' is not supported; allowed are fast, standard, long"),
        ({"loss": "magic"}, "loss='magic' is not supported; allowed are distill, detect, both"),
        ({"select": "luck"}, "select='luck' is not supported; allowed are auto, fidelity, fitness"),
        ({"weight_bits": 1}, "weight_bits=1 is not supported; allowed is a whole number from 2 to 8"),
        ({"images": 2}, "images=2 is not supported; allowed is a whole number from 8"),
        ({"damping": -1}, "damping=-1 is not supported"),
        ({"local_weight": -1}, "local_weight=-1 is not supported"),
        ({"distill_weight": float("nan")}, "distill_weight=nan"),
        (17, "qat=17 is not supported; give a preset"),
    ],
)
def test_unknown_settings_are_refused(source: tuple[Path, Path], tmp_path: Path, qat: Any, match: str) -> None:
    refused(UsageError, match, lambda **o: run(*source, tmp_path, qat=qat, **o))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"compile": True}, "compile"),
        ({"quantize": 8}, "quantize is Ultralytics' own"),
        ({"distill_model": "x.pt"}, r"qat=dict\(teacher=...\)"),
    ],
)
def test_arguments_that_contradict_are_refused(
    source: tuple[Path, Path], tmp_path: Path, arguments: dict[str, Any], match: str
) -> None:
    refused(UsageError, match, lambda **o: run(*source, tmp_path, **arguments, **o))


def test_several_data_sets_are_refused(source: tuple[Path, Path], tmp_path: Path) -> None:
    from yoloquant.training.qat.trainer import QATTrainer

    with pytest.raises(UsageError, match="one data set"):
        QATTrainer(overrides={"model": str(source[0]), "data": ["a.yaml", "b.yaml"], "project": str(tmp_path)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("qat", "match"),
    [
        ({"scheme": "colourful"}, "colourful"),
        ({"scheme": "litert,tensorrt"}, "one scheme"),
        ({"teacher": "missing.pt"}, "missing.pt"),
    ],
)
def test_settings_that_fit_nothing_are_refused(
    source: tuple[Path, Path], tmp_path: Path, qat: dict[str, Any], match: str
) -> None:
    refused(YoloquantError, match, lambda **o: run(*source, tmp_path, qat={**QAT, **qat}, **o))


def test_an_untrained_yaml_is_refused(source: tuple[Path, Path], tmp_path: Path) -> None:
    from ultralytics import YOLO

    from yoloquant.training.qat.trainer import QATTrainer

    with pytest.raises((ModelError, UsageError), match=r"\.pt|trained checkpoint"):
        YOLO("yolo11n.yaml").train(
            trainer=QATTrainer, data=str(source[1]), epochs=1, imgsz=64, device="cpu", project=str(tmp_path), qat=QAT
        )


def test_another_number_of_classes_is_refused(source: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "five.pt"
    tiny_yolo("yolov8", nc=5).save(str(path))
    refused(UsageError, "knows 5 classes.*has 3", lambda **o: run(path, source[1], tmp_path, **o))


@pytest.mark.parametrize("loss", ["detect", "both"])
def test_images_without_labels_need_distillation(source: tuple[Path, Path], tmp_path: Path, loss: str) -> None:
    folder = source[1].parent / "images" / "train"
    qat = {**QAT, "loss": loss}
    refused(UsageError, "loss=distill", lambda **o: run(source[0], folder, tmp_path, qat=qat, **o))


def test_too_few_images_without_labels_are_refused(source: tuple[Path, Path], tmp_path: Path) -> None:
    folder = write_images(tmp_path / "few", train=5, val=1).parent / "images" / "train"
    refused(DataError, "at least", lambda **o: run(source[0], folder, tmp_path / "out", **o))


@pytest.mark.slow
def test_a_teacher_of_other_classes_is_refused(source: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    tiny_yolo("yolo26", nc=3).save(str(path))
    refused(UsageError, "teacher's head", lambda **o: run(*source, tmp_path, qat={**QAT, "teacher": str(path)}, **o))


@pytest.mark.slow
def test_damaged_and_plain_checkpoints_are_not_resumed(source: tuple[Path, Path], tmp_path: Path) -> None:
    refused(ArtifactError, "no interrupted run", lambda **o: run(None, None, tmp_path, resume=str(source[0]), **o))
    damaged = tmp_path / "last.pt"
    damaged.write_bytes(source[0].read_bytes()[:5000])
    refused(ModelError, "damaged", lambda **o: run(None, None, tmp_path, resume=str(damaged), **o))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_refused(source: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    refused(OSError, "ermission", lambda **o: run(*source, folder, **o))


@pytest.mark.slow
def test_weights_that_are_not_finite_are_refused(source: tuple[Path, Path], tmp_path: Path) -> None:
    module = copy.deepcopy(tiny_host().module)
    with torch.no_grad():
        next(module.parameters())[0] = float("nan")
    path = checkpoint(tmp_path / "nan.pt", module)
    refused(YoloquantError, "NaN|infinite|finite", lambda **o: run(path, source[1], tmp_path, **o))


@pytest.mark.parametrize("change", [{"weight_bits": 4}, {"activation_bits": 4}])
def test_a_stored_plan_of_another_kind_is_not_taken_silently(change: dict[str, Any]) -> None:
    from yoloquant.training.qat.calibrate_start import calibrated
    from yoloquant.training.qat.qat_options import QATOptions

    artifact = tiny_artifact()
    source = replace(artifact.model, state=artifact.state())
    _, plan = calibrated(source, QATOptions(), "unused.yaml", artifact.info.imgsz)
    assert plan == artifact.plans["portable"]
    with pytest.raises(UsageError, match="Start from the float checkpoint"):
        calibrated(source, QATOptions(**change), "unused.yaml", artifact.info.imgsz)
