from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from colour_model import ARTIFACT, CELLS, draw_data, export_colours
from other_formats import write_coco

from yoloquant.bundle import Bundle, BundleOptions, make, write
from yoloquant.errors import ArtifactError, DataError, OutputError, UsageError
from yoloquant.runtime.apps.golden import Golden, read_outputs
from yoloquant.runtime.core.bundle_manifest import FILE_NAME, read
from yoloquant.targets.exports import content_sha256
from yoloquant.types import ExportedModel, Task

RUNTIME = Path(__file__).resolve().parents[2] / "yoloquant" / "runtime"


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return export_colours(tmp_path_factory.mktemp("model") / "colours.onnx")


@pytest.fixture(scope="module")
def bundle(colours: ExportedModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "colours-onnx"
    return write(ARTIFACT, colours, device="onnx", folder=folder, options=BundleOptions(archive=True))


@pytest.fixture
def again(colours: ExportedModel, tmp_path: Path) -> Callable[..., Bundle]:
    """Write the bundle into ``tmp_path / "out"``."""

    def call(**options: Any) -> Bundle:
        chosen = BundleOptions(**{"golden_images": 1, **options})
        return write(ARTIFACT, colours, device="onnx", folder=tmp_path / "out" / "bundle", options=chosen)

    return call


def listing(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_bundle_holds_everything(bundle: Bundle, colours: ExportedModel) -> None:
    files = set(listing(bundle.path))
    assert {FILE_NAME, "README.md", "labels.txt", "requirements.txt", "LICENSE"} < files
    assert (bundle.path / bundle.manifest.model).read_bytes() == colours.path.read_bytes()
    assert set(bundle.manifest.files) == files - {FILE_NAME}
    assert bundle.manifest == read(bundle.path)
    assert bundle.manifest.info == colours.info
    assert (bundle.path / "labels.txt").read_text().splitlines() == list(colours.info.names)
    assert bundle.manifest.versions["ultralytics"] and bundle.manifest.source["model_sha256"] == "0" * 64
    assert bundle.manifest.precision == "fp32" and not bundle.manifest.plan


def test_the_runtime_is_the_packages_own(bundle: Bundle) -> None:
    copied = {k: v for k, v in listing(bundle.path / "yoloquant_runtime").items() if not k.endswith(".pyc")}
    assert copied == {k: v for k, v in listing(RUNTIME).items() if k.endswith(".py")}


def test_golden_inputs_show_something_and_are_small(bundle: Bundle) -> None:
    golden = Golden.from_dict(bundle.manifest.golden)
    assert len(golden.images) == 3
    limit = golden.tolerances.conf
    assert all(sum(row[4] >= limit for row in item.detections) >= 3 for item in golden.images)
    assert sum(p.stat().st_size for p in (bundle.path / "golden").iterdir()) < 500_000
    for item in golden.images:
        image = cv2.imread(str(bundle.path / item.image))
        assert image.shape[0] != image.shape[1], "the letterbox has to pad"
        (output,) = read_outputs(bundle.path / item.outputs)
        assert output.shape == (1, 7, CELLS) and np.isfinite(output).all()


def test_equal_input_gives_an_equal_bundle(again: Callable[..., Bundle], tmp_path: Path) -> None:
    first = again(archive=True)
    assert first.archive is not None
    content = first.archive.read_bytes()
    shutil.rmtree(tmp_path / "out")
    second = again(archive=True)
    assert first.manifest.id == second.manifest.id
    assert second.archive is not None and second.archive.read_bytes() == content


def test_the_archive_unpacks_to_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.archive is not None
    with tarfile.open(bundle.archive) as archive:
        archive.extractall(tmp_path, filter="data")
    assert read(tmp_path / bundle.path.name) == bundle.manifest


@pytest.mark.parametrize("what", ["data.yaml", "images/val"])
def test_golden_inputs_come_from_given_images(again: Callable[..., Bundle], tmp_path: Path, what: str) -> None:
    draw_data(tmp_path / "data")
    made = again(data=tmp_path / "data" / what, golden_images=2)
    golden = Golden.from_dict(made.manifest.golden)
    assert [item.image for item in golden.images] == ["golden/0_0.png", "golden/1_1.png"]
    assert len(golden.images[0].detections) == 6


def test_accuracy_on_labelled_data_goes_into_the_bundle(again: Callable[..., Bundle], tmp_path: Path) -> None:
    from yoloquant.data.dataset import ValidationSet

    data = draw_data(tmp_path / "data", 5)
    accuracy = again(data=data).manifest.accuracy
    assert accuracy is not None
    assert accuracy.metrics["map50_95"] == pytest.approx(0.995, abs=1e-6), "it finds every cell; 0.995 is full marks"
    assert (accuracy.images, accuracy.labels, accuracy.source) == (5, 30, "runtime")
    assert accuracy.data_sha256 == ValidationSet.from_yaml(data).data_hash
    limited = again(data=data, limit=2).manifest.accuracy
    assert limited is not None and (limited.images, limited.labels) == (2, 12)
    assert limited.data_sha256 == ValidationSet.from_yaml(data).take(2).data_hash
    same_folder = again(data=tmp_path / "data").manifest.accuracy
    assert same_folder == accuracy


def test_a_folder_with_a_yaml_is_measured_on_what_the_yaml_says(again: Callable[..., Bundle], tmp_path: Path) -> None:
    data = draw_data(tmp_path / "data", 3)
    for kind in ("images", "labels"):
        (data.parent / kind / "val").rename(data.parent / kind / "night")
    data.write_text(data.read_text().replace("images/val", "images/night"))
    (data.parent / "images" / "train").mkdir()
    cv2.imwrite(str(data.parent / "images" / "train" / "9.png"), np.zeros((100, 50, 3), np.uint8))
    accuracy = again(data=data.parent).manifest.accuracy
    assert accuracy is not None and accuracy.images == 3 and accuracy == again(data=data).manifest.accuracy


def test_a_folder_of_another_format_is_measured_by_its_labels(
    again: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLOQUANT_CACHE", str(tmp_path / "cache"))
    data = draw_data(tmp_path / "data", 3)
    for kind in ("images", "labels"):
        shutil.copytree(data.parent / kind / "val", data.parent / kind / "train")
    wanted = again(data=data).manifest.accuracy
    accuracy = again(data=write_coco(data, tmp_path / "coco")).manifest.accuracy
    assert accuracy is not None and wanted is not None
    assert accuracy.metrics == pytest.approx(wanted.metrics) and accuracy.labels == wanted.labels


def test_images_without_objects_are_told(again: Callable[..., Bundle], tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    cv2.imwrite(str(tmp_path / "grey" / "f\u00fcr alle.png"), np.zeros((100, 50, 3), np.uint8))
    made = again(data=tmp_path / "grey")
    assert "nothing is detected on any golden input" in (made.path / "README.md").read_text()
    assert made.manifest.golden["images"][0]["image"] == "golden/0_f_r_alle.png"


def test_an_older_bundle_is_replaced_as_a_whole(again: Callable[..., Bundle]) -> None:
    first = again(golden_images=2)
    (first.path / "leftover.json").write_text("{}")
    second = again(golden_images=1)
    assert first.manifest.id != second.manifest.id
    assert read(second.path) == second.manifest
    assert set(listing(second.path)) == {*second.manifest.files, FILE_NAME}
    assert [p.name for p in second.path.parent.iterdir()] == ["bundle"]


def test_what_is_no_bundle_is_never_replaced(again: Callable[..., Bundle], tmp_path: Path) -> None:
    place = tmp_path / "out" / "bundle"
    place.mkdir(parents=True)
    (place / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="is no bundle, so it is not replaced"):
        again()
    assert (place / "thesis.txt").read_text() == "mine"
    shutil.rmtree(place)
    place.write_text("a file")
    with pytest.raises(OutputError, match="not replaced"):
        again()
    place.unlink()
    place.mkdir()
    assert again().manifest.id  # an empty folder may be taken


@pytest.mark.parametrize("where", ["shutil.copyfile", "yoloquant.bundle.expected.write_outputs", "text", "manifest"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_nothing_half_written(
    again: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, existing: bool
) -> None:
    before = again().manifest if existing else None
    text = Path.write_text

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_text(path: Path, *arguments: Any, **named: Any) -> int:
        if path.name != FILE_NAME and where == "manifest":
            return text(path, *arguments, **named)
        return int(full())

    if where in {"text", "manifest"}:
        monkeypatch.setattr(Path, "write_text", full_text)
    else:
        monkeypatch.setattr(where, full)
    with pytest.raises(OutputError, match="No space left"):
        again()
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / "out").iterdir()] == (["bundle"] if existing else [])
    if before is not None:
        assert read(tmp_path / "out" / "bundle") == before


def test_a_full_disk_while_packing_leaves_the_folder_alone(
    again: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OutputError, match="No space left"):
        again(archive=True)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["bundle"]
    assert read(tmp_path / "out" / "bundle")


KILLED = """
import os, pickle, signal, sys
from types import SimpleNamespace
import yoloquant.bundle.writer as module
import yoloquant.io as writing
exported, folder, place = pickle.load(open(sys.argv[1], "rb"))
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(*{"manifest": (module, "_manifest", die), "rename": (writing, "_replace", die)}[place])
artifact = SimpleNamespace(info=exported.info, metadata=lambda: {"model": "demo.pt"})
module.write(artifact, exported, device="onnx", folder=folder, options=module.BundleOptions(golden_images=1))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes cannot be killed outright on this system")
@pytest.mark.parametrize("place", ["manifest", "rename"])
def test_a_killed_export_leaves_the_older_bundle(
    again: Callable[..., Bundle], colours: ExportedModel, tmp_path: Path, place: str
) -> None:
    import pickle

    before = again()
    arguments = tmp_path / "arguments"
    arguments.write_bytes(pickle.dumps((colours, before.path, place)))
    done = subprocess.run([sys.executable, "-c", KILLED, str(arguments)], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert read(before.path) == before.manifest
    assert again().manifest == before.manifest


@pytest.mark.parametrize(
    ("device", "message"),
    [("intel", "holds a model of target 'openvino', got one of 'onnxruntime'"), ("toaster", "no bundle for 'toaster'")],
)
def test_other_devices_are_refused(colours: ExportedModel, tmp_path: Path, device: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write(ARTIFACT, colours, device=device, folder=tmp_path / "x")


def test_other_tasks_and_missing_models_are_refused(colours: ExportedModel, tmp_path: Path) -> None:
    pose = replace(colours, info=replace(colours.info, task=Task.POSE))
    with pytest.raises(DataError, match="pose model without kpt_shape"):
        write(ARTIFACT, pose, device="onnx", folder=tmp_path / "x")
    gone = replace(colours, path=tmp_path / "gone.onnx")
    with pytest.raises(ArtifactError, match="does not exist"):
        write(ARTIFACT, gone, device="onnx", folder=tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, 17, -1])
def test_number_of_golden_inputs_is_limited(count: int) -> None:
    with pytest.raises(UsageError, match="1 to 16"):
        BundleOptions(golden_images=count)


def test_data_that_do_not_exist_are_refused(again: Callable[..., Bundle], tmp_path: Path) -> None:
    with pytest.raises(DataError):
        again(data=tmp_path / "nothing.yaml")
    assert not list((tmp_path / "out").iterdir())


def report_of(target: str, accuracy: Any, colours: ExportedModel) -> Any:
    from yoloquant.evaluation.results import TargetResult, ValidationResult
    from yoloquant.types import Verdict

    digest = content_sha256(colours.path)
    row = TargetResult(target, "x.onnx", "portable", Verdict.PASS, accuracy=accuracy, sha256=digest)
    base = replace(row, target="fp32")
    environment = {"data_sha256": "ab" * 32}
    return ValidationResult(Verdict.PASS, base, (row,), ("a",), 5, 9, colours.info.imgsz, "default", environment)


def test_a_reports_accuracy_is_what_devices_are_held_to(
    again: Callable[..., Bundle], tmp_path: Path, colours: ExportedModel
) -> None:
    from yoloquant.evaluation.results import Accuracy
    from yoloquant.report import to_json

    report = report_of(colours.name, Accuracy(0.4321, 0.6), colours)
    path = tmp_path / "report.json"
    path.write_text(to_json(report), encoding="utf-8")
    for given in (report, path):
        made = again(report=given)
        accuracy = made.manifest.accuracy
        assert accuracy is not None
        assert (accuracy.metrics["map50_95"], accuracy.images, accuracy.labels, accuracy.source) == (
            0.4321,
            5,
            9,
            "report",
        )
        assert accuracy.data_sha256 == "ab" * 32
        assert json.loads((made.path / "report.json").read_text()) == json.loads(path.read_text())
        assert "mAP50-95 0.4321" in (made.path / "README.md").read_text()
    assert again(report=report_of(colours.name, None, colours)).manifest.accuracy is None
    with pytest.raises(UsageError, match="has no target 'onnxruntime:fp32'; it has litert"):
        again(report=report_of("litert", None, colours))
    with pytest.raises(ArtifactError, match="cannot be read"):
        again(report=tmp_path / "no.json")


def test_the_matched_confidence_of_a_report_is_stated(again: Callable[..., Bundle], colours: ExportedModel) -> None:
    from yoloquant.evaluation.results import Comparison, Interval
    from yoloquant.runtime.apps.running import BundleOpener, Running

    report = report_of(colours.name, None, colours)
    first, *others = colours.info.names
    same = Interval(1.0, 1.0, 1.0)
    comparison = Comparison(
        map_drop=None,
        map50_drop=None,
        fidelity=same,
        fidelity_per_class={},
        fidelity_per_size={},
        per_class_drop={},
        per_size_drop={},
        confidence_shift=0.0,
        box_iou=1.0,
        matched=9,
        matched_conf=Interval(0.21, 0.2, 0.22),
        matched_conf_per_class={first: 0.19},
    )
    (row,) = report.targets
    names = colours.info.names
    report = replace(report, names=names, targets=(replace(row, comparison=comparison),))
    network = BundleOpener(str(again(report=report).path), Running()).network()
    assert network.matched_conf == 0.21 and network.matched_per_class == (0.19, *[0.21] * len(others))
    assert BundleOpener(str(again().path), Running()).network().matched_conf is None


def test_the_matched_confidence_that_validation_noted_is_found_by_the_same_bytes(
    colours: ExportedModel, tmp_path: Path
) -> None:
    """``run`` and ``validate`` write it beside their exports, and a bundle is exported anew."""
    from yoloquant.bundle.matched import noted_beside
    from yoloquant.targets.exports import save_exports

    artifact: Any = SimpleNamespace(model=SimpleNamespace(source=str(tmp_path / "colours_int8.pt")), stem="colours")
    assert noted_beside(artifact, colours) == {}
    for place, conf in ((tmp_path / "colours_exports", 0.3), (tmp_path, 0.2)):
        place.mkdir(exist_ok=True)
        copied = replace(colours, path=Path(shutil.copy(colours.path, place)))
        noted = {"matched_conf": conf, "matched_conf_per_class": [conf]}
        save_exports(place, (replace(copied, metadata={**copied.metadata, **noted, "model": "a.pt"}),))
        assert noted_beside(artifact, colours) == noted, "of the nearest folder"
    shutil.rmtree(tmp_path / "colours_exports")
    assert noted_beside(artifact, export_colours(tmp_path / "other.onnx", gain=0.5)) == {}, "another model's"
    copied.path.write_bytes(b"damaged")
    assert noted_beside(artifact, colours) == {}


def test_a_bundle_without_golden_inputs_proves_nothing(again: Callable[..., Bundle]) -> None:
    from yoloquant.runtime.apps.verify import VerifyResult, verify

    made = again()
    golden = {**made.manifest.golden, "images": []}
    (made.path / FILE_NAME).write_text(replace(made.manifest, golden=golden).signed().text(), encoding="utf-8")
    verification = verify(made.path)
    assert verification.result is VerifyResult.INCONCLUSIVE and verification.exit_code == 3
    assert [c.message for c in verification.checks if c.name.startswith("golden")] == [
        "the bundle holds no golden input, so nothing was compared; export it again"
    ] * 2


def test_a_model_of_other_classes_is_refused(colours: ExportedModel, tmp_path: Path) -> None:
    renamed = replace(colours, info=replace(colours.info, names=tuple(reversed(colours.info.names))))
    with pytest.raises(ArtifactError, match="other classes than the checkpoint"):
        write(ARTIFACT, renamed, device="onnx", folder=tmp_path / "x")


def test_a_report_of_something_else_is_refused(again: Callable[..., Bundle], colours: ExportedModel) -> None:
    from yoloquant.types import Verdict

    report = report_of(colours.name, None, colours)
    (row,) = report.targets
    wrong = {
        "of another artifact": replace(report, targets=(replace(row, sha256="0" * 64),)),
        "is of input size": replace(report, imgsz=(32, 32)),
        "is inconclusive": replace(report, targets=(replace(row, verdict=Verdict.INCONCLUSIVE),)),
        "is fail": replace(report, targets=(replace(row, verdict=Verdict.FAIL),)),
    }
    for message, given in wrong.items():
        with pytest.raises(ArtifactError, match=message):
            again(report=given)


def test_a_coral_bundle_tells_what_runs_where_and_brings_the_compiled_form(
    colours: ExportedModel, tmp_path: Path
) -> None:
    from yoloquant import targets
    from yoloquant.targets.edgetpu.companions import OPERATORS
    from yoloquant.targets.edgetpu.compiler_log import parse_log
    from yoloquant.targets.edgetpu.report import EdgeTPUReport, Memory, OperatorVerdict, Place, Status

    verdicts = (
        OperatorVerdict(0, "CONV_2D", 3, "x", Status.MAPPED, Place.TPU, "", 7),
        OperatorVerdict(1, "BATCH_MATMUL", 1, "y", Status.FALLBACK, Place.CPU, "not among the documented ones"),
    )
    compiled = tmp_path / "x_edgetpu.tflite"
    compiled.write_bytes(b"compiled")
    check = EdgeTPUReport(verdicts, (1,), Memory(1, 1, 1)).to_dict()
    facts = {"compiled": "", "check": check, "compiler": None}
    exported = replace(colours, path=tmp_path / "x.tflite", metadata={"edgetpu": facts})
    for name in ("a", "b"):
        (tmp_path / name / "model").mkdir(parents=True)
    coral = targets.get("coral")
    alone = coral.add_companions(tmp_path / "a" / "model" / "x.tflite", ARTIFACT, exported)
    assert any("its partition ends at operator 1, BATCH_MATMUL: not among" in note for note in alone)
    listed = (tmp_path / "a" / OPERATORS).read_text()
    assert "CONV_2D" in listed and "not among the documented ones" in listed
    assert sorted(p.name for p in (tmp_path / "a").rglob("*") if p.is_file()) == [OPERATORS]

    ran = {**facts, "compiled": compiled.name, "compiler": parse_log("Edge TPU Compiler version 16.0").to_dict()}
    both = replace(exported, metadata={"edgetpu": ran})
    notes = coral.add_companions(tmp_path / "b" / "model" / "x.tflite", ARTIFACT, both)
    assert (tmp_path / "b" / "model" / compiled.name).read_bytes() == b"compiled"
    assert len(notes) > len(alone) and notes[-1] in (tmp_path / "b" / OPERATORS).read_text()


def test_make_refuses_before_it_works(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        make(SimpleNamespace(stem="x"), devices="toaster", folder=tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
