"""The embedded demo set: same pixels everywhere, right labels, safe on disk; and the checkpoint that ships with it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "datasets" / "demo.pt"


def _load(name: str) -> ModuleType:
    """Under a name of our own: a `datasets` package of somebody else may be installed."""
    if "yoloquant_datasets" not in sys.modules:
        folder = ROOT / "datasets"
        spec = importlib.util.spec_from_file_location(
            "yoloquant_datasets", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None and spec.loader is not None
        sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[spec.name])
    return importlib.import_module(f"yoloquant_datasets.{name}")


demo, scene_module, shapes = _load("demo"), _load("demo_scene"), _load("demo_shapes")


@pytest.fixture(scope="module")
def scenes() -> list:
    return [scene_module.draw_scene(0, "val", index) for index in range(48)]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.write_demo_set(tmp_path_factory.mktemp("demo") / "set", train=3, val=2, imgsz=96, seed=5)


def _digest(scene) -> str:
    return hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes()).hexdigest()


def _content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- scenes


@pytest.mark.skipif(
    tuple(int(part) for part in cv2.__version__.split(".")[:2]) < (4, 11),
    reason="OpenCV before 4.11 fills the borders of polygons differently",
)
def test_pixels_of_the_first_image_are_pinned() -> None:
    """Fails when the drawing changes (then raise GENERATOR_VERSION) or a platform draws differently."""
    image = scene_module.draw_scene(0, "val", 0).image
    assert (demo.GENERATOR_VERSION, hashlib.sha256(image.tobytes()).hexdigest()) == (
        1,
        "639be424be341130e734019c7dc3e2df2573e556a73abe88925717e9bcd8383d",
    )


def test_same_seed_same_scene(scenes) -> None:
    for index in (0, 7, 31):
        again = scene_module.draw_scene(0, "val", index)
        assert np.array_equal(again.image, scenes[index].image)
        assert np.array_equal(again.labels, scenes[index].labels)
        assert np.array_equal(again.owner, scenes[index].owner)


def test_seed_split_and_index_each_give_another_scene(scenes) -> None:
    others = [scene_module.draw_scene(1, "val", 0), scene_module.draw_scene(0, "train", 0)]
    assert len({_digest(scene) for scene in [*scenes, *others]}) == len(scenes) + 2


def test_global_random_state_is_neither_used_nor_changed() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first = _digest(scene_module.draw_scene(4, "train", 9, 64))
    assert np.array_equal(np.random.get_state()[1], before)
    np.random.seed(4)
    assert _digest(scene_module.draw_scene(4, "train", 9, 64)) == first


def test_labels_are_valid(scenes) -> None:
    for scene in scenes:
        classes, boxes = scene.labels[:, 0], scene.labels[:, 1:]
        assert len(scene.labels) >= 1
        assert np.all((classes >= 0) & (classes < len(shapes.CLASS_NAMES)) & (classes == np.round(classes)))
        assert np.all(boxes[:, 2:] * 320 >= 3)
        assert np.all(boxes[:, :2] - boxes[:, 2:] / 2 >= -1e-12)
        assert np.all(boxes[:, :2] + boxes[:, 2:] / 2 <= 1 + 1e-12)


def test_boxes_are_tight_around_the_visible_pixels(scenes) -> None:
    for scene in scenes:
        assert set(np.unique(scene.owner)) == {-1, *range(len(scene.labels))}
        for index, (_, cx, cy, w, h) in enumerate(scene.labels):
            ys, xs = np.nonzero(scene.owner == index)
            box = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]) * scene.owner.shape[0]
            np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1e-6)


def test_owner_map_agrees_with_the_pixels() -> None:
    """The map is only worth something if it says where the sprite's own pixels really are in the picture."""
    rng = np.random.RandomState(0)
    canvas = scene_module.Canvas(np.full((128, 128, 3), 90, np.uint8))
    sprite = scene_module.rasterise(rng, [(shapes.rect(-1, -1, 1, 1) * 20 + 20, (255.0, 0.0, 0.0))], (0.5, 0.5))
    assert canvas.paste(sprite, 30, 40, labelled=True, shadow=(3, 3, 0.5))
    blue = (canvas.pixels[:, :, 0] > 95) & (canvas.pixels[:, :, 1] == 0)
    assert np.array_equal(blue, canvas.owner == 0)
    assert np.count_nonzero(blue) == 41 * 41


