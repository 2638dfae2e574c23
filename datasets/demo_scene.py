"""One scene of the demo set: shapes on a textured background, with the exact box of what is visible of each.

Boxes are upright; scenes that are drawn ``turned`` show everything from above, at any angle, and have rotated ones too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from .demo_shapes import CLASSES, CLUTTER, Drawing, darker, random_colour

SPLITS = ("train", "val")
SUPERSAMPLING = 2
MIN_VISIBLE = 0.45
"""Share of an object's pixels that must stay visible; what would hide more is not drawn."""


@dataclass(frozen=True)
class Scene:
    """One drawn image with its labels.

    Attributes:
        image: BGR pixels, uint8, shape (imgsz, imgsz, 3).
        labels: One row per object: class, centre x, centre y, width, height; normalised; shape (n, 5), float64.
        owner: The row of `labels` that is visible at each pixel of the twice as fine drawing, -1 for none;
            int16, shape (2 * imgsz, 2 * imgsz).
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.float64]
    owner: NDArray[np.int16]


@dataclass(frozen=True)
class Sprite:
    """A rasterised object: BGR pixels (h, w, 3) and its mask (h, w), 255 inside."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def _noise(rng: RandomState, shape: tuple[int, int], cells: int) -> NDArray[np.uint8]:
    """Smooth value noise, uint8, of the given (height, width), with about `cells` bumps along the longer side."""
    longest = max(shape)
    grid = [max(2, math.ceil(cells * side / longest)) for side in shape]
    values = np.frombuffer(rng.bytes(grid[0] * grid[1]), np.uint8).reshape(grid)
    return np.asarray(cv2.resize(values, shape[::-1], interpolation=cv2.INTER_LINEAR_EXACT), np.uint8)


def _transform(rng: RandomState, drawing: Drawing, size: float, tilt: float) -> Drawing:
    """Mirror, stretch, shear and turn a drawing so that the longer side of its bounding box becomes `size` pixels."""
    angle = rng.uniform(-tilt, tilt)
    cos, sin = math.cos(angle), math.sin(angle)
    flip = 1.0 if rng.uniform() < 0.5 else -1.0
    stretch = rng.uniform(0.82, 1.22)
    shape = np.array([[flip * stretch, rng.uniform(-0.15, 0.15)], [0.0, 1.0]])
    matrix = np.array([[cos, -sin], [sin, cos]]) @ shape
    turned = [points @ matrix.T for points, _ in drawing]
    low = np.min([points.min(axis=0) for points in turned], axis=0)
    high = np.max([points.max(axis=0) for points in turned], axis=0)
    scale = size / float((high - low).max())
    return [((points - low) * scale, colour) for points, (_, colour) in zip(turned, drawing, strict=True)]


