"""Head decoding in numpy, shared by every runner whose artifact returns raw head outputs.

The formulas are those of Ultralytics' ``Detect`` head: anchor points at cell centres, distances to the four sides in
units of the stride, either regressed directly (``reg_max`` 1) or as the expectation over ``reg_max`` bins (distribution
focal loss, https://arxiv.org/abs/2006.04388).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArtifactError
from .model_info import ModelInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Array = npt.NDArray[Any]
    Levels = Sequence[Floats]  # one tensor per level, (1, height, width, channels)

MARGIN = 1e-3
"""How far below a threshold a logit may lie and still be decoded, so that rounding never loses a detection."""


def quantize(values: Floats, scale: float, zero_point: int, dtype: npt.DTypeLike = np.int8) -> Array:
    """Quantize real values: ``clamp(round(x / scale) + zero_point)``, halves to even.

    Args:
        values: Real values of any shape.
        scale: Step, in the same unit as the values.
        zero_point: Integer that stands for 0.
        dtype: Integer type of the result; its limits are the clamp.

    Returns:
        The integers, of the same shape.
    """
    limits = np.iinfo(np.dtype(dtype))
    # float32 throughout: a float64 quotient would round a few values to the other side
    steps = np.divide(values, np.float32(scale), dtype=np.float32)
    np.rint(steps, out=steps)
    # After rounding, as ONNX Runtime, torch and LiteRT do it; added before, ties would fall to the other side.
    steps += zero_point
    np.clip(steps, limits.min, limits.max, out=steps)
    return steps.astype(dtype)


def anchor_points(imgsz: tuple[int, int], strides: Sequence[int]) -> tuple[Floats, Floats]:
    """Centres of all head cells and their strides.

    Args:
        imgsz: Input height and width in pixels.
        strides: Stride of each level in pixels.

    Returns:
        Centres (anchors, 2) as x, y in units of the cell's stride, and strides (anchors,) in pixels, level by level,
        row by row.
    """
    points, steps = [], []
    for stride in strides:
        height, width = imgsz[0] // stride, imgsz[1] // stride
        # the middle of each cell, as the head was trained
        y, x = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
        points.append(np.stack([x.ravel(), y.ravel()], axis=1))
        steps.append(np.full(height * width, stride))
    return np.concatenate(points).astype(np.float32), np.concatenate(steps).astype(np.float32)


@dataclass(frozen=True)
class Anchors:
    """Raw head outputs at some anchors, which a task decodes further.

    Attributes:
        points: Centres of their cells, (anchors, 2), in units of the stride.
        steps: Strides in pixels, (anchors,).
        further: Raw values of every further branch, each (anchors, channels).
    """

    points: Floats
    steps: Floats
    further: tuple[Floats, ...]


def decode_levels(
    boxes: Levels,
    scores: Levels,
    info: ModelInfo,
    conf: float = 0.0,
    *,
    further: Sequence[Levels] = (),
    extend: Callable[[Anchors], Floats] | None = None,
    rotated: bool = False,
) -> Floats:
    """Decode the last head convolutions' outputs into the layout of a drop-in export.

    Args:
        boxes: One tensor per level, (1, height, width, 4 * reg_max).
        scores: One tensor of class logits per level, (1, height, width, classes).
        info: The model.
        conf: Anchors without any score above it are left out, so that only few have to be decoded; all stay for 0.
        further: The levels of every further branch of the task.
        extend: Decodes those at some anchors, to (anchors, values).
        rotated: Whether the first value that ``extend`` returns is an angle that boxes are rotated by.

    Returns:
        (1, 4 + classes + values, anchors) with x, y, w, h in pixels, scores 0 to 1 and what ``extend`` returned; for
        end-to-end models (1, max_det, 6 + values) with x1, y1, x2, y2 (rotated boxes: x, y, w, h), score, class.

    Raises:
        ArtifactError: The shapes do not fit the model.
    """
    _check("box", boxes, info, 4 * info.reg_max)
    _check("score", scores, info, len(info.names))
    for index, levels in enumerate(further):
        _check(f"further ({index})", levels, info, None)
    # Kept between images: the same 8400 points for every one of 640 pixels.
    points, steps = _grid(info.imgsz, info.strides)
    # As Ultralytics' `get_topk_index`: torch's `topk` refuses more than there are.
    count = min(info.max_det, len(points))
    sides, logits, rest = _flatten(boxes), _flatten(scores), [_flatten(levels) for levels in further]
    # Before the expectation over bins and the sigmoid, which are most of the work: few anchors hold anything.
    if conf > 0:
        chosen = _possible(logits, conf)
        points, steps, sides, logits = points[chosen], steps[chosen], _rows(sides, chosen), _rows(logits, chosen)
        rest = [_rows(levels, chosen) for levels in rest]
    distances = _expectation(np.concatenate(sides).reshape(-1, 4, info.reg_max))
    probabilities = sigmoid(np.concatenate(logits))
    anchors = Anchors(points, steps, tuple(np.concatenate(levels) for levels in rest))
    values = extend(anchors) if extend is not None else np.zeros((len(points), 0), np.float32)
    geometry = _geometry(points, distances, info.end2end, values[:, :1] if rotated else None) * steps[:, None]
    if info.end2end:
        return _select(geometry, probabilities, values, count)[None]
    return np.ascontiguousarray(np.concatenate([geometry, probabilities, values], axis=1).T[None])


def _geometry(points: Floats, distances: Floats, corners: bool, angle: Floats | None) -> Floats:
    """Boxes in units of the stride: xywh, or corners; a rotated box keeps its sides and turns about its anchor."""
    if angle is not None:
        # How far the centre lies from the anchor, (anchors, 2), along the box's own axes (Ultralytics' `dist2rbox`).
        half = (distances[:, 2:] - distances[:, :2]) / 2
        cos, sin = np.cos(angle), np.sin(angle)
        turned = np.concatenate([half[:, :1] * cos - half[:, 1:] * sin, half[:, :1] * sin + half[:, 1:] * cos], axis=1)
        return np.concatenate([turned + points, distances[:, :2] + distances[:, 2:]], axis=1)
    low, high = points - distances[:, :2], points + distances[:, 2:]
    # End-to-end heads give corners, others xywh (Ultralytics' `Detect.decode_bboxes`).
    if corners:
        return np.concatenate([low, high], axis=1)
    return np.concatenate([(low + high) / 2, high - low], axis=1)


@lru_cache(maxsize=8)
def _grid(imgsz: tuple[int, int], strides: tuple[int, ...]) -> tuple[Floats, Floats]:
    return anchor_points(imgsz, strides)


def _check(kind: str, levels: Levels, info: ModelInfo, channels: int | None) -> None:
    shapes = [(1, info.imgsz[0] // s, info.imgsz[1] // s) for s in info.strides]
    got = [tuple(level.shape) for level in levels]
    if [shape[:3] for shape in got] != shapes or any(channels not in (None, shape[-1]) for shape in got):
        per_cell = "the same" if channels is None else channels
        raise ArtifactError(
            f"raw {kind} outputs have shapes {got}, but a model with imgsz={info.imgsz}, strides={info.strides} "
            f"and {per_cell} {kind} channels returns {shapes} times these channels; export the artifact again"
        )


def _flatten(levels: Sequence[Floats]) -> list[Floats]:
    """(1, h, w, c) per level to (h * w, c)."""
    return [level.reshape(-1, level.shape[-1]) for level in levels]


def _possible(logits: list[Floats], conf: float) -> npt.NDArray[np.intp]:
    """Anchors whose best class may have a score above a threshold, among all levels' anchors."""
    # in logits: the sigmoid of 8400 x 80 values would take longer than the comparison
    limit = np.log(conf / (1 - conf)) - MARGIN if conf < 1 else np.inf
    best = np.concatenate([level.max(axis=1) for level in logits])
    return np.flatnonzero(~(best < np.float32(limit)))  # NaN stays, to be reported