def test_an_object_may_not_be_hidden_or_cut_off() -> None:
    rng = np.random.RandomState(0)
    canvas = scene_module.Canvas(np.zeros((128, 128, 3), np.uint8))
    sprite = scene_module.rasterise(rng, [(shapes.rect(-1, -1, 1, 1) * 20 + 20, (255.0, 255.0, 255.0))], (0.0, 0.0))
    options = {"labelled": True, "shadow": (0, 0, 0.0)}
    assert canvas.paste(sprite, 0, 0, **options)
    before = canvas.pixels.copy()
    assert not canvas.paste(sprite, 5, 5, **options)  # hides three quarters of the first
    assert not canvas.paste(sprite, 112, 20, **options)  # more than half outside
    assert not canvas.paste(sprite, 500, 500, **options)
    assert np.array_equal(canvas.pixels, before)
    assert canvas.paste(sprite, 20, 10, **options)
    assert canvas.visible[0] == 41 * 41 - 21 * 31


def test_classes_sizes_and_light_vary(scenes) -> None:
    labels = np.concatenate([scene.labels for scene in scenes])
    counts = Counter(labels[:, 0].astype(int))
    assert set(counts) == set(range(len(shapes.CLASS_NAMES)))
    assert min(counts.values()) > 0.08 * len(labels)
    area = labels[:, 3] * labels[:, 4] * 320**2
    for low, high in ((0, 32**2), (32**2, 96**2), (96**2, 320**2)):  # COCO's small, medium and large
        assert np.count_nonzero((area >= low) & (area < high)) > 0.05 * len(labels)
    brightness = [scene.image.mean() for scene in scenes]
    assert max(brightness) > 2 * min(brightness)


@pytest.mark.parametrize("name", ["cone", "mug", "bottle", "fish", "house", "ball"])
def test_each_class_is_drawn_with_variations(name: str) -> None:
    draw, _ = shapes.CLASSES[shapes.CLASS_NAMES.index(name)]
    rng = np.random.RandomState(1)
    drawings = [draw(rng) for _ in range(6)]
    assert len({parts[-1][1] for parts in drawings}) > 1 or len({len(parts) for parts in drawings}) > 1
    assert all(len(parts) >= 3 for parts in drawings)  # not a flat shape
    assert all(np.isfinite(points).all() and np.abs(points).max() < 1.5 for parts in drawings for points, _ in parts)


def test_rotated_boxes_hold_what_is_visible() -> None:
    whole = 0
    for index in range(8):
        scene = scene_module.draw_scene(0, "val", index, 96, turned=True)
        rows = scene_module.rotated_rows(scene)
        assert rows.shape == (len(scene.labels), 9) and np.array_equal(rows[:, 0], scene.labels[:, 0])
        assert rows[:, 1:].min() >= 0 and rows[:, 1:].max() <= 1
        for number, corners in enumerate(rows[:, 1:].reshape(-1, 4, 2) * scene.owner.shape[0]):
            if corners.min() <= 0 or corners.max() >= scene.owner.shape[0]:
                continue  # cut at the image's border
            whole += 1
            lines, columns = np.nonzero(scene.owner == number)
            outline = corners.astype(np.float32)
            centres = np.stack([columns, lines], axis=1) + 0.5
            inside = [cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in centres]
            assert min(inside) > -0.1, "every visible pixel's centre is in the box"
            width, height = np.ptp(columns) + 1, np.ptp(lines) + 1
            assert cv2.contourArea(outline) <= 1.02 * width * height, "no larger than the upright box"
    assert whole > 12


def test_turned_scenes_are_others(scenes) -> None:
    turned = scene_module.draw_scene(0, "val", 0, turned=True)
    assert not np.array_equal(turned.image, scenes[0].image)


# --- the set on disk


def test_layout_and_content(small_set: Path) -> None:
    folder = small_set.parent
    assert small_set.name == "demo.yaml"
    for split, count in (("train", 3), ("val", 2)):
        images = sorted((folder / "images" / split).iterdir())
        assert [p.stem for p in images] == [p.stem for p in sorted((folder / "labels" / split).glob("*.txt"))]
        assert len(images) == count
        for index, path in enumerate(images):
            scene = scene_module.draw_scene(5, split, index, 96)
            assert np.array_equal(cv2.imread(str(path)), scene.image)
            rows = np.loadtxt(folder / "labels" / split / f"{path.stem}.txt", ndmin=2)
            np.testing.assert_allclose(rows, scene.labels, atol=1e-6)


