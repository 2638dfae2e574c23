"""Accuracy on a device is the number that validation gives on the machine that exports."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from core_fakes import FakeBackend

from yoloquant.bridge.checkpoint import load_model
from yoloquant.data import demo
from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.graph.traced_model import TracedModel
from yoloquant.io import resource
from yoloquant.quantization.artifact import Artifact
from yoloquant.runtime.apps.accuracy import find_images, label_path, measure, of_model
from yoloquant.runtime.backends import BackendOptions, open_backend
from yoloquant.runtime.core.detector import Detector
from yoloquant.runtime.errors import DataError
from yoloquant.runtime.io.images import read_image
from yoloquant.runtime.tasks.base import Labels
from yoloquant.targets import get

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The yaml of a few drawn scenes, some without objects of a class."""
    return Path(demo.generator().write_demo_set(tmp_path_factory.mktemp("demo") / "set", train=1, val=12, imgsz=160))


@pytest.mark.slow
def test_equals_validation(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    host = load_model(resource("datasets", "demo.pt"))
    target = get("onnxruntime")
    exported = target.export_float(Artifact(TracedModel.of(host, (160, 160)), {}), tmp_path, "demo")
    runner = target.load(exported, threads=1)
    evaluation = evaluate({"fp32": runner}, ValidationSet.from_yaml(data), EvaluateOptions(warmup=0))
    wanted = Comparer(evaluation, BootstrapOptions(replicates=2)).accuracy("fp32")
    backend = open_backend("onnxruntime", exported.path, exported.info, BackendOptions(threads=1))
    seen: list[tuple[int, int]] = []
    found = measure(Detector(backend), data, progress=lambda done, total: seen.append((done, total)))
    assert wanted is not None and 0.1 < wanted.map50_95 < 0.999
    assert found.metrics["map50_95"] == pytest.approx(wanted.map50_95, abs=1e-6)
    assert found.metrics["map50"] == pytest.approx(wanted.map50, abs=1e-6)
    assert found.images == 12 and seen == [(i, 12) for i in range(1, 13)]
    assert measure(Detector(backend), data.parent) == found
    assert measure(Detector(backend), data, limit=3).images == 3


def write(folder: Path, *names: str) -> Path:
    """Images with one box each."""
    for name in names:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        import cv2

        cv2.imwrite(str(path), IMAGE)
        label = label_path(path)
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    return folder


def test_classes_of_a_yaml_in_another_order_are_mapped_by_name(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(3)]
    labels = [Labels(np.array([0, 2]), np.zeros((2, 4))), Labels(np.zeros(0, np.int64), np.zeros((0, 4)))]
    file = tmp_path / "data.yaml"
    for text, wanted in (
        (f"names: {names}", [0, 2]),
        (f"names: {names[::-1]}", [2, 0]),
        (f"names: {{0: {names[1]}, 1: {names[2]}, 2: {names[0]}}}", [1, 0]),
        ("val: images", [0, 2]),
    ):
        file.write_text(text)
        first, second = of_model(labels, file, tuple(names))
        assert first.classes.tolist() == wanted and not len(second.classes)
    assert of_model(labels, tmp_path, tuple(names)) == labels
    file.write_text("names: [class 0, class 1, zebra]")
    with pytest.raises(DataError, match="other classes than the model: class 2 is 'zebra'"):
        of_model(labels, file, tuple(names))


def test_images_of_a_folder(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", "b.png", "sub/a.jpg")
    (plain / "images" / "notes.md").write_text("no image")
    assert [p.name for p in find_images(plain)] == ["b.png", "a.jpg"]
    splits = write(tmp_path / "splits", "train2017/a.png", "val2017/b.png")
    assert [p.name for p in find_images(splits)] == ["b.png"]
    write(tmp_path / "splits", "val/c.png")
    with pytest.raises(DataError, match="several splits for validation, val, val2017"):
        find_images(tmp_path / "splits")


def test_images_of_a_yaml(tmp_path: Path) -> None:
    write(tmp_path, "val/b.png", "val/a.png", "more/c.png")
    file = tmp_path / "data.yaml"
    file.write_text("path: .\nval: [images/val, images/more]\nnames: [cat]\n")
    assert [p.name for p in find_images(file)] == ["c.png", "a.png", "b.png"]
    (tmp_path / "list.txt").write_text("./images/val/a.png\n\n")
    file.write_text(f"path: {tmp_path}\nval: list.txt\n")
    assert [p.name for p in find_images(file)] == ["a.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("val: nowhere\n", "does not exist"), ("train: x\n", "no split 'val'"), ("- 1\n", "keys"), ("a: [", "cannot be")],
)
def test_bad_yamls_are_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        find_images(file)


def test_a_yaml_needs_pyyaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "data.yaml").write_text("val: images\n")
    with pytest.raises(DataError, match=r"PyYAML.*name the data set's folder"):
        find_images(tmp_path / "data.yaml")


def test_empty_and_unlabelled_folders_are_refused(tmp_path: Path) -> None:
    detector = Detector(FakeBackend())
    with pytest.raises(DataError, match="not a folder"):
        measure(detector, tmp_path / "absent")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        measure(detector, tmp_path)
    label_path(find_images(write(tmp_path, "a.png"))[0]).unlink()
    with pytest.raises(DataError, match="no labels"):
        measure(detector, tmp_path)


def test_broken_images_and_labels_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    (tmp_path / "labels" / "a.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match=r"a\.txt:1: class 7 is out of range"):
        measure(Detector(FakeBackend()), tmp_path)
    for content in (b"", b"not an image"):
        (tmp_path / "images" / "a.png").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
            read_image(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path / "absent.png")


def test_labels_lie_where_ultralytics_looks_for_them(tmp_path: Path) -> None:
    from ultralytics.data.utils import img2label_paths

    for name in ("images/a.jpg", "images/images/b.c.png", "x/images/val/d.png"):
        path = tmp_path / name
        assert label_path(path) == Path(img2label_paths([str(path)])[0])