def _rows(levels: list[Floats], chosen: npt.NDArray[np.intp]) -> list[Floats]:
    """The chosen rows of each level, given by their index among all levels' rows."""
    ends = np.cumsum([len(level) for level in levels])
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    starts = ends - [len(level) for level in levels]
    return [level[part - start] for level, part, start in zip(levels, parts, starts)]


def _expectation(bins: Floats) -> Floats:
    """Expected bin per side of (anchors, 4, reg_max); with a single bin the value itself."""
    if bins.shape[-1] == 1:
        return bins[..., 0]
    # less the largest, or exp overflows
    weights = np.exp(bins - bins.max(axis=-1, keepdims=True))
    projection = np.arange(bins.shape[-1], dtype=np.float32)
    return np.asarray((weights @ projection) / weights.sum(axis=-1), dtype=np.float32)


def sigmoid(logits: Floats) -> Floats:
    """Logistic function, element by element."""
    with np.errstate(over="ignore"):  # exp overflows to inf for very negative logits, and 1 / inf is the right 0
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)


def _select(boxes: Floats, scores: Floats, values: Floats, count: int) -> Floats:
    """Best detections as Ultralytics' end-to-end heads choose them: best anchors first, then best classes of those."""
    anchors = _top(scores.max(axis=1), count)
    # (max_det, classes): of few anchors every class competes, so one anchor may appear several times.
    chosen = scores[anchors]
    flat = _top(chosen.ravel(), count)
    rows, classes = np.divmod(flat, scores.shape[1])
    found = [boxes[anchors[rows]], chosen.ravel()[flat][:, None], classes[:, None], values[anchors[rows]]]
    return np.concatenate(found, axis=1).astype(np.float32)


def _top(values: Floats, count: int) -> npt.NDArray[np.intp]:
    """Indices of the largest values in descending order, ties by index."""
    return np.argsort(-values, kind="stable")[:count]