def test_a_set_of_rotated_boxes_is_read_as_one(small_set: Path, tmp_path: Path) -> None:
    from yoloquant.runtime.core.model_info import ModelInfo, Task
    from yoloquant.runtime.tasks import spec_of

    data = demo.write_demo_set(tmp_path / "set", train=1, val=1, imgsz=96, seed=5, rotated=True)
    label = next((data.parent / "labels" / "val").iterdir())
    info = ModelInfo(Task.OBB, shapes.CLASS_NAMES, (96, 96))
    labels = spec_of(Task.OBB).read_labels(label, info)
    assert len(labels.classes) == len(label.read_text().splitlines()) > 0
    assert demo.write_demo_set(data.parent, train=1, val=1, imgsz=96, seed=5).parent == data.parent
    assert len(label.read_text().split("\n")[0].split()) == 5, "the other kind of labels replaces it"


def test_a_longer_set_starts_with_the_shorter_one(small_set: Path, tmp_path: Path) -> None:
    longer = demo.write_demo_set(tmp_path / "set", train=3, val=4, imgsz=96, seed=5).parent
    for path in (small_set.parent / "images").rglob("*.png"):
        assert (longer / path.relative_to(small_set.parent)).read_bytes() == path.read_bytes()


def test_train_and_val_share_no_image(tmp_path: Path) -> None:
    folder = demo.write_demo_set(tmp_path / "set", train=40, val=40, imgsz=64).parent
    digests = [hashlib.sha256(cv2.imread(str(p)).tobytes()).hexdigest() for p in folder.rglob("*.png")]
    assert len(set(digests)) == len(digests) == 80


def test_an_existing_set_is_reused(small_set: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in small_set.parent.rglob("*")}
    (small_set.parent / "labels" / "train.cache").write_bytes(b"what Ultralytics leaves behind")
    assert demo.write_demo_set(small_set.parent, train=3, val=2, imgsz=96, seed=5) == small_set
    assert {p: p.stat().st_mtime_ns for p in before if p.is_file()} == {p: t for p, t in before.items() if p.is_file()}


def _remove_image(folder: Path) -> None:
    (folder / "images" / "train" / "train_00001.png").unlink()


def _truncate_image(folder: Path) -> None:
    path = folder / "images" / "val" / "val_00000.png"
    path.write_bytes(path.read_bytes()[:100])


def _remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2")


def _other_version(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 0}))


@pytest.mark.parametrize("damage", [_remove_image, _truncate_image, _remove_manifest, _break_manifest, _other_version])
def test_a_damaged_set_is_replaced(tmp_path: Path, damage) -> None:
    options = {"train": 2, "val": 1, "imgsz": 64}
    folder = demo.write_demo_set(tmp_path / "set", **options).parent
    sound = _content(folder)
    damage(folder)
    demo.write_demo_set(folder, **options)
    assert _content(folder) == sound
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_other_parameters_replace_the_set(tmp_path: Path) -> None:
    folder = demo.write_demo_set(tmp_path / "set", train=2, val=1, imgsz=64).parent
    demo.write_demo_set(folder, train=1, val=1, imgsz=96, seed=2)
    assert len(list(folder.rglob("*.png"))) == 2
    assert cv2.imread(str(folder / "images" / "train" / "train_00000.png")).shape == (96, 96, 3)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_run_leaves_the_old_set_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupt
) -> None:
    folder = demo.write_demo_set(tmp_path / "set", train=2, val=1, imgsz=64).parent
    sound = _content(folder)
    draw = scene_module.draw_scene

    def stop_at_the_second(seed: int, split: str, index: int, imgsz: int, **options: bool):
        if index == 1:
            raise interrupt
        return draw(seed, split, index, imgsz, **options)

    monkeypatch.setattr(demo, "draw_scene", stop_at_the_second)
    with pytest.raises((KeyboardInterrupt, OSError)):
        demo.write_demo_set(folder, train=3, val=1, imgsz=64)
    with pytest.raises((KeyboardInterrupt, OSError)):
        demo.write_demo_set(tmp_path / "new", train=3, val=1, imgsz=64)
    assert _content(folder) == sound
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    monkeypatch.undo()
    assert len(list(demo.write_demo_set(tmp_path / "new", train=3, val=1, imgsz=64).parent.rglob("*.png"))) == 4


