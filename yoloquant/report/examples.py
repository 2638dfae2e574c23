"""Example images with the baseline's and the artifacts' detections, as data the page can draw."""

from __future__ import annotations

import base64
import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..evaluation.results import Example, Lines, ValidationResult
from .numbers import is_number

logger = logging.getLogger(__name__)

SIDE = 640  # longest side of an embedded image, pixels
CONFIDENCE = 0.25  # what is drawn; Ultralytics' default for predictions
IMAGES = 12  # more would make a page too heavy to mail
# drawn in a picture, the most confident ones: more cover each other
_BOXES = 60
_CLASSES = 3
_IOU = 0.5
_HUES = (204, 32, 140, 350, 265, 48, 180, 315, 95, 15)  # neighbouring classes far apart


@dataclass(frozen=True)
class Box:
    """One detection in the pixels of the embedded image.

    Attributes:
        x: Left edge.
        y: Top edge.
        width: Width.
        height: Height.
        label: Class name and confidence.
        hue: Colour of the class, degrees.
        state: ``same``, or for an artifact ``new`` or ``lost`` against the baseline.
        lines: What shows it besides: points ``x,y x,y ...`` of each line, as SVG has them.
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    hue: int
    state: str = "same"
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Shown:
    """A detection that is drawn: its row and its lines."""

    row: Sequence[float]
    lines: Lines


@dataclass(frozen=True)
class Panel:
    """One model's detections on one image."""

    title: str
    boxes: tuple[Box, ...]
    caption: str


@dataclass(frozen=True)
class Photo:
    """One image with the panels that share it.

    Attributes:
        name: File name.
        uri: JPEG as a ``data:`` URI; empty if the file could not be read.
        width: Width of the embedded image in pixels.
        height: Height of the embedded image in pixels.
        panels: FP32 first, then the artifacts.
        note: Why there is no image.
    """

    name: str
    uri: str
    width: int
    height: int
    panels: tuple[Panel, ...]
    note: str = ""


def photos(result: ValidationResult) -> list[Photo]:
    """The examples grouped by image, at most :data:`IMAGES` of them.

    Args:
        result: Outcome of a validation; its example images are read from disk.

    Returns:
        One entry per image; one whose file is absent or unreadable has a note in place of the picture.
    """
    groups: dict[str, list[Example]] = {}
    for example in result.examples:
        # every artifact beside the same picture, which is embedded once
        groups.setdefault(example.image, []).append(example)
    return [_photo(Path(image), group, result) for image, group in list(groups.items())[:IMAGES]]


def _photo(path: Path, group: Sequence[Example], result: ValidationResult) -> Photo:
    try:
        uri, scale, width, height = _embed(path)
    except (
        OSError,
        ValueError,
        SyntaxError,
        ImportError,
    ) as exc:  # the last: Ultralytics looks for plugins
        logger.warning("example image %s left out: %s", path, exc)
        reason = "the file is no longer there" if not path.is_file() else "the file cannot be read"
        return Photo(path.name, "", 0, 0, (), f"Image left out: {reason}.")
    names = result.names
    base = _shown(group[0].fp32, group[0].fp32_lines)
    drawn = tuple(_box(one, names, scale) for one in base)
    caption = _classes(group[0].fp32, names) or _count(len(base))
    panels = [Panel(f"{result.baseline.target} (baseline)", drawn, caption)]
    panels += [_panel(example, names, scale) for example in group]
    return Photo(path.name, uri, width, height, tuple(panels))


def _embed(path: Path) -> tuple[str, float, int, int]:
    """An image as a JPEG ``data:`` URI, its scale and its size; EXIF rotation applied, as it is when scored."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        # an image that unpacks to gigabytes must not end the report
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as source:
                image = ImageOps.exif_transpose(source).convert("RGB")
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as exc:
            raise ValueError(str(exc)) from exc
    # never enlarged
    scale = min(1.0, SIDE / max(image.size))
    image = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )
    buffer = io.BytesIO()
    # small enough that a dozen of them can still be mailed
    image.save(buffer, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", scale, image.width, image.height


def _panel(example: Example, names: Sequence[str], scale: float) -> Panel:
    """An artifact's detections, each marked as also found by the baseline or new, and what it lost."""
    base = _shown(example.fp32, example.fp32_lines)
    own = _shown(example.quantized, example.quantized_lines)
    pairs = _match([one.row for one in base], [one.row for one in own])
    lost = [one for i, one in enumerate(base) if i not in pairs]
    found = set(pairs.values())
    boxes = [_box(one, names, scale, "same" if i in found else "new") for i, one in enumerate(own)]
    boxes += [_box(one, names, scale, "lost") for one in lost]
    new = len(own) - len(found)
    caption = _classes(example.quantized, names) or f"{_count(len(own))}, {len(lost)} lost, {new} new"
    return Panel(example.target, tuple(boxes), caption)


def _count(number: int) -> str:
    return f"{number} detection{'' if number == 1 else 's'}"


def _classes(rows: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """A classifier's results, which have no place in the image: its classes; empty for detections."""
    # a classifier's results have boxes of zeros
    placeless = [row for row in rows if len(row) >= 6 and all(map(is_number, row[:6])) and not any(row[:4])]
    return ", ".join(_label(row, names) for row in placeless[:_CLASSES])


def _shown(rows: Sequence[Sequence[float]], lines: Sequence[Lines]) -> list[_Shown]:
    """Detections worth drawing, most confident first; rows that are no finite box are dropped."""
    # results of an older report have none
    known = lines if len(lines) == len(rows) else [()] * len(rows)
    good = [
        _Shown(r, drawn)
        for r, drawn in zip(rows, known, strict=True)
        if len(r) >= 6 and all(map(is_number, r[:6])) and r[4] >= CONFIDENCE and r[2] > r[0] and r[3] > r[1]
    ]
    return sorted(good, key=lambda one: -one.row[4])[:_BOXES]


def _match(base: Sequence[Sequence[float]], own: Sequence[Sequence[float]]) -> dict[int, int]:
    """Greedy one-to-one pairs of the same class by falling IoU, down to IoU 0.5: baseline index to artifact index."""
    options = sorted(
        ((_iou(b, o), i, j) for i, b in enumerate(base) for j, o in enumerate(own) if int(b[5]) == int(o[5])),
        # best overlap first, so that a near pair is not taken apart by a far one
        reverse=True,
    )
    pairs: dict[int, int] = {}
    used: set[int] = set()
    for iou, i, j in options:
        if iou >= _IOU and i not in pairs and j not in used:
            pairs[i] = j
            used.add(j)
    return pairs


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _box(one: _Shown, names: Sequence[str], scale: float, state: str = "same") -> Box:
    x1, y1, x2, y2, _, index = (*one.row[:5], int(one.row[5]))
    x, y, width, height = (round(v * scale, 1) for v in (x1, y1, x2 - x1, y2 - y1))
    points = (
        " ".join(f"{v[0] * scale:.1f},{v[1] * scale:.1f}" for v in line if len(v) == 2 and all(map(is_number, v)))
        for line in one.lines
    )
    return Box(x, y, width, height, _label(one.row, names), _HUES[index % len(_HUES)], state, tuple(points))


def _label(row: Sequence[float], names: Sequence[str]) -> str:
    index = int(row[5])
    return f"{names[index] if 0 <= index < len(names) else f'class {index}'} {row[4]:.2f}"
