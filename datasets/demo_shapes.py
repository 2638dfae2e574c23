"""What the scenes of the demo set show, as polygons: six labelled classes, and clutter that carries no label.

Every shape lives in about [-1, 1] x [-1, 1] with y pointing down, and is drawn from random proportions and colours.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Points = NDArray[np.float64]
Colour = tuple[float, float, float]
Drawing = list[tuple[Points, Colour]]
"""Polygons, shape (n, 2), with their BGR colours, painted in this order."""

CLASS_NAMES = ("cone", "mug", "bottle", "fish", "house", "ball")


def quad(*xy: float) -> Points:
    """A polygon from x0, y0, x1, y1, ..."""
    return np.array(xy, dtype=np.float64).reshape(-1, 2)


def rect(x0: float, y0: float, x1: float, y1: float) -> Points:
    """An upright rectangle."""
    return quad(x0, y0, x1, y0, x1, y1, x0, y1)


def oval(cx: float, cy: float, rx: float, ry: float, start: float = 0.0, stop: float = 2 * math.pi) -> Points:
    """An ellipse, or the part of it between two angles in radians."""
    angles = np.linspace(start, stop, 28)
    return np.stack([cx + rx * np.cos(angles), cy + ry * np.sin(angles)], axis=1)


def strip(line: Points, width: float) -> Points:
    """A polyline given a width."""
    step = np.gradient(line, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], axis=1)
    normal *= width / 2 / np.maximum(np.hypot(step[:, 0], step[:, 1]), 1e-9)[:, None]
    return np.concatenate([line + normal, (line - normal)[::-1]])


def random_colour(rng: RandomState, hue: float | None = None, sat: float = 0.75, val: float = 0.8) -> Colour:
    """A BGR colour around the given hue (any hue for None), saturation and brightness."""
    h = rng.uniform(0, 1) if hue is None else hue + rng.uniform(-0.04, 0.04)
    s = min(max(sat + rng.uniform(-0.25, 0.2), 0.0), 1.0)
    v = min(max(val + rng.uniform(-0.25, 0.2), 0.05), 1.0)
    r, g, b = colorsys.hsv_to_rgb(h % 1.0, s, v)
    return (255 * b, 255 * g, 255 * r)


def darker(colour: Colour, factor: float) -> Colour:
    """The colour with its brightness multiplied; above 1 it gets brighter."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


# --- the labelled classes ----------------------------------------------------------------------------------------


def _cone(rng: RandomState) -> Drawing:
    colour = random_colour(rng, float(rng.choice([0.03, 0.06, 0.14, 0.58])), 0.85, 0.85)
    half, tip = rng.uniform(0.42, 0.6), rng.uniform(0.07, 0.15)

    def at(y: float) -> float:
        return tip + (half - tip) * (y + 1) / 1.8

    parts: Drawing = [(rect(-half - 0.2, 0.74, half + 0.2, 1.0), darker(colour, rng.uniform(0.3, 0.9)))]
    parts.append((quad(-tip, -1, tip, -1, half, 0.8, -half, 0.8), colour))
    white = random_colour(rng, None, 0.1, 0.9)
    for top in (-0.45, 0.15)[: rng.randint(1, 3)]:
        low = top + rng.uniform(0.22, 0.36)
        parts.append((quad(-at(top), top, at(top), top, at(low), low, -at(low), low), white))
    return parts


def _mug(rng: RandomState) -> Drawing:
    colour = random_colour(rng, None, 0.55, 0.8)
    taper, ry = rng.uniform(0.8, 1.0), rng.uniform(0.1, 0.22)
    handle = strip(oval(0.62, 0.05, rng.uniform(0.32, 0.45), rng.uniform(0.38, 0.55), -1.6, 1.6), 0.16)
    parts: Drawing = [(handle, darker(colour, 0.8))]
    body = np.concatenate([oval(0, 0.85, 0.7 * taper, ry, 0, math.pi), quad(-0.7, -0.75, 0.7, -0.75)])
    parts.append((body, colour))
    band = random_colour(rng, None, 0.7, 0.8)
    if rng.uniform() < 0.5:
        top = rng.uniform(-0.4, 0.3)
        parts.append((rect(-0.67 * taper, top, 0.67 * taper, top + rng.uniform(0.15, 0.4)), band))
    else:
        parts.extend((oval(x, rng.uniform(-0.3, 0.6), 0.12, 0.12), band) for x in (-0.4, 0.0, 0.4))
    parts.append((oval(0, -0.75, 0.7, ry), darker(colour, 1.1)))
    parts.append((oval(0, -0.73, 0.6, ry * 0.75), darker(random_colour(rng, 0.07, 0.6, 0.4), 0.8)))
    return parts


