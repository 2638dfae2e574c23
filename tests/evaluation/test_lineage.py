"""Which model artifacts are held against, and which artifacts are refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
from core_models import checkpoint, tiny_host, write_images

from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.host_model import ORIGIN, HostModel, weights_sha256
from yoloquant.data.calibration import CalibrationOptions, calibration_set
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import ArtifactError, DataError
from yoloquant.evaluation.lineage import check_calibration, check_exports, find_baseline, quantized_weights
from yoloquant.evaluation.validate import named_rows
from yoloquant.quantization.artifact import save_checkpoint
from yoloquant.runtime.core.folder_check import file_sha256
from yoloquant.types import ExportedModel, HeadLayout, ModelInfo, Task


def original_at(path: Path) -> HostModel:
    """A checkpoint that was not made from any other: the tests' shared model was loaded, so it says where from."""
    module = copy.deepcopy(tiny_host().module)
    delattr(module, ORIGIN)
    return load_model(checkpoint(path, module))


def derived(path: Path, source: HostModel, factor: float = 0.5) -> HostModel:
    """A checkpoint with other weights, made from a model."""
    module = copy.deepcopy(source.module)
    next(module.parameters()).data.mul_(factor)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, module, {"imgsz": 64, "task": "detect"})
    return load_model(path)


def exported(model: HostModel, **metadata: object) -> ExportedModel:
    known = {
        "model": Path(model.source).name,
        "model_sha256": model.sha256,
        "weights_sha256": weights_sha256(model.module),
        "origin": {"name": model.origin.name, "sha256": model.origin.sha256, "weights": model.origin.weights},
    }
    info = ModelInfo(Task.DETECT, model.names, (64, 64))
    return ExportedModel("onnxruntime", Path("x.onnx"), info, HeadLayout.DECODED, metadata={**known, **metadata})


def test_the_original_travels_and_is_the_baseline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    original = original_at(tmp_path / "best.pt")
    assert not original.derived and find_baseline(original).note == ""
    assert original.origin.name == "best.pt" and original.origin.sha256 == file_sha256(tmp_path / "best.pt")
    pruned = derived(tmp_path / "runs" / "prune" / "weights" / "best.pt", original)
    trained = derived(tmp_path / "runs" / "train" / "weights" / "best.pt", pruned, 0.25)
    for model in (pruned, trained):
        assert model.derived and model.origin == original.origin
        found = find_baseline(model)
        assert found.model.sha256 == original.sha256
        assert "the baseline is 'best.pt'" in found.note and original.sha256[:12] in found.note
    (tmp_path / "best.pt").rename(tmp_path / "moved.pt")
    alone = find_baseline(trained)
    assert alone.model is trained and "was not found beside it" in alone.note and "baseline=<file>" in caplog.text


def test_the_same_weights_in_another_file_are_the_original(tmp_path: Path) -> None:
    original = original_at(tmp_path / "best.pt")
    save_checkpoint(tmp_path / "best_int8.pt", original.module, {"imgsz": 64, "task": "detect"}, state={"version": 1})
    assert not load_model(tmp_path / "best_int8.pt").derived
    assert load_model(tmp_path / "best_int8.pt").origin == original.origin


def test_a_damaged_origin_is_none(tmp_path: Path) -> None:
    module = copy.deepcopy(tiny_host().module)
    for nonsense in ("text", {"name": "x"}, {"name": 1, "sha256": "", "weights": ""}):
        setattr(module, ORIGIN, nonsense)
        assert not load_model(module).derived
    setattr(module, ORIGIN, {"name": "/etc/passwd", "sha256": "a", "weights": "b"})
    assert load_model(module).origin.name == "passwd"


def test_artifacts_of_other_weights_are_refused(tmp_path: Path) -> None:
    original = original_at(tmp_path / "best.pt")
    first = derived(tmp_path / "a.pt", original)
    second = derived(tmp_path / "b.pt", original, 0.25)
    assert check_exports([exported(original), exported(first)], original, original) == ()
    assert check_exports([exported(first)], first, original) == ()
    for stale, model in ((exported(first), second), (exported(original), first)):
        with pytest.raises(ArtifactError, match=r"was made from other weights \('.*allow_stale=true"):
            check_exports([stale], model, original)
        (note,) = check_exports([stale], model, original, allow_stale=True)
        assert note.endswith("accepted by allow_stale=true")


def test_a_trained_model_does_not_quantize_the_weights_that_it_was_trained_from() -> None:
    assert quantized_weights({"weights_sha256": "b", "origin": {"weights": "a"}}) == "b"
    assert quantized_weights({}) == quantized_weights({"origin": {"weights": "a"}}) == ""


def test_artifacts_of_other_classes_are_refused(tmp_path: Path) -> None:
    model = original_at(tmp_path / "best.pt")
    fine = exported(model)
    names = (*model.names[:-1], "zebra")
    with pytest.raises(ArtifactError, match=rf"class {len(names) - 1} is 'zebra', in the model '{model.names[-1]}'"):
        check_exports([replace(fine, info=replace(fine.info, names=names))], model, model)
    with pytest.raises(ArtifactError, match="is no class, in the model"):
        check_exports([replace(fine, info=replace(fine.info, names=model.names[:-1]))], model, model)


def test_images_that_calibrated_are_not_scored(tmp_path: Path) -> None:
    data = write_images(tmp_path / "set")
    model = original_at(tmp_path / "best.pt")
    hashes = list(calibration_set(data, CalibrationOptions(images=8)).hashes)
    artifact = exported(model, calibration={"hashes": hashes})
    assert check_calibration([artifact], ValidationSet.from_yaml(data)) == ()
    train = ValidationSet.from_yaml(data, split="train")
    with pytest.raises(DataError, match=r"8 of 10 scored images calibrated 'x\.onnx' .*allow_scored=true"):
        check_calibration([artifact], train)
    folder = ValidationSet.from_folder(tmp_path / "set" / "images" / "train")
    with pytest.raises(DataError, match="8 of 10"):
        check_calibration([artifact], folder)
    assert "accepted by allow_scored=true" in check_calibration([artifact], train, allow_scored=True)[0]
    (note,) = check_calibration([exported(model)], train)  # an artifact that does not say is not refused
    assert note.startswith("'x.onnx' does not say which images calibrated it")
    assert check_calibration([replace(exported(model), precision="fp16")], train) == ()


def test_no_artifact_hides_behind_the_name_of_another() -> None:
    one = exported(tiny_host())
    half = replace(one, precision="fp16")
    vela = [replace(one, target="ethosu", path=Path(name)) for name in ("u55.tflite", "u65.tflite")]
    twice = [replace(one, path=Path(folder) / "a.onnx") for folder in ("x", "y")]
    assert [name for name, _ in named_rows([one, half])] == ["onnxruntime", half.name]
    assert [name for name, _ in named_rows([one, *vela])] == ["onnxruntime", "ethosu:u55.tflite", "ethosu:u65.tflite"]
    assert named_rows(twice) == [("x/onnxruntime", twice[0]), ("y/onnxruntime", twice[1])]
    same = [replace(one, path=Path(f"{n}/x/a.onnx")) for n in (1, 2)]
    assert named_rows(same) == [("onnxruntime:a.onnx:1", same[0]), ("onnxruntime:a.onnx:2", same[1])]
