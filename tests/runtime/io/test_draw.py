from __future__ import annotations

import numpy as np
import pytest

from yoloquant.runtime.core.detections import Detections
from yoloquant.runtime.io.draw import Painter, Rate, colour_of, line_width, paste


def found(boxes: list[list[float]], classes: list[int]) -> Detections:
    scores = np.linspace(0.9, 0.3, len(boxes), dtype=np.float32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, np.array(classes, np.int64))


def test_a_box_is_drawn_at_its_place_in_its_class_colour_with_a_label_above() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    Painter(["cat", "dog"], 2).boxes(image, found([[100.2, 80.6, 180, 150]], [1]))
    assert tuple(image[100, 100]) == tuple(image[150, 140]) == colour_of(1)
    assert not image[100:140, 110:170].any(), "the inside stays as it was"
    assert image[75, 101:140].any() and not image[:50].any()


def test_a_label_at_the_upper_edge_goes_inside() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    Painter(["cat"], 2).boxes(image, found([[10, 2, 90, 90]], [0]))
    assert (image[5:9, 12:40] != 0).any()


@pytest.mark.parametrize("box", [[-50, -50, 20, 20], [90, 90, 500, 500], [200, 200, 300, 300], [5, 5, 5, 5]])
def test_boxes_that_leave_the_picture_do_no_harm(box: list[float]) -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    Painter(["cat"]).boxes(image, found([box], [0]))
    assert image.shape == (100, 100, 3)


def test_nothing_found_changes_nothing() -> None:
    image = np.full((50, 50, 3), 7, np.uint8)
    Painter(["cat"]).boxes(image, found([], []))
    assert (image == 7).all()


def test_the_strongest_box_lies_on_top() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    Painter(["a", "b"], 2).boxes(image, found([[20, 40, 80, 80], [20, 40, 80, 80]], [0, 1]))
    assert tuple(image[60, 20]) == colour_of(0)


def test_a_class_without_a_name_is_drawn_by_its_number() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    Painter([], 2).boxes(image, found([[20, 40, 180, 80]], [7]))
    assert image.any()


def test_a_label_drawn_again_is_the_same() -> None:
    painter, boxes = Painter(["cat"]), found([[10, 40, 90, 90]], [0])
    first, second = np.zeros((100, 100, 3), np.uint8), np.zeros((100, 100, 3), np.uint8)
    painter.boxes(first, boxes)
    painter.boxes(second, boxes)
    assert np.array_equal(first, second) and len(painter._labels) == 1


def test_lines_of_text_are_below_each_other() -> None:
    one, two = np.zeros((100, 300, 3), np.uint8), np.zeros((100, 300, 3), np.uint8)
    Painter([]).text(one, ["10 FPS"])
    Painter([]).text(two, ["10 FPS", "20 ms"])
    height = int(np.flatnonzero(one.any(axis=(1, 2)))[-1])
    assert np.array_equal(one[: height + 1], two[: height + 1]) and two[height + 3 :].any()


def test_pasting_cuts_off_what_lies_outside() -> None:
    image, picture = np.zeros((4, 4, 3), np.uint8), np.full((3, 3, 3), 9, np.uint8)
    paste(image, picture, -1, 2)
    assert image[2:, :2].all() and int(np.count_nonzero(image[..., 0])) == 4
    paste(image, picture, 4, 4)
    paste(image, picture, -3, 0)
    assert int(np.count_nonzero(image[..., 0])) == 4


def test_neighbouring_classes_have_distinct_colours() -> None:
    colours = {colour_of(i) for i in range(80)}
    assert len(colours) == 80


def test_line_width_grows_with_the_picture() -> None:
    assert line_width(np.zeros((64, 64, 3))) == 2 < line_width(np.zeros((2160, 3840, 3)))


def test_the_rate_covers_the_last_seconds_only() -> None:
    rate = Rate()
    assert rate.tick(0.0) == 0.0
    for step in range(1, 50):
        slow = rate.tick(step * 0.5)
    assert slow == pytest.approx(2.0)
    for step in range(1, 100):
        fast = rate.tick(24.5 + step * 0.05)
    assert fast == pytest.approx(20.0)