def test_work_folders_of_killed_runs_are_removed_when_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".set-work-aaaa", tmp_path / ".set-work-bbbb"
    for leftover in (old, young):
        (leftover / "images").mkdir(parents=True)
    os.utime(old, (0, 0))
    demo.write_demo_set(tmp_path / "set", train=1, val=1, imgsz=64)
    assert not old.exists() and young.exists()


def test_a_folder_with_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="not a demo set"):
        demo.write_demo_set(tmp_path, train=1, val=1, imgsz=64)
    assert _content(tmp_path) == {"thesis.txt": b"years of work"}
    with pytest.raises(FileExistsError):
        demo.write_demo_set(tmp_path / "thesis.txt", train=1, val=1, imgsz=64)


def test_an_empty_folder_is_fine(tmp_path: Path) -> None:
    assert demo.write_demo_set(tmp_path / "a" / "b", train=1, val=1, imgsz=64).is_file()
    (tmp_path / "empty").mkdir()
    assert demo.write_demo_set(tmp_path / "empty", train=1, val=1, imgsz=64).is_file()


@pytest.mark.parametrize(
    "bad", [{"train": 0}, {"val": -1}, {"imgsz": 100}, {"imgsz": 32}, {"seed": -1}, {"seed": 2**32}, {"val": 10**6}]
)
def test_bad_parameters_are_refused_before_anything_is_written(tmp_path: Path, bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        demo.write_demo_set(tmp_path / "set", **bad)
    assert not list(tmp_path.iterdir())


def test_imports_only_numpy_opencv_and_the_standard_library() -> None:
    imported = set()
    for path in sorted((ROOT / "datasets").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1  # only siblings: the folder is packaged under another name
    assert imported - set(sys.stdlib_module_names) == {"cv2", "numpy"}


# --- the checkpoint


def test_checkpoint_is_small_enough_to_ship() -> None:
    assert 100_000 < CHECKPOINT.stat().st_size <= 3_000_000


def test_checkpoint_names_no_machine_path() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("ultralytics")
    checkpoint = torch.load(CHECKPOINT, map_location="cpu", weights_only=False)
    assert "git" not in checkpoint
    told = [str(v) for v in (*checkpoint["train_args"].values(), *checkpoint["model"].args.values())]
    assert not [text for text in told if Path(text).is_absolute()]
    raw = CHECKPOINT.read_bytes()
    assert not [root for root in (b"/root/", b"/home/", b"/tmp/", b"/work/", b"/Users/") if root in raw]
    assert checkpoint["model"].yaml["yaml_file"] == "yolo11-demo.yaml"
    assert checkpoint["model"].names == dict(enumerate(shapes.CLASS_NAMES))


def test_the_checkpoint_of_rotated_boxes_is_small_and_names_no_machine_path() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("ultralytics")
    path = CHECKPOINT.with_name("demo-obb.pt")
    assert 100_000 < path.stat().st_size <= 3_000_000
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    told = [str(v) for v in (*checkpoint["train_args"].values(), *checkpoint["model"].args.values())]
    assert "git" not in checkpoint and not [text for text in told if Path(text).is_absolute()]
    raw = path.read_bytes()
    assert not [root for root in (b"/root/", b"/home/", b"/tmp/", b"/work/", b"/Users/") if root in raw]
    assert checkpoint["train_args"]["task"] == "obb" and checkpoint["model"].names == dict(
        enumerate(shapes.CLASS_NAMES)
    )


@pytest.mark.slow
def test_checkpoint_knows_the_demo_set(tmp_path: Path) -> None:
    ultralytics = pytest.importorskip("ultralytics")
    data = demo.write_demo_set(tmp_path / "set", train=1, val=48)
    metrics = ultralytics.YOLO(CHECKPOINT).val(
        data=str(data), imgsz=320, batch=8, device="cpu", workers=0, plots=False, project=str(tmp_path), verbose=False
    )
    assert metrics.box.map > 0.5
    assert min(metrics.box.maps) > 0.3