def rasterise(rng: RandomState, drawing: Drawing, light: tuple[float, float]) -> Sprite:
    """Fill the parts of a drawing, then shade them: light from one side, texture on top."""
    width, height = (math.ceil(v) + 1 for v in np.max([points.max(axis=0) for points, _ in drawing], axis=0))
    pixels = np.zeros((height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for points, colour in drawing:
        fixed = np.round(points * 16).astype(np.int32)[None]
        cv2.fillPoly(pixels, list(fixed), tuple(min(c, 255.0) for c in colour), cv2.LINE_8, 4)
        cv2.fillPoly(mask, list(fixed), (255.0,), cv2.LINE_8, 4)
    strength = rng.uniform(0.1, 0.45)
    x = np.linspace(-light[0], light[0], width, dtype=np.float32)[None, :]
    y = np.linspace(-light[1], light[1], height, dtype=np.float32)[:, None]
    texture = _noise(rng, (height, width), int(rng.choice([4, 10, 24]))).astype(np.float32)
    shade = 1 - np.float32(strength) * (x + y) + (texture - 128) * np.float32(rng.uniform(0.0003, 0.0022))
    return Sprite(np.clip(pixels * shade[:, :, None], 0, 255).astype(np.uint8), mask)


def _background(rng: RandomState, side: int) -> NDArray[np.uint8]:
    """A textured backdrop, BGR uint8 (side, side, 3): noise of several scales, often with a floor, tiles or streaks."""
    field = np.zeros((side, side), np.float32)
    for cells, weight in ((3, rng.uniform(0.1, 1)), (9, rng.uniform(0, 0.6)), (40, rng.uniform(0, 0.4)), (110, 0.12)):
        field += np.float32(weight / 1.6) * _noise(rng, (side, side), cells)
    field /= 255
    if rng.uniform() < 0.5:  # sky above, ground below
        horizon = int(side * rng.uniform(0.25, 0.7))
        field[horizon:] = field[horizon:] * np.float32(0.5) + np.float32(rng.uniform(0.3, 0.7))
    inks = (
        random_colour(rng, None, 0.4, rng.uniform(0.15, 0.6)),
        random_colour(rng, None, 0.4, rng.uniform(0.5, 0.95)),
    )
    dark, bright = np.array(inks, np.float32)
    image: NDArray[np.uint8] = np.clip(dark + (bright - dark) * field[:, :, None], 0, 255).astype(np.uint8)
    pattern = rng.randint(4)
    if pattern == 0:  # tiles or planks
        ink, gap = darker(inks[0], 0.8), int(side * rng.uniform(0.06, 0.25))
        for at in range(rng.randint(gap), side, gap):
            cv2.line(image, (0, at), (side, at + rng.randint(-9, 10)), ink, 2)
            if gap % 2:
                cv2.line(image, (at, 0), (at + rng.randint(-9, 10), side), ink, 2)
    elif pattern == 1:  # streaks such as grass or scratches
        for x, y, dx, dy in rng.randint(-14, side, (250, 4)):
            cv2.line(image, (int(x), int(y)), (int(x + dx % 15 - 7), int(y + dy % 25)), inks[x & 1], 1)
    return image


class Canvas:
    """The scene being drawn: pixels, and which object is visible where."""

    def __init__(self, background: NDArray[np.uint8]) -> None:
        self.pixels = background
        self.owner: NDArray[np.int16] = np.full(background.shape[:2], -1, np.int16)
        self.area: list[int] = []  # per object, the pixels of its whole sprite
        self.visible: list[int] = []

    def paste(self, sprite: Sprite, x: int, y: int, *, labelled: bool, shadow: tuple[int, int, float]) -> bool:
        """Draw a sprite with its top left corner at (x, y), unless it would hide or lose too much.

        Returns:
            Whether it was drawn.
        """
        side = self.owner.shape[0]
        height, width = sprite.mask.shape[:2]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, side), min(y + height, side)
        if x0 >= x1 or y0 >= y1:
            return False
        cut = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
        here = (slice(y0, y1), slice(x0, x1))
        inside = sprite.mask[cut] > 0
        whole, shown = int(np.count_nonzero(sprite.mask)), int(np.count_nonzero(inside))
        if shown < MIN_VISIBLE * whole or shown < 40:
            return False
        covered = self.owner[here][inside]
        hidden = np.bincount(covered[covered >= 0], minlength=len(self.area))
        left = np.array(self.visible, dtype=np.int64) - hidden
        if np.any(left < MIN_VISIBLE * np.array(self.area)):
            return False
        self._cast_shadow(sprite, x, y, shadow)
        self.pixels[here][inside] = sprite.pixels[cut][inside]
        self.owner[here][inside] = len(self.area) if labelled else -1
        self.visible = [int(v) for v in left]
        if labelled:
            self.area.append(whole)
            self.visible.append(shown)
        return True

    def _cast_shadow(self, sprite: Sprite, x: int, y: int, shadow: tuple[int, int, float]) -> None:
        """Darken what lies beside the sprite, in the direction of the scene's light."""
        dx, dy, strength = shadow
        pad = 6
        soft = cv2.GaussianBlur(cv2.copyMakeBorder(sprite.mask, pad, pad, pad, pad, cv2.BORDER_CONSTANT), (9, 9), 0)
        x, y, side = x + dx - pad, y + dy - pad, self.owner.shape[0]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + soft.shape[1], side), min(y + soft.shape[0], side)
        if x0 >= x1 or y0 >= y1:
            return
        keep = 256 - soft[y0 - y : y1 - y, x0 - x : x1 - x].astype(np.uint16) * round(strength * 256) // 256
        region = self.pixels[y0:y1, x0:x1]
        region[:] = (region * keep[:, :, None]) >> 8


