"""Files of predictions: what is read, what is refused, and that the sentence names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from validation_fakes import NAMES, FakeRunner, decoded, label_rows, write_dataset

from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import DataError, UsageError
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.predictions.categories import COCO91, ClassIds, class_table
from yoloquant.predictions.read import ReadingOptions, read_predictions
from yoloquant.runtime.core.detections import Detections
from yoloquant.runtime.core.letterbox import place
from yoloquant.types import ModelInfo, Task

SIZE, IMGSZ = (48, 64), (64, 64)
INFO = ModelInfo(Task.DETECT, NAMES, IMGSZ)
Entries = list[dict[str, Any]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ValidationSet:
    return ValidationSet.from_yaml(write_dataset(tmp_path_factory.mktemp("set"), count=12))


def rows(data: ValidationSet) -> list[np.ndarray]:
    """Detections in input pixels, some of them a little off."""
    where = place(SIZE, IMGSZ)
    found = label_rows([(i.classes, where.to_input(i.boxes)) for i in data.images])
    rng = np.random.default_rng(0)
    for each in found:
        each[:, :4] += rng.uniform(-1, 1, (len(each), 4))
        each[:, 4] = rng.uniform(0.005, 0.95, len(each))
    return found


def originals(data: ValidationSet) -> list[Detections]:
    where, found = place(SIZE, IMGSZ), []
    for each in rows(data):
        kept = each[np.argsort(-each[:, 4])]
        found.append(Detections(where.to_original(kept[:, :4]), kept[:, 4], kept[:, 5].astype(int)))
    return found


def coco(data: ValidationSet, first: int = 1) -> Entries:
    return [
        {
            "image_id": int(image.path.stem),
            "category_id": int(kind) + first,
            "bbox": [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])],
            "score": float(score),
        }
        for image, found in zip(data.images, originals(data), strict=True)
        for b, score, kind in zip(found.xyxy, found.confidence, found.class_id, strict=True)
    ]


def lines(data: ValidationSet) -> list[dict[str, Any]]:
    return [
        {
            "file": image.path.name,
            "xyxy": found.xyxy.tolist(),
            "confidence": found.confidence.tolist(),
            "class_id": found.class_id.tolist(),
            "names": [NAMES[k] for k in found.class_id],
        }
        for image, found in zip(data.images, originals(data), strict=True)
    ]


def write(path: Path, content: Any) -> Path:
    text = json.dumps(content) if path.suffix == ".json" else "\n".join(map(json.dumps, content))
    path.write_text(text)
    return path


def raw(data: ValidationSet, path: Path, **further: Any) -> Path:
    outputs = {f"{i.path.name}#0": decoded(r) for i, r in zip(data.images, rows(data), strict=True)}
    np.savez(path, layout="decoded", imgsz=np.array(IMGSZ), **{"letterbox": "ultralytics", **further}, **outputs)
    return path


def read(path: Path, data: ValidationSet, scored: int = 12, **options: Any) -> Any:
    return read_predictions(path, data, scored, INFO, ReadingOptions(**options))


@pytest.mark.parametrize("kind", ["one.json", "zero.json", "found.jsonl", "raw.npz"])
def test_every_form_gives_the_figures_of_the_model_itself(tmp_path: Path, data: ValidationSet, kind: str) -> None:
    makers: dict[str, Callable[[Path], Path]] = {
        "one.json": lambda path: write(path, coco(data)),
        "zero.json": lambda path: write(path, coco(data, first=0)),
        "found.jsonl": lambda path: write(path, [*lines(data), {"summary": {}}]),
        "raw.npz": lambda path: raw(data, path),
    }
    file = read(makers[kind](tmp_path / kind), data)
    runners = {"fp32": FakeRunner(label_rows(_exact(data))), "direct": FakeRunner(rows(data))}
    evaluation = evaluate(runners, data, EvaluateOptions(warmup=0), recorded={"file": file.model})
    comparer = Comparer(evaluation, BootstrapOptions(replicates=100))
    direct, recorded = comparer.compare("direct").comparison, comparer.compare("file").comparison
    ours, theirs = comparer.accuracy("direct"), comparer.accuracy("file")
    assert ours is not None and theirs is not None
    assert 0.1 < ours.map50_95 < 0.9, "the case must be able to tell"
    assert theirs.map50_95 == pytest.approx(ours.map50_95, abs=1e-3)
    assert recorded.fidelity.value == pytest.approx(direct.fidelity.value, abs=1e-3)
    assert recorded.map_drop is not None and direct.map_drop is not None
    assert recorded.map_drop.low == pytest.approx(direct.map_drop.low, abs=1e-3)


def _exact(data: ValidationSet) -> list[tuple[np.ndarray, np.ndarray]]:
    where = place(SIZE, IMGSZ)
    return [(i.classes, where.to_input(i.boxes)) for i in data.images]


@pytest.mark.parametrize("fit", ["topleft", "stretch", "numbers"])
def test_other_ways_into_the_input_are_undone(tmp_path: Path, data: ValidationSet, fit: str) -> None:
    scale = {"topleft": (1.0, 1.0), "stretch": (1.0, 64 / 48), "numbers": (0.5, 0.5)}[fit]
    offset = (3.0, 5.0) if fit == "numbers" else (0.0, 0.0)
    outputs: dict[str, Any] = {} if fit == "numbers" else {"letterbox": fit}
    for image, found in zip(data.images, originals(data), strict=True):
        moved = found.xyxy * np.array([*scale, *scale]) + np.array([*offset, *offset])
        table = np.concatenate([moved, found.confidence[:, None], found.class_id[:, None]], axis=1)
        outputs[f"{image.path.name}#0"] = decoded(table)
        if fit == "numbers":
            outputs[f"{image.path.name}#letterbox"] = np.array([*offset, *scale])
    path = tmp_path / "raw.npz"
    np.savez(path, layout="decoded", imgsz=np.array(IMGSZ), **outputs)
    model, where = read(path, data).model, place(SIZE, IMGSZ)
    for index, expected in enumerate(originals(data)):
        got = where.to_original(model.on(index, where).xyxy)
        assert got == pytest.approx(expected.xyxy, abs=0.01)


def _of(data: ValidationSet, change: Callable[[Entries], Any]) -> Any:
    entries = coco(data)
    changed = change(entries)
    return entries if changed is None else changed


def _each(key: str, value: Callable[[dict[str, Any]], Any]) -> Callable[[Entries], None]:
    def change(entries: Entries) -> None:
        for entry in entries:
            entry[key] = value(entry)

    return change


def _corners(entry: dict[str, Any]) -> list[float]:
    x, y, w, h = entry["bbox"]
    return [x, y, x + w, y + h]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_each("image_id", lambda e: e["image_id"] + 100), "images that the data do not hold (the first is '100'"),
        (_each("category_id", lambda e: 7), "hold category 7"),
        (_each("category_name", lambda e: "zebra"), "category 'zebra'"),
        (_each("bbox", lambda e: [v / 64 for v in e["bbox"]]), "look normalised"),
        (_each("bbox", _corners), "they look like x1, y1, x2, y2"),
        (_each("bbox", lambda e: [v * 10 for v in e["bbox"]]), "lie outside their images"),
        (_each("bbox", lambda e: [*e["bbox"][:2], -1, 5]), "negative width"),
        (_each("score", lambda e: e["score"] * 100), "apply the sigmoid, or divide percent by 100"),
        (_each("score", lambda e: "high"), "no number"),
        (_each("score", lambda e: float("nan")), "NaN"),
        (lambda entries: [e for e in entries if e["image_id"] > 3], "4 of 12 images have no prediction"),
        (lambda entries: {"results": entries}, "are no COCO results"),
        (lambda entries: [1, 2], "are no COCO results"),
        (lambda entries: [{"image_id": 1}], "lacks image_id, category_id"),
    ],
)
def test_wrong_coco_results_are_named(
    tmp_path: Path, data: ValidationSet, change: Callable[[Entries], Any], words: str
) -> None:
    path = write(tmp_path / "found.json", _of(data, change))
    with pytest.raises(DataError) as caught:
        read(path, data)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_missing_images_may_be_allowed_and_are_told(tmp_path: Path, data: ValidationSet) -> None:
    path = write(tmp_path / "found.json", [e for e in coco(data) if e["image_id"] > 3])
    file = read(path, data, allow_missing=True)
    assert any("4 of 12 images have no prediction" in note for note in file.notes)
    assert len(file.model.on(0, place(SIZE, IMGSZ))) == 0 < len(file.model.on(5, place(SIZE, IMGSZ)))
    few = write(tmp_path / "few.json", [e for e in coco(data) if e["image_id"]])
    assert any("1 of 12" in note for note in read(few, data).notes), "COCO results cannot say that nothing was found"
    exact = write(tmp_path / "few.jsonl", lines(data)[1:])
    with pytest.raises(DataError, match="1 of 12 images have no prediction"):
        read(exact, data)


def test_more_images_than_are_scored_are_no_mistake(tmp_path: Path, data: ValidationSet) -> None:
    assert len(read(write(tmp_path / "found.json", coco(data)), data, scored=5).model.found) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file": "other.png"}, "do not hold"),
        ({"file": ""}, "names no image"),
        ({"class_id": [9]}, "class 9, the model has 3"),
        ({"names": ["zebra"] * 3}, "is called 'zebra'"),
        ({"xyxy": [[0, 0, 1]]}, "needs xyxy"),
        ({"confidence": []}, "0 scores"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, data: ValidationSet, change: dict[str, Any], words: str) -> None:
    content = lines(data)
    content[2].update(change)
    with pytest.raises(DataError, match=words):
        read(write(tmp_path / "found.jsonl", content), data)


def test_lines_twice_or_broken(tmp_path: Path, data: ValidationSet) -> None:
    with pytest.raises(DataError, match="is there twice"):
        read(write(tmp_path / "a.jsonl", [*lines(data), lines(data)[0]]), data)
    (tmp_path / "b.jsonl").write_text('{"file": ')
    with pytest.raises(DataError, match="line 1 is no JSON"):
        read(tmp_path / "b.jsonl", data)


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ({"letterbox": "centre"}, "letterbox 'centre' is unknown; allowed are ultralytics"),
        ({"letterbox": np.zeros(3), "layout": "decoded"}, "is unknown"),
        ({"imgsz": np.array([64])}, "'imgsz' must be 2 numbers"),
        ({"layout": "boxes"}, "layout 'boxes' is unknown"),
        ({"other.png#0": np.zeros(3)}, "do not hold"),
    ],
)
def test_wrong_recordings_are_named(tmp_path: Path, data: ValidationSet, further: dict[str, Any], words: str) -> None:
    outputs = {f"{i.path.name}#0": decoded(r) for i, r in zip(data.images, rows(data), strict=True)}
    content = {"layout": "decoded", "imgsz": np.array(IMGSZ), "letterbox": "ultralytics", **outputs, **further}
    np.savez(tmp_path / "raw.npz", **content)
    with pytest.raises(DataError, match=words):
        read(tmp_path / "raw.npz", data)


def _decoded(change: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    def changed(rows: np.ndarray) -> Any:
        out = decoded(rows)
        replaced = change(out)
        return out if replaced is None else replaced

    return changed


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (_decoded(lambda out: out / np.array([64] * 4 + [1] * 3)[:, None]), r"look normalised .*input's width \(64\)"),
        (_decoded(lambda out: out * np.array([1] * 4 + [9] * 3)[:, None]), "apply the sigmoid, and dequantize"),
        (_decoded(lambda out: out[:, :6]), "outputs of another model, or of another layout than 'decoded'"),
        (_decoded(lambda out: out.transpose(0, 2, 1)), "outputs of another model"),
        (_decoded(lambda out: out * np.nan), "outputs of another model"),
    ],
)
def test_recordings_in_other_units_or_of_other_models_are_refused_before_any_work(
    tmp_path: Path, data: ValidationSet, output: Callable[[np.ndarray], Any], words: str
) -> None:
    outputs = {f"{i.path.name}#0": output(r) for i, r in zip(data.images, rows(data), strict=True)}
    path = tmp_path / "raw.npz"
    np.savez(path, layout="decoded", imgsz=np.array(IMGSZ), letterbox="ultralytics", **outputs)
    with pytest.raises(DataError, match=words) as caught:
        read(path, data)
    assert "\n" not in str(caught.value)


def test_a_recording_must_state_its_letterbox_and_is_never_unpickled(tmp_path: Path, data: ValidationSet) -> None:
    np.savez(tmp_path / "raw.npz", layout="decoded", imgsz=np.array(IMGSZ), **{"000.png#0": np.zeros((1, 7, 8))})
    with pytest.raises(DataError, match="do not say how images were brought to the input"):
        read(tmp_path / "raw.npz", data)
    np.savez(tmp_path / "p.npz", layout=np.array([{}], dtype=object), imgsz=np.array(IMGSZ), letterbox="stretch")
    with pytest.raises(DataError, match="'layout' is damaged"):
        read(tmp_path / "p.npz", data)


def test_whatever_bit_is_flipped_in_an_archive_it_is_named(tmp_path: Path, data: ValidationSet) -> None:
    """Compressed bytes that are none raise ``zlib.error``, a bit that says encrypted ``RuntimeError``."""
    path, images = tmp_path / "raw.npz", {f"{i.path.name}#0": np.zeros((1, 7, 8)) for i in data.images}
    np.savez_compressed(path, layout="decoded", imgsz=np.array(IMGSZ), letterbox="ultralytics", **images)
    content, refused = path.read_bytes(), set()
    for position in range(0, len(content), 5):
        changed = bytearray(content)
        changed[position] ^= 0x11
        path.write_bytes(changed)
        try:
            read(path, data)
        except DataError as exc:
            refused.add(type(exc.__cause__).__name__)
    assert {"BadZipFile", "error"} <= refused, refused  # zlib's is called just that


def test_unknown_kinds_and_missing_files(tmp_path: Path, data: ValidationSet) -> None:
    with pytest.raises(UsageError, match=r"allowed are \.json, \.jsonl, \.npz"):
        read(tmp_path / "found.csv", data)
    with pytest.raises(DataError, match="do not exist"):
        read(tmp_path / "found.json", data)


def test_confidences_that_were_cut_off_are_told(tmp_path: Path, data: ValidationSet) -> None:
    path = write(tmp_path / "found.json", [e for e in coco(data) if e["score"] > 0.25])
    notes = read(path, data, allow_missing=True).notes
    assert any("its drop is overstated" in note for note in notes)


def test_annotations_say_which_image_and_class_an_id_is(tmp_path: Path, data: ValidationSet) -> None:
    entries = coco(data)
    for entry in entries:
        entry["image_id"] += 500
        entry["category_id"] = 40 - entry["category_id"]
    annotations = {
        "images": [{"id": 500 + i, "file_name": f"val/{image.path.name}"} for i, image in enumerate(data.images)],
        "categories": [{"id": 40 - 1 - i, "name": name.upper()} for i, name in enumerate(NAMES)],
    }
    path = write(tmp_path / "found.json", entries)
    file = read(path, data, annotations=write(tmp_path / "instances.json", annotations))
    expected = originals(data)
    for index in range(12):
        assert file.model.found[index].class_id.tolist() == expected[index].class_id.tolist()


def test_numbers_of_classes() -> None:
    names = tuple(f"class {i}" for i in range(80))

    def table(*numbers: int, kind: ClassIds = ClassIds.AUTO) -> dict[int, int]:
        return class_table(np.array(numbers), names, kind, Path("f.json"))[0]

    assert table(0, 5)[5] == 5 and table(1, 5)[5] == 4 and table(1, 90)[90] == 79
    assert table(5, kind=ClassIds.COCO)[13] == 11 and COCO91[0] == 1 and len(COCO91) == 80
    with pytest.raises(DataError, match="category 12, which are no COCO"):
        table(12, kind=ClassIds.COCO)
