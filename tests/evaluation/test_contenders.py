"""What is judged: exports of ours and of others, and the names of their rows."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import tiny_checkpoint, tiny_yolo
from validation_fakes import write_dataset

from yoloquant.bridge.foreign import describe_foreign, is_foreign
from yoloquant.errors import ArtifactError, UsageError
from yoloquant.evaluation.contenders import contenders, named_rows, path_names
from yoloquant.evaluation.validate import validate
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.predictions.prediction_options import PredictionOptions
from yoloquant.targets.exports import save_exports
from yoloquant.types import ExportedModel, HeadLayout, ModelInfo, Task, Verdict

NAMES = ("thing 0", "thing 1", "thing 2")
METADATA = {
    "task": "detect",
    "names": {str(i): name for i, name in enumerate(NAMES)},
    "imgsz": [64, 64],
    "stride": 32,
    "version": "8.4.190",
    "args": {"int8": True},
}


def exported(folder: Path, name: str = "a.onnx", target: str = "onnxruntime") -> ExportedModel:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    return ExportedModel(target, folder / name, ModelInfo(Task.DETECT, NAMES, (64, 64)), HeadLayout.DECODED)


def tflite(path: Path, **changes: object) -> Path:
    """What Ultralytics appends to a LiteRT file; enough to describe it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({**METADATA, **changes}))
    return path


def test_folders_of_ours_and_files_of_others_at_once(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        save_exports(tmp_path / folder, [exported(tmp_path / folder)])
    theirs, checkpoint = tflite(tmp_path / "theirs.tflite"), tmp_path / "last.pt"
    checkpoint.write_bytes(b"")
    found = contenders(f"{tmp_path}/old,{tmp_path}/new, {theirs},{checkpoint}")
    assert [name for name, _ in named_rows(found.exports.exports)] == ["old/onnxruntime", "new/onnxruntime"]
    assert [f.path for f in found.foreign] == [theirs] and found.checkpoints == (checkpoint,)
    assert {info.imgsz for _, info in found.infos} == {(64, 64)}
    assert [e.path.name for e in contenders(tmp_path / "old" / "a.onnx").exports.exports] == ["a.onnx"]
    everything = contenders(tmp_path)  # a folder without our list
    assert [f.path for f in everything.foreign] == [theirs]


def test_rows_have_names_of_their_own(tmp_path: Path) -> None:
    one, two = exported(tmp_path / "x", "a.onnx"), exported(tmp_path / "x", "b.onnx")
    other = exported(tmp_path / "x", "c.tflite", "litert")
    assert [n for n, _ in named_rows([one, two, other])] == ["onnxruntime:a.onnx", "onnxruntime:b.onnx", "litert"]
    paths = [tmp_path / "p" / "m.onnx", tmp_path / "q" / "m.onnx", tmp_path / "n.onnx"]
    assert path_names(paths, ["fp32"]) == ["p/m.onnx", "q/m.onnx", "n.onnx"]


def test_foreign_metadata_are_read_and_refused_where_they_lack(tmp_path: Path) -> None:
    found = describe_foreign(tflite(tmp_path / "a.tflite"))
    assert (found.info.names, found.info.imgsz, found.layout) == (NAMES, (64, 64), HeadLayout.DECODED)
    assert (found.precision, found.maker) == ("int8", "Ultralytics 8.4.190")
    assert describe_foreign(tflite(tmp_path / "n.tflite", args={"nms": True})).layout is HeadLayout.END2END
    (tmp_path / "b.tflite").write_bytes(b"nothing")
    for path in (tmp_path / "b.tflite", tflite(tmp_path / "c.tflite", imgsz=None)):
        with pytest.raises(ArtifactError, match="does not say what model it holds"):
            describe_foreign(path)
    # Ultralytics runs MNN, and reads no metadata of it: nobody would know what the file holds
    assert is_foreign(tmp_path / "a.tflite") and not is_foreign(tmp_path / "a.mnn")
    with pytest.raises(ArtifactError, match="does not exist"):
        contenders(tmp_path / "missing.onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"holds neither exports\.json"):
        contenders(tmp_path / "empty")


def test_a_foreign_artifact_and_another_checkpoint_are_judged_and_marked(tmp_path: Path) -> None:
    """TorchScript by Ultralytics is the FP32 model itself; a model of other weights is not."""
    data = write_dataset(tmp_path / "set", count=4)
    data.write_text(data.read_text().replace("cat, dog, bird", ", ".join(NAMES)))
    checkpoint = tiny_checkpoint(tmp_path)
    model = tiny_yolo()
    model.model.args["data"] = "data.yaml"  # which Ultralytics' description of an export wants to name
    script = Path(model.export(format="torchscript", imgsz=64, project=str(tmp_path), verbose=False))
    script = script.rename(tmp_path / "theirs.torchscript")
    other = tiny_checkpoint(tmp_path / "other" if (tmp_path / "other").mkdir() is None else tmp_path, seed=1)
    gate = {"name": "g", "limits": {"fidelity": 0.9}, "min_images": 1, "min_detections": 1, "baseline_map": 0}
    options = ValidateOptions(gate=gate, bootstrap=100, memory=False, latency=False)
    result = validate(checkpoint, f"{script},{other}", source=data.parent / "images" / "val", options=options)
    theirs, seed = result.targets
    assert (theirs.target, theirs.scheme, theirs.verdict) == ("theirs.torchscript", "foreign", Verdict.PASS)
    assert theirs.comparison is not None and theirs.comparison.fidelity.value > 0.98
    assert any("it is not known what it was calibrated on" in note for note in theirs.notes)
    assert seed.scheme == "checkpoint" and seed.verdict is Verdict.FAIL
    with pytest.raises(UsageError, match="imgsz=32 cannot be used here"):
        validate(
            checkpoint,
            script,
            source=data.parent / "images" / "val",
            options=replace(options, recorded=PredictionOptions(imgsz=32)),
        )
    changed = tiny_checkpoint(tmp_path / "other", nc=2)
    with pytest.raises(ArtifactError, match="has 3 classes"):
        validate(changed, script, source=data.parent / "images" / "val", options=options)


def test_nothing_to_judge(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is nothing to judge"):
        validate(tiny_checkpoint(tmp_path), None, source=tmp_path)
