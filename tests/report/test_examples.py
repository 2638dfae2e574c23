"""Example images: scaling, matching, and files that are absent or broken."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from yoloquant.evaluation.results import Example, ValidationResult
from yoloquant.report.examples import IMAGES, SIDE, _iou, _match, photos
from yoloquant.report.page import to_html


def test_panels_share_one_image_and_count_changes(result: ValidationResult) -> None:
    photo, gone = photos(result)
    assert [panel.title for panel in photo.panels] == ["fp32 (baseline)", "openvino", "litert"]
    assert [panel.caption for panel in photo.panels] == [
        "2 detections",
        "2 detections, 0 lost, 0 new",
        "2 detections, 1 lost, 1 new",
    ]
    assert [box.state for box in photo.panels[2].boxes] == ["same", "new", "lost"]
    assert gone.uri == "" and "no longer there" in gone.note


def test_boxes_follow_the_embedded_image(result: ValidationResult) -> None:
    photo = photos(result)[0]
    data = base64.b64decode(photo.uri.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (photo.width, photo.height) == (SIDE, 480)
    box = photo.panels[0].boxes[0]
    assert (box.x, box.y, box.width, box.height) == pytest.approx((66.7, 133.3, 200.0, 266.7))
    assert box.label == "person 0.91"


def test_exif_rotation_is_applied(result: ValidationResult, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (80, 40)).save(path, exif=exif)
    photo = photos(replace(result, examples=(Example(str(path), "x", (), ()),)))[0]
    assert (photo.width, photo.height) == (40, 80)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0" + b"\0" * 64])
def test_unreadable_files_leave_a_note(result: ValidationResult, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    photo = photos(replace(result, examples=(Example(str(path), "x", (), ()),)))[0]
    assert photo.uri == "" and "cannot be read" in photo.note


def test_truncated_file_and_folder(result: ValidationResult, image: Path) -> None:
    half = image.with_name("half.jpg")
    half.write_bytes(image.read_bytes()[:2000])
    examples = (Example(str(half), "x", (), ()), Example(str(image.parent), "x", (), ()))
    assert all(photo.note for photo in photos(replace(result, examples=examples)))


def test_number_of_images_is_bounded(result: ValidationResult, image: Path) -> None:
    many = tuple(Example(f"{image}{i}", "x", (), ()) for i in range(IMAGES + 5))
    assert len(photos(replace(result, examples=many))) == IMAGES


def test_odd_rows_are_not_drawn(result: ValidationResult, image: Path) -> None:
    nan = float("nan")
    rows = ((0.0, 0.0, nan, 9.0, 0.9, 0.0), (9.0, 9.0, 1.0, 1.0, 0.9, 0.0), (1.0,), (0.0, 0.0, 9.0, 9.0, 0.9, 999.0))
    photo = photos(replace(result, examples=(Example(str(image), "x", rows, ()),)))[0]
    assert [box.label for box in photo.panels[0].boxes] == ["class 999 0.90"]


def test_outlines_follow_their_detections(result: ValidationResult, image: Path) -> None:
    """Masks, limbs and rotated boxes: by falling confidence as the boxes, scaled with them, lost ones too."""
    square = ((10.0, 20.0), (110.0, 20.0), (110.0, 120.0))
    weak, strong = (0.0, 0.0, 50.0, 50.0, 0.3, 0.0), (10.0, 20.0, 110.0, 120.0, 0.9, 1.0)
    nan = (float("nan"), 1.0)
    example = Example(str(image), "x", (weak, strong), (strong,), ((), (square,)), (((*square, nan),),))
    photo = photos(replace(result, examples=(example,)))[0]
    scale = SIDE / max(Image.open(image).size)
    points = " ".join(f"{x * scale:.1f},{y * scale:.1f}" for x, y in square)
    assert [box.lines for box in photo.panels[0].boxes] == [(points,), ()]
    assert [(box.state, box.lines) for box in photo.panels[1].boxes] == [("same", (points,)), ("lost", ())]
    assert f'<polyline points="{points}"' in to_html(replace(result, examples=(example,)))


def test_a_classifiers_results_are_in_the_caption(result: ValidationResult, image: Path) -> None:
    example = Example(str(image), "x", ((0.0, 0.0, 0.0, 0.0, 0.8, 0.0),), ((0.0, 0.0, 0.0, 0.0, 0.6, 999.0),))
    panels = photos(replace(result, examples=(example,)))[0].panels
    assert [panel.caption for panel in panels] == ["person 0.80", "class 999 0.60"]
    assert not any(panel.boxes for panel in panels)


sides = st.floats(0, 100)
rows = st.tuples(sides, sides, sides, sides, st.just(0.9), st.integers(0, 2).map(float)).map(
    lambda r: (r[0], r[1], r[0] + r[2] + 1, r[1] + r[3] + 1, r[4], r[5])
)


@given(st.lists(rows, max_size=8), st.lists(rows, max_size=8))
def test_matching_is_one_to_one_same_class_and_overlapping(
    base: list[tuple[float, ...]], own: list[tuple[float, ...]]
) -> None:
    pairs = _match(base, own)
    assert len(set(pairs.values())) == len(pairs)
    for i, j in pairs.items():
        assert base[i][5] == own[j][5]
        assert _iou(base[i], own[j]) >= 0.5
    assert len(_match(base, base)) == len(base)