def _bottle(rng: RandomState) -> Drawing:
    colour = random_colour(rng, float(rng.choice([0.3, 0.35, 0.08, 0.55, 0.95])), 0.6, 0.6)
    half, neck, shoulder = rng.uniform(0.26, 0.4), rng.uniform(0.09, 0.15), rng.uniform(-0.45, -0.15)
    right = quad(neck, -0.85, neck, shoulder - 0.2, half * 0.8, shoulder - 0.05, half, shoulder + 0.12, half, 1.0)
    parts: Drawing = [(np.concatenate([right, right[::-1] * (-1, 1)]), colour)]
    parts.append((rect(-neck * 1.3, -1.0, neck * 1.3, -0.82), random_colour(rng, None, 0.7, 0.6)))
    label, top = random_colour(rng, None, 0.3, 0.9), rng.uniform(0.05, 0.25)
    parts.append((rect(-half, top, half, top + rng.uniform(0.3, 0.55)), label))
    parts.append((rect(-half * 0.8, top + 0.1, half * 0.8, top + 0.2), darker(label, 0.5)))
    parts.append((rect(-half * 0.75, shoulder + 0.1, -half * 0.5, 0.95), darker(colour, 1.5)))
    return parts


def _fish(rng: RandomState) -> Drawing:
    colour, height = random_colour(rng, None, 0.7, 0.75), rng.uniform(0.32, 0.55)
    fin = darker(colour, rng.uniform(0.5, 0.8))
    spread = rng.uniform(0.35, 0.6)
    parts: Drawing = [(quad(0.45, 0, 1.0, -spread, 0.85, 0, 1.0, spread), fin)]
    parts.append((quad(-0.25, -height * 0.8, 0.3, -height - rng.uniform(0.1, 0.3), 0.4, -height * 0.4), fin))
    x = np.linspace(-1, 0.62, 20)
    y = height * np.sqrt(np.maximum(1 - ((x + 0.25) / 0.87) ** 2 * np.where(x < -0.25, 1.28, 0.96), 0))
    y[0] = 0
    parts.append((np.concatenate([np.stack([x, -y], 1), np.stack([x, y], 1)[::-1]]), colour))
    stripe = random_colour(rng, None, 0.6, 0.8)
    for at in (-0.3, 0.0, 0.3)[: rng.randint(0, 4)]:
        h = height * math.sqrt(1 - 0.96 * ((at + 0.3) / 0.87) ** 2) * 0.9
        parts.append((quad(at, -h, at + 0.1, -h, at + 0.14, 0, at + 0.1, h, at, h, at + 0.04, 0), stripe))
    parts.append((quad(-0.15, 0.05, 0.15, 0.2, -0.08, 0.28), fin))
    parts.append((oval(-0.64, -height * 0.25, 0.1, 0.1), (235, 235, 235)))
    parts.append((oval(-0.65, -height * 0.25, 0.05, 0.05), (15, 15, 15)))
    return parts


def _house(rng: RandomState) -> Drawing:
    wall, roof = random_colour(rng, None, 0.3, 0.8), random_colour(rng, None, 0.6, 0.5)
    half, eave, ridge = rng.uniform(0.6, 0.95), rng.uniform(-0.3, 0.0), rng.uniform(0.0, 0.5)
    parts: Drawing = []
    if rng.uniform() < 0.6:
        parts.append((rect(0.35 * half, -0.95, 0.6 * half, eave), darker(roof, 0.7)))
    parts.append((rect(-half, eave, half, 1), wall))
    over = half + rng.uniform(0.05, 0.2)
    parts.append((quad(-over, eave, -ridge * half, -1, ridge * half, -1, over, eave), roof))
    door = rng.uniform(-0.5, 0.3) * half
    parts.append((rect(door, 0.4, door + 0.32, 1), random_colour(rng, 0.07, 0.6, 0.4)))
    glass = random_colour(rng, 0.57 if rng.uniform() < 0.6 else 0.13, 0.4, 0.75)
    for x in (-0.75, -0.2, 0.4):
        if rng.uniform() < 0.8:
            x0, y0 = x * half, eave + 0.15
            parts.append((rect(x0, y0, x0 + 0.3 * half, y0 + 0.28), glass))
            parts.append((rect(x0 + 0.13 * half, y0, x0 + 0.17 * half, y0 + 0.28), darker(wall, 1.2)))
    return parts