def _finish(rng: RandomState, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a camera adds: uneven light, a cast shadow, colour balance, blur and noise; halves the resolution."""
    rows = canvas[0::2].astype(np.uint16) + canvas[1::2]
    image = ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)
    side = image.shape[0]
    blur = rng.randint(8)
    if blur < 3:
        image = np.asarray(cv2.GaussianBlur(image, ((3, 3), (3, 3), (5, 5))[blur], 0), np.uint8)
    angle = rng.uniform(0, 2 * math.pi)
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    tilt = np.float32(rng.uniform(0, 0.3))
    gain = 1 + tilt * (axis[None, :] * np.float32(math.cos(angle)) + axis[:, None] * np.float32(math.sin(angle)))
    if rng.uniform() < 0.4:  # the shadow of something outside the picture
        mask = np.zeros((side, side), np.uint8)
        cv2.fillPoly(mask, [rng.randint(-side // 4, side + side // 4, (4, 2)).astype(np.int32)], (255.0,))
        soft = cv2.GaussianBlur(mask, (15, 15), 0).astype(np.float32)
        gain *= 1 - soft * np.float32(rng.uniform(0.2, 0.5) / 255)
    balance = (rng.uniform(0.9, 1.1, 3) * rng.uniform(0.65, 1.2)).astype(np.float32)
    # The sum of two uniform bytes is close enough to a bell curve, and exact.
    grain = np.frombuffer(rng.bytes(2 * side * side), np.uint8).reshape(2, side, side).astype(np.int16)
    noise = (grain[0] + grain[1] - 255).astype(np.float32) * np.float32(rng.uniform(0.005, 0.12))
    finished: NDArray[np.uint8] = np.clip(image * (gain[:, :, None] * balance) + noise[:, :, None], 0, 255).astype(
        np.uint8
    )
    return finished


def _box_rows(classes: Sequence[int], owner: NDArray[np.int16]) -> NDArray[np.float64]:
    """YOLO rows (class, cx, cy, w, h) of the visible pixels of each object."""
    rows = []
    for index, label in enumerate(classes):
        seen = owner == index
        columns, lines = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
        x0, x1, y0, y1 = columns[0], columns[-1] + 1, lines[0], lines[-1] + 1
        rows.append((label, (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0))
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    table[:, 1:] /= owner.shape[0]
    return table


def _sizes(rng: RandomState, count: int, side: int) -> Iterable[float]:
    """Longer sides in pixels: small, medium and large objects, log-uniform within each."""
    bands = ((0.045, 0.1), (0.1, 0.28), (0.28, 0.68))
    for _ in range(count):
        low, high = bands[int(rng.choice(3, p=(0.3, 0.5, 0.2)))]
        yield side * low * math.exp(rng.uniform(0, math.log(high / low)))


def rotated_rows(scene: Scene) -> NDArray[np.float64]:
    """Labels of oriented boxes: class and four corners of the smallest rectangle around what is visible of an object.

    Returns:
        Shape (n, 9), in the order of ``scene.labels``; corners are normalised and clipped to the image.
    """
    rows = []
    for index, label in enumerate(scene.labels[:, 0].tolist()):
        lines, columns = np.nonzero(scene.owner == index)
        pixels = np.stack([columns, lines], axis=1).astype(np.int32)
        # A pixel is a square: the rectangle goes around the corners of those at the border, not around their centres.
        border = cv2.convexHull(pixels)[:, 0]
        squares = np.concatenate([border + np.array(shift) for shift in ((0, 0), (0, 1), (1, 0), (1, 1))]).astype(
            np.float32
        )
        corners = np.asarray(cv2.boxPoints(cv2.minAreaRect(squares)), np.float64)
        rows.append([label, *np.clip(corners / scene.owner.shape[0], 0, 1).ravel()])
    return np.array(rows, dtype=np.float64).reshape(-1, 9)


def draw_scene(seed: int, split: str, index: int, imgsz: int = 320, *, turned: bool = False) -> Scene:
    """Draw one scene.

    Args:
        seed: Seed of the whole set, 0 to 2**32 - 1.
        split: "train" or "val".
        index: Number of the image within its split.
        imgsz: Side of the square image in pixels.
        turned: Whether objects lie at any angle, as seen from above, instead of standing.

    Returns:
        The image, its labels (at least one) and the map of visible objects.
    """
    rng = RandomState([seed, SPLITS.index(split), index])
    side = imgsz * SUPERSAMPLING
    background = cv2.resize(_background(rng, imgsz), (side, side), interpolation=cv2.INTER_LINEAR_EXACT)
    canvas = Canvas(np.asarray(background, np.uint8))
    angle = rng.uniform(0, 2 * math.pi)
    light = (math.cos(angle), math.sin(angle))
    wanted = [True] * rng.randint(2, 9) + [False] * rng.randint(2, 8)
    sizes = sorted(_sizes(rng, len(wanted), side), reverse=True)  # large first: small things stand in front
    rng.shuffle(wanted)
    classes: list[int] = []
    for size, labelled in zip(sizes, wanted, strict=True):
        kind = int(rng.randint(len(CLASSES if labelled else CLUTTER)))
        draw, tilt = (CLASSES if labelled else CLUTTER)[kind]
        sprite = rasterise(rng, _transform(rng, draw(rng), size, math.pi if turned else tilt), light)
        reach = size * rng.uniform(0.01, 0.12)
        shadow = (round(light[0] * reach), round(light[1] * reach), rng.uniform(0.1, 0.6))
        for _ in range(8):
            x, y = (int(rng.randint(-n // 3, side - 2 * n // 3)) for n in sprite.mask.shape[::-1])
            if canvas.paste(sprite, x, y, labelled=labelled, shadow=shadow):
                classes.extend([kind] * labelled)
                break
    return Scene(_finish(rng, canvas.pixels), _box_rows(classes, canvas.owner), canvas.owner)
