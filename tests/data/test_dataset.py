"""Data sets open as in Ultralytics, and bad ones are refused with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from validation_fakes import write_dataset

from yoloquant.data.dataset import ValidationSet
from yoloquant.data.manifest import ManifestImage, SubsetManifest
from yoloquant.errors import DataError
from yoloquant.runtime.core.folder_check import file_sha256


def _write_manifest(yaml: Path, target: Path) -> dict[str, object]:
    data = ValidationSet.from_yaml(yaml)
    images = tuple(
        ManifestImage(file=i.path.name, sha256=file_sha256(i.path), boxes=len(i.classes)) for i in data.images
    )
    content = SubsetManifest(name="test", images=images).model_dump(mode="json")
    target.write_text(json.dumps(content))
    return content


def test_equals_ultralytics(dataset: Path) -> None:
    from ultralytics.data import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    ours = ValidationSet.from_yaml(dataset)
    config = check_det_dataset(dataset, autodownload=False)
    theirs = YOLODataset(img_path=config["val"], augment=False, data=config)
    assert [str(i.path) for i in ours.images] == theirs.im_files
    assert ours.names == tuple(config["names"].values())
    for item, label in zip(ours.images, theirs.labels, strict=True):
        np.testing.assert_array_equal(item.classes, label["cls"].flatten())
        np.testing.assert_array_equal(item.boxes, label["bboxes"])
    assert ours.boxes == sum(len(label["cls"]) for label in theirs.labels) and ours.labelled


def test_hidden_files_are_left_out_and_linked_folders_entered_as_in_ultralytics(dataset: Path) -> None:
    from ultralytics.data import YOLODataset

    images = dataset.parent / "images" / "val"
    for hidden in (images / "._000.png", images / ".thumbnails" / "000.png"):
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_bytes(b"not an image")
    (images / "linked").symlink_to(dataset.parent / "images" / "train", target_is_directory=True)
    theirs = YOLODataset.get_img_files(SimpleNamespace(prefix="", fraction=1.0), str(images))
    ours = ValidationSet.from_folder(images)
    assert [str(i.path) for i in ours.images] == theirs
    assert len(ours) == 12


def test_splits_lists_and_text_files(dataset: Path) -> None:
    root = dataset.parent
    (root / "some.txt").write_text("./images/val/001.png\n./images/train/000.png\n")
    dataset.write_text(f"path: {root}\ntrain: images/train\nval: some.txt\ntest: [images/val, images/train]\nnc: 3\n")
    listed = ValidationSet.from_yaml(dataset)
    assert [i.path.name for i in listed.images] == ["000.png", "001.png"]
    assert listed.names == ("class_0", "class_1", "class_2")
    assert len(ValidationSet.from_yaml(dataset, split="test")) == 12
    assert len(ValidationSet.from_yaml(root, split="train")) == 6


def test_a_named_data_set_is_never_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("yoloquant.bridge.val.datasets_folder", lambda: tmp_path / "datasets")

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("ultralytics.utils.downloads.safe_download", forbidden)
    with pytest.raises(DataError, match=r"coco8.*does not exist; nothing is downloaded"):
        ValidationSet.from_yaml("coco8.yaml")
    with pytest.raises(DataError, match="is a URL"):
        ValidationSet.from_yaml("https://example.org/data.yaml")
    write_dataset(tmp_path / "datasets" / "coco8")
    assert len(ValidationSet.from_yaml("coco8.yaml")) == 6
    assert ValidationSet.from_yaml("coco8").names[:2] == ("person", "bicycle")


def test_hash_follows_content_only(tmp_path: Path) -> None:
    one = ValidationSet.from_yaml(write_dataset(tmp_path / "a"))
    other = ValidationSet.from_yaml(write_dataset(tmp_path / "b"))
    assert one.data_hash == other.data_hash
    label = tmp_path / "b" / "labels" / "val" / "000.txt"
    label.write_text("1 0.5 0.5 0.1 0.1\n")
    assert ValidationSet.from_yaml(tmp_path / "b" / "data.yaml").data_hash != one.data_hash
    assert one.take(2).data_hash != one.data_hash and len(one.take(2)) == 2


def test_unlabelled_folder(dataset: Path) -> None:
    data = ValidationSet.from_folder(dataset.parent / "images" / "val", ["a", "b"])
    assert len(data) == 6 and not data.labelled and data.boxes == 0 and data.names == ("a", "b")
    with pytest.raises(DataError, match="is not a folder"):
        ValidationSet.from_folder(dataset.parent / "nowhere")
    with pytest.raises(DataError, match="holds no images"):
        ValidationSet.from_folder(dataset.parent / "labels")


def test_labels_that_are_not_there_are_missed(dataset: Path) -> None:
    assert ValidationSet.from_yaml(dataset).require_labels().boxes > 0
    labels = dataset.parent / "labels" / "val"
    for path in labels.iterdir():
        path.write_text("")
    with pytest.raises(DataError, match=r"no labels in split 'val': 6 label files hold no box .*source=<folder"):
        ValidationSet.from_yaml(dataset).require_labels()
    labels.rename(labels.with_name("elsewhere"))
    with pytest.raises(DataError, match=r"not one label file \(looked for .*labels/val/000\.txt and 5 more\)"):
        ValidationSet.from_yaml(dataset).require_labels()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3 0.5 0.5 0.1 0.1", r"000\.txt:2: class 3 is out of range.*0 to 2"),
        ("-1 0.5 0.5 0.1 0.1", r"000\.txt:2: class -1"),
        ("0.5 0.5 0.5 0.1 0.1", r"000\.txt:2: class 0.5"),
        ("0 0.5 0.5 0.1", r"000\.txt:2: 4 columns"),
        ("0 0.5 0.5 0.1 1.5", r"000\.txt:2: coordinates"),
        ("0 320 240 10 10", r"000\.txt:2: coordinates"),
        ("0 nan 0.5 0.1 0.1", r"000\.txt:2: coordinates"),
        ("0 0.5 0.5 -0.005 0.1", r"000\.txt:2: negative"),
        ("cat 0.5 0.5 0.1 0.1", r"000\.txt:2: could not convert"),
    ],
)
def test_bad_labels_name_file_and_line(dataset: Path, line: str, message: str) -> None:
    (dataset.parent / "labels" / "val" / "000.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(DataError, match=message):
        ValidationSet.from_yaml(dataset)


def test_polygons_duplicates_and_missing_labels(dataset: Path) -> None:
    labels = dataset.parent / "labels" / "val"
    one, other = "1 0.1 0.2 0.5 0.2 0.5 0.6\n", "1 0.1 0.2 0.5 0.2 0.1 0.6\n"
    (labels / "000.txt").write_text(one)
    (labels / "001.txt").write_text("0 0.5 0.5 0.1 0.1\n\n0 0.5 0.5 0.1 0.1\n2 0.4 0.4 0.1 0.1\n")
    (labels / "002.txt").unlink()
    (labels / "003.txt").write_text("")
    images = ValidationSet.from_yaml(dataset).images
    np.testing.assert_allclose(images[0].boxes, [[0.3, 0.4, 0.4, 0.4]], atol=1e-6)
    assert [len(i.classes) for i in images[:4]] == [1, 2, 0, 0]
    (labels / "000.txt").write_text(one + other + one)  # polygons of one box are two objects, as for Ultralytics 8.4
    np.testing.assert_allclose(ValidationSet.from_yaml(dataset).images[0].boxes, [[0.3, 0.4, 0.4, 0.4]] * 2, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: a\n", r"names"),
        ("train: a\nval: b\nnames: {0: a, 2: b}\n", "every index from 0 to 1"),
        ("train: a\nval: b\nnames: {a: x}\n", "class indices"),
        ("train: a\nval: b\nnc: 3\nnames: [a, b]\n", "nc is 3"),
        ("train: images/train\nnames: [a, b, c]\n", "no split 'val'; it has train"),
        ("train: a\nval: nowhere\nnames: [a]\n", r"nowhere, which does not exist"),
        ("just text", "holds no keys"),
        ("a: [", "cannot be read"),
    ],
)
def test_bad_yaml(dataset: Path, text: str, message: str) -> None:
    dataset.write_text(text)
    with pytest.raises(DataError, match=message):
        ValidationSet.from_yaml(dataset)


def test_missing_yaml(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        ValidationSet.from_yaml(tmp_path / "none.yaml")
    with pytest.raises(DataError, match="0 yaml files"):
        ValidationSet.from_yaml(tmp_path)


def test_bad_images(dataset: Path) -> None:
    image = dataset.parent / "images" / "val" / "000.png"
    good = image.read_bytes()
    for content, message in (
        (b"", "is empty"),
        (b"not a picture", "unreadable"),
        (good[:40], "unreadable"),
        (good[: len(good) // 2], "unreadable"),
    ):
        image.write_bytes(content)
        with pytest.raises(DataError, match=rf"000\.png.*{message}"):
            ValidationSet.from_yaml(dataset)
    _tiny(image)
    with pytest.raises(DataError, match="shortest side"):
        ValidationSet.from_yaml(dataset)


def test_a_jpeg_cut_short_is_refused(dataset: Path) -> None:
    import cv2

    picture = np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    path = dataset.parent / "images" / "val" / "zzz.jpg"
    cv2.imwrite(str(path), picture)
    assert len(ValidationSet.from_yaml(dataset)) == 7
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"zzz\.jpg is corrupt"):
        ValidationSet.from_yaml(dataset)
    assert path.read_bytes() == whole[: len(whole) // 2]  # never repaired in place


def _tiny(path: Path) -> None:
    import cv2

    cv2.imwrite(str(path), np.zeros((5, 50, 3), dtype=np.uint8))


def test_manifest(dataset: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.json"
    content = _write_manifest(dataset, manifest)
    assert len(ValidationSet.from_yaml(dataset, manifest=manifest)) == 6
    # A yaml may name its manifest itself.
    dataset.write_text(dataset.read_text() + f"manifest: {manifest}\n")
    assert len(ValidationSet.from_yaml(dataset)) == 6
    label = dataset.parent / "labels" / "val" / "000.txt"
    before = label.read_text()
    label.write_text("")
    with pytest.raises(DataError, match=r"000\.png has 0 labelled boxes.*says 1"):
        ValidationSet.from_yaml(dataset)
    label.write_text(before)
    image = dataset.parent / "images" / "val" / "001.png"
    import cv2

    cv2.imwrite(str(image), cv2.imread(str(image)) // 2)
    with pytest.raises(DataError, match=r"001\.png differs from the image in manifest 'test'"):
        ValidationSet.from_yaml(dataset)
    image.unlink()
    with pytest.raises(DataError, match=r"1 missing \(001\.png\)"):
        ValidationSet.from_yaml(dataset)
    manifest.write_text(json.dumps({**content, "colour": 1}))
    with pytest.raises(DataError, match=r"colour.*allowed keys are format, name"):
        ValidationSet.from_yaml(dataset)
    for text in ("{", "[" * 100_000):
        manifest.write_text(text)
        with pytest.raises(DataError, match="no JSON"):
            ValidationSet.from_yaml(dataset)
    manifest.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        ValidationSet.from_yaml(dataset)