def _ball(rng: RandomState) -> Drawing:
    colour, other = random_colour(rng, None, 0.7, 0.85), random_colour(rng, None, 0.4, 0.8)
    parts: Drawing = [(oval(0, 0, 1, 1), colour)]
    kind = rng.randint(3)
    if kind == 0:  # beach ball
        for k in range(3):
            a = 2 * math.pi * k / 3
            parts.append((np.concatenate([quad(0.1, -0.15), oval(0, 0, 1, 1, a, a + math.pi / 3)]), other))
        parts.append((oval(0.1, -0.15, 0.16, 0.16), darker(other, 1.1)))
    elif kind == 1:  # seams
        seam = darker(colour, 0.25)
        parts.append((strip(quad(-0.98, 0, 0.98, 0), 0.1), seam))
        parts.append((strip(oval(-1.25, 0, 0.8, 0.9, -0.83, 0.83), 0.1), seam))
        parts.append((strip(oval(1.25, 0, 0.8, 0.9, math.pi - 0.83, math.pi + 0.83), 0.1), seam))
        parts.append((strip(quad(0, -0.98, 0, 0.98), 0.1), seam))
    else:  # dark patches
        dark = darker(other, 0.3)
        parts.append((oval(0, 0, 0.34, 0.34)[::6], dark))
        for k in range(5):
            a = 2 * math.pi * k / 5 + 0.3
            parts.append((oval(0.82 * math.cos(a), 0.82 * math.sin(a), 0.17, 0.17)[::5], dark))
    return parts


# --- unlabelled clutter: some of it is deliberately like a class, less the part that tells the class --------------


def _tree(rng: RandomState) -> Drawing:
    green = random_colour(rng, 0.3, 0.6, 0.45)
    parts: Drawing = [(rect(-0.1, 0.2, 0.1, 1), random_colour(rng, 0.07, 0.6, 0.35))]
    if rng.uniform() < 0.5:
        parts.extend((quad(0, y - 0.7, 0.65, y, -0.65, y), darker(green, 0.8 + 0.2 * y)) for y in (0.5, 0.1, -0.3))
    else:
        blobs = ((-0.35, -0.2), (0.35, -0.2), (0.0, -0.55), (0.0, -0.1))
        parts.extend((oval(x, y, 0.42, 0.4), darker(green, rng.uniform(0.8, 1.2))) for x, y in blobs)
    return parts


def _crate(rng: RandomState) -> Drawing:
    colour, tape = random_colour(rng, 0.09, 0.45, 0.65), random_colour(rng, None, 0.3, 0.8)
    h = rng.uniform(0.5, 1.0)
    return [
        (rect(-1, -h, 1, h), colour),
        (rect(-1, -0.12, 1, 0.12) if rng.uniform() < 0.5 else rect(-0.12, -h, 0.12, h), tape),
        (quad(-1, -h, -0.8, -h - 0.2, 1.2, -h - 0.2, 1, -h), darker(colour, 1.2)),
        (quad(1, -h, 1.2, -h - 0.2, 1.2, h - 0.2, 1, h), darker(colour, 0.7)),
    ]


def _plain(rng: RandomState) -> Drawing:
    colour = random_colour(rng, None, 0.6, 0.7)
    kind = rng.randint(6)
    if kind == 0:  # a disc or ring, but no ball
        disc: Drawing = [(oval(0, 0, 1, 1), colour)]
        return [*disc, (oval(0, 0, 0.6, 0.6), darker(colour, 0.6))] if rng.uniform() < 0.5 else disc
    if kind == 1:  # a triangle, but no cone
        return [(quad(0, -1, 0.7, 1, -0.7, 1), colour), (quad(0, -1, 0.15, 1, -0.15, 1), darker(colour, 0.7))]
    if kind == 2:  # a tumbler, but no mug
        top = (oval(0, -0.8, 0.6, 0.15), darker(colour, 0.5))
        return [(quad(-0.6, -0.8, 0.6, -0.8, 0.45, 1, -0.45, 1), colour), top]
    if kind == 3:  # a leaf, but no fish
        vein = strip(quad(-0.8, 0, 0.95, 0), 0.07)
        return [(oval(0, 0, 0.8, 0.4), colour), (vein, darker(colour, 0.6))]
    if kind == 4:  # a post
        rings: Drawing = [(rect(-0.1, y, 0.1, y + 0.2), (225, 225, 225)) for y in (-0.9, -0.3, 0.3)]
        return [(rect(-0.1, -1, 0.1, 1), colour), *rings]
    angles = np.arange(10) * math.pi / 5  # a star
    radius = np.where(np.arange(10) % 2, 0.45, 1.0)
    return [(np.stack([radius * np.sin(angles), -radius * np.cos(angles)], 1), colour)]


Draw = Callable[[RandomState], Drawing]
CLASSES: tuple[tuple[Draw, float], ...] = (  # with the largest tilt in radians
    (_cone, 0.6),
    (_mug, 0.45),
    (_bottle, 1.8),
    (_fish, 0.9),
    (_house, 0.2),
    (_ball, math.pi),
)
CLUTTER: tuple[tuple[Draw, float], ...] = ((_tree, 0.2), (_crate, 0.3), (_plain, math.pi), (_plain, 0.6))
