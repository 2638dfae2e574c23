"""Drawing detections and a line of figures onto frames, in place."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..core.detections import Detections

if TYPE_CHECKING:
    Colour = tuple[int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PADDING = 3
_CACHED = 4096
_WINDOW_S = 2.0


def colour_of(index: int) -> Colour:
    """A colour (BGR) for a class: hues a golden angle apart, so that neighbours differ."""
    # OpenCV's hues go from 0 to 179; 67 of them are 134 degrees.
    hsv = np.array([[[index * 67 % 180, 200 - 60 * (index // 8 % 2), 255 - 50 * (index // 16 % 2)]]], np.uint8)
    blue, green, red = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return int(blue), int(green), int(red)


class Painter:
    """Draws results with class names and scores; a task says which of these it needs.

    A label is rendered once and then copied: text is by far the slowest thing to draw.

    Args:
        names: Class names, index by index.
        width: Line width in pixels; chosen by the size of the frame if 0.
    """

    def __init__(self, names: Sequence[str], width: int = 0) -> None:
        self._names, self._width = tuple(names), width
        self._labels: dict[tuple[int, int, int], np.ndarray] = {}
        self._lines: dict[tuple[str, int], np.ndarray] = {}

    def boxes(self, image: np.ndarray, detections: Detections) -> None:
        """Draw detections, the strongest on top.

        Args:
            image: BGR uint8 (height, width, 3); changed in place.
            detections: In its pixels.
        """
        width = self._width or line_width(image)
        corners = np.rint(detections.xyxy).astype(np.int64)[::-1].tolist()
        scores = np.rint(detections.confidence * 100).astype(np.int64)[::-1].tolist()
        classes = detections.class_id[::-1].tolist()
        for (left, top, right, bottom), score, kind in zip(corners, scores, classes):
            cv2.rectangle(image, (left, top), (right, bottom), colour_of_cached(kind), width)
            label = self._label(kind, score, width)
            paste(image, label, left, top - label.shape[0] if top >= label.shape[0] else top)

    def tint(self, image: np.ndarray, mask: np.ndarray, corner: tuple[int, int], kind: int) -> None:
        """Colour the pixels of a mask half transparently.

        Args:
            image: Changed in place.
            mask: uint8 (height, width), 0 outside.
            corner: x and y of its first pixel in the image.
            kind: Class.
        """
        x, y = corner
        part = image[y : y + mask.shape[0], x : x + mask.shape[1]]
        inside = mask[: part.shape[0], : part.shape[1]] > 0
        # Halved before they are added: a sum of two bytes does not fit into one.
        part[inside] = part[inside] // 2 + np.array(colour_of_cached(kind), np.uint8) // 2

    def skeleton(
        self, image: np.ndarray, points: np.ndarray, seen: np.ndarray, limbs: Sequence[tuple[int, int]]
    ) -> None:
        """Draw keypoints and the lines between them.

        Args:
            image: Changed in place.
            points: x and y of each, (keypoints, 2).
            seen: Which are drawn, (keypoints,).
            limbs: Pairs of keypoints that are joined where both are seen.
        """
        width = self._width or line_width(image)
        places = np.rint(points).astype(np.int64).tolist()
        for a, b in limbs:
            if seen[a] and seen[b]:
                cv2.line(image, tuple(places[a]), tuple(places[b]), colour_of_cached(a), width, cv2.LINE_AA)
        for index, place in enumerate(places):
            if seen[index]:
                cv2.circle(image, tuple(place), width + 1, colour_of_cached(index), -1, cv2.LINE_AA)

    def polygons(self, image: np.ndarray, corners: np.ndarray, detections: Detections) -> None:
        """Draw closed outlines with labels, the strongest on top.

        Args:
            image: Changed in place.
            corners: (n, points, 2) in its pixels.
            detections: Class and confidence of each.
        """
        width = self._width or line_width(image)
        scores = np.rint(detections.confidence * 100).astype(np.int64).tolist()
        for index in reversed(range(len(detections))):
            kind, points = int(detections.class_id[index]), np.rint(corners[index]).astype(np.int32)
            cv2.polylines(image, [points], True, colour_of_cached(kind), width, cv2.LINE_AA)
            label = self._label(kind, scores[index], width)
            left, top = points[points[:, 1].argmin()].tolist()
            paste(image, label, left, top - label.shape[0] if top >= label.shape[0] else top)

    def classes(self, image: np.ndarray, detections: Detections) -> None:
        """Write classes of a whole image below one another into its lower left corner, the most probable on top."""
        width = self._width or line_width(image)
        scores = np.rint(detections.confidence * 100).astype(np.int64).tolist()
        labels = [self._label(kind, score, width) for kind, score in zip(detections.class_id.tolist(), scores)]
        y = image.shape[0] - sum(label.shape[0] for label in labels)
        for label in labels:
            paste(image, label, 0, y)
            y += label.shape[0]

    def text(self, image: np.ndarray, lines: Sequence[str]) -> None:
        """Write lines into the upper left corner, light on dark; changes the image in place."""
        width, y = line_width(image), 0
        for line in lines:
            rendered = self._lines.get((line, width))
            if rendered is None:
                # The figures change with every frame, so without a limit a run of weeks would fill the memory.
                if len(self._lines) >= _CACHED:
                    self._lines.clear()
                rendered = self._lines[line, width] = render(line, width, (0, 0, 0), (255, 255, 255))
            paste(image, rendered, 0, y)
            y += rendered.shape[0]

    def _label(self, kind: int, score: int, width: int) -> np.ndarray:
        # The score in whole percent, which is all that is shown: at most 101 pictures for each class.
        label = self._labels.get((kind, score, width))
        if label is None:
            if len(self._labels) >= _CACHED:
                self._labels.clear()
            colour = colour_of_cached(kind)
            bright = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 140  # ITU-R BT.601 luma
            name = self._names[kind] if kind < len(self._names) else str(kind)
            ink = (0, 0, 0) if bright else (255, 255, 255)
            label = self._labels[kind, score, width] = render(f"{name} {score / 100:.2f}", width, colour, ink)
        return label


_COLOURS: dict[int, Colour] = {}


def colour_of_cached(index: int) -> Colour:
    """The same as ``colour_of``, computed once for each class."""
    if index not in _COLOURS:
        _COLOURS[index] = colour_of(index)
    return _COLOURS[index]


def line_width(image: np.ndarray) -> int:
    """Line width in pixels that suits a frame's size."""
    return max(round(sum(image.shape[:2]) / 2 * 0.003), 2)


def render(text: str, width: int, ground: Colour, ink: Colour) -> np.ndarray:
    """A line of text as a small picture (height, width, 3)."""
    scale, thickness = width / 4, max(width - 1, 1)
    (columns, rows), below = cv2.getTextSize(text, _FONT, scale, thickness)
    picture = np.empty((rows + below + _PADDING, columns + 2 * _PADDING, 3), np.uint8)
    picture[:] = ground
    cv2.putText(picture, text, (_PADDING, rows + _PADDING // 2), _FONT, scale, ink, thickness, cv2.LINE_AA)
    return picture


def paste(image: np.ndarray, picture: np.ndarray, left: int, top: int) -> None:
    """Copy a picture onto an image, in place; what lies outside is cut off."""
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + picture.shape[1], image.shape[1]), min(top + picture.shape[0], image.shape[0])
    if x1 > x0 and y1 > y0:
        image[y0:y1, x0:x1] = picture[y0 - top : y1 - top, x0 - left : x1 - left]


class Rate:
    """Frames per second over the last two seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def tick(self, now: float) -> float:
        """Count a frame.

        Args:
            now: Seconds on any steady clock.

        Returns:
            Frames per second; 0 for the first frame.
        """
        self._times.append(now)
        # Two always stay, or a camera with a frame every few seconds would show 0.
        while len(self._times) > 2 and now - self._times[0] > _WINDOW_S:
            self._times.popleft()
        passed = now - self._times[0]
        return (len(self._times) - 1) / passed if passed > 0 else 0.0
