"""Instance segmentation: boxes with masks, each a combination of prototypes (YOLACT, https://arxiv.org/abs/1904.02689)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Dict, List, Tuple

import numpy as np

from ..core.detections import Detections
from ..core.letterbox import Letterbox
from ..core.matching import Truth, box_iou
from ..core.model_info import HeadLayout, ModelInfo, Task
from ..core.rle import decode, encode
from ..errors import DataError
from ..io.labels import Row, arrays, first_of_each, polygon_box, read_rows
from .anchors import BOX, AnchorTask, ap_metrics
from .base import Drawn, Labels, Metric, Similarity, checked

if TYPE_CHECKING:
    from ..io.draw import Painter
    from .base import Outputs

RATIO = 4
"""Input pixels per pixel of a prototype along each side; Ultralytics scores masks at this resolution."""
POINTS = 1000
"""Points that Ultralytics brings every labelled polygon to before it fills it."""
FORM = "'class x1 y1 x2 y2 x3 y3 ...', a polygon normalised to 0..1"


class Segment(AnchorTask):
    """Boxes with masks.

    Results in input pixels carry ``logits``, float32 (n, height, width) at the prototypes' resolution: a mask is where
    they are positive inside the box. In original pixels they carry ``masks``, one uint8 array each that covers the box
    from ``corners`` on, (n, 2) as x and y. Results that are kept carry ``outlines``, lists of polygons in input pixels.
    """

    task: ClassVar[Task] = Task.SEGMENT
    metrics: ClassVar[Tuple[Metric, ...]] = (*ap_metrics("", "box "), *ap_metrics("mask_", "mask "))
    similarities: ClassVar[Tuple[Similarity, ...]] = (BOX, Similarity("mask_", "mask", "segm"))
    branches: ClassVar[Tuple[str, ...]] = ("box", "score", "mask")
    single: ClassVar[Tuple[str, ...]] = ("proto",)
    further: ClassVar[str] = "coefficients"
    noun: ClassVar[str] = "segmentation model"
    behind: ClassVar[str] = "coefficients of the prototypes in output 1, whose sum is positive inside the mask"

    # -- outputs

    def width(self, outputs: Outputs, info: ModelInfo) -> int:
        """Number of prototypes."""
        if len(outputs) != 2 or outputs[1].ndim != 4:
            shapes = [o.shape for o in outputs]
            # Nothing fits an empty array, so this raises the usual message.
            checked(
                np.zeros(0),
                (1, "count", "height", "width"),
                f"segmentation of outputs {shapes}: a second one, the prototypes,",
            )
        return int(outputs[1].shape[1])

    def finish(self, found: Detections, further: np.ndarray, outputs: Outputs, info: ModelInfo) -> Detections:
        """Combine prototypes."""
        prototypes = checked(
            np.asarray(outputs[1], dtype=np.float32), (1, "count", "height", "width"), "the prototypes"
        )[0]
        count, height, width = prototypes.shape
        # (results, prototypes) by (prototypes, pixels).
        logits = further.astype(np.float32) @ prototypes.reshape(count, -1)
        return found.with_parts(logits=logits.reshape(-1, height, width))

    def output_parts(self, outputs: Outputs, layout: HeadLayout, info: ModelInfo) -> Dict[str, np.ndarray]:
        """See ``TaskSpec.output_parts``."""
        return {**super().output_parts(outputs, layout, info), "prototypes": outputs[1]}

    def parts_to_original(self, found: Detections, where: Letterbox) -> Mapping[str, np.ndarray]:
        """Masks in original pixels, each as large as its box."""
        boxes = where.to_original(found.xyxy)
        # A pixel lies in a box where x1 <= its index < x2, as in Ultralytics' `crop_mask`.
        low = np.ceil(boxes[:, :2]).astype(np.int64)
        high = np.maximum(np.ceil(boxes[:, 2:]).astype(np.int64), low)
        logits = found.parts["logits"]
        masks = [_mask(logits[i], low[i], high[i], where) for i in range(len(found))]
        return {"masks": _objects(masks), "corners": low}

    def parts_to_input(self, found: Detections, where: Letterbox) -> Mapping[str, np.ndarray]:
        """Masks as logits of 0.5 and -0.5 at the prototypes' resolution, which is what masks are compared at."""
        size = where.imgsz[0] // RATIO, where.imgsz[1] // RATIO
        pairs = zip(found.parts["masks"], found.parts["corners"].tolist())
        logits = [_shrunk(np.asarray(mask), corner, where, size) for mask, corner in pairs]
        return {"logits": np.array(logits, np.float32).reshape(-1, *size)}

    def read_record(self, record: Mapping[str, Any], count: int, info: ModelInfo) -> Mapping[str, np.ndarray]:
        """Masks of compressed run lengths."""
        found = record.get("masks")
        if not isinstance(found, list) or len(found) != count:
            raise DataError("results need 'masks', one COCO run-length encoding each; was it another task's model?")
        pairs = [decode(rle) for rle in found]
        corners = np.array([corner for _, corner in pairs], np.int64).reshape(-1, 2)
        return {"masks": _objects([mask for mask, _ in pairs]), "corners": corners}

    # -- scoring

    def check_data(self, content: Mapping[str, Any], source: str, info: ModelInfo) -> None:
        """See ``TaskSpec.check_data``: lines with keypoints of two numbers would be read as polygons."""
        if content.get("kpt_shape"):
            raise DataError(
                f"data yaml {source} describes keypoints (kpt_shape), but the model is a segment model, whose label "
                f"lines are {FORM}; score a pose model on it, or write polygons"
            )

    def read_labels(self, path: Path, info: ModelInfo) -> Labels:
        """Polygons of at least three points."""
        rows = read_rows(path, len(info.names), FORM)
        for row in rows:
            _check_polygon(row)
        polygons = [np.array(row.values, dtype=np.float32).reshape(-1, 2) for row in rows]
        classes, boxes = arrays(rows, [polygon_box(row.values) for row in rows])
        keep = first_of_each(rows)
        return Labels(classes[keep], boxes[keep], {"polygons": _objects(polygons)[keep]})

    def label_line(self, drawn: Drawn, size: Tuple[int, int]) -> List[float]:
        """The polygon."""
        if not drawn.polygons:
            raise DataError("has no polygon, which a segmentation model is scored by")
        return list((drawn.polygons[0] / (size[1], size[0])).ravel())

    def truth_parts(self, labels: Labels, where: Letterbox, info: ModelInfo) -> Mapping[str, np.ndarray]:
        """Masks (m, height, width) at the prototypes' resolution, where a smaller object hides a larger one."""
        # More only where a polygon of the image has more itself: to one more than that, as Ultralytics does.
        points = max([POINTS, *(len(p) + 1 for p in labels.parts["polygons"] if len(p) > POINTS)])
        polygons = [where.points_to_input(_resampled(p, points)) for p in labels.parts["polygons"]]
        return {"masks": _fill(polygons, where.imgsz)}

    def reference_parts(self, found: Detections, where: Letterbox) -> Mapping[str, np.ndarray]:
        """Masks as they were predicted; those of tiny objects may be empty at this resolution."""
        masks = _cropped(found, where.imgsz)
        return {"masks": masks, "empty": np.asarray(~masks.any(axis=(1, 2)))}

    def similarity(self, prefix: str, truth: Truth, found: Detections) -> np.ndarray:
        """IoU of the boxes, or of the masks."""
        if not prefix:
            return box_iou(truth.boxes, found.xyxy)
        if not len(truth.classes) or not len(found):
            return np.zeros((len(truth.classes), len(found)), np.float32)
        masks = truth.parts["masks"]
        ours = _cropped(found, (masks.shape[1] * RATIO, masks.shape[2] * RATIO))
        overlap = mask_iou(masks, ours)
        if "empty" in truth.parts:  # a model agrees with itself there too; labels count as in Ultralytics
            both = truth.parts["empty"][:, None] & ~np.asarray(ours.any(axis=(1, 2)))[None]
            overlap = np.where(both, box_iou(truth.boxes, found.xyxy), overlap)
        return np.asarray(overlap, dtype=np.float32)

    def compact(self, found: Detections, conf: float) -> Detections:
        """Outlines of the confident results instead of masks."""
        confident = found.confidence > conf
        outlines = [_outlines(found, i) if confident[i] else [] for i in range(len(found))]
        return found.with_parts(outlines=_objects(outlines))

    # -- for people

    def draw(self, painter: Painter, image: np.ndarray, found: Detections) -> None:
        """Tint every mask, then draw the boxes."""
        for mask, (x, y), kind in zip(found.parts["masks"], found.parts["corners"].tolist(), found.class_id.tolist()):
            painter.tint(image, mask, (x, y), kind)
        painter.boxes(image, found)

    def record(self, found: Detections, size: Tuple[int, int]) -> Dict[str, List[Any]]:
        """Masks as COCO's compressed run lengths."""
        corners = found.parts["corners"].tolist()
        return {"masks": [encode(mask, (x, y), size) for mask, (x, y) in zip(found.parts["masks"], corners)]}

    def outlines(self, found: Detections, where: Letterbox) -> List[List[List[List[float]]]]:
        """Outlines of the masks."""
        kept: Any = found.parts["outlines"] if "outlines" in found.parts else [()] * len(found)
        return [[where.points_to_original(one).astype(float).round(1).tolist() for one in each] for each in kept]


def mask_iou(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Pairwise IoU of masks: (m, height, width) and (n, height, width) give float32 (m, n)."""
    pixels = truth.shape[1] * truth.shape[2]  # not -1: either side may hold no mask
    a, b = (masks.reshape(len(masks), pixels).astype(np.float32) for masks in (truth, found))
    inner = a @ b.T
    union = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - inner
    return np.asarray(inner / (union + np.float32(1e-7)), dtype=np.float32)


def _cropped(found: Detections, imgsz: Tuple[int, int]) -> np.ndarray:
    """Masks (n, height, width) at the prototypes' resolution: positive logits inside the box."""
    logits = found.parts["logits"]
    height, width = logits.shape[1:]
    ratio = np.array([width / imgsz[1], height / imgsz[0]] * 2, dtype=np.float32)
    boxes = found.xyxy * ratio
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    columns = (x >= boxes[:, :1]) & (x < boxes[:, 2:3])
    rows = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:])
    return np.asarray((logits > 0) & columns[:, None, :] & rows[:, :, None])


def _outlines(found: Detections, index: int) -> List[np.ndarray]:
    """Outer contours of a result's mask, in input pixels."""
    import cv2

    mask = _cropped(found.take(slice(index, index + 1)), _input_size(found))[0].astype(np.uint8)
    contours: Any = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # Contours go through the centres of pixels; one or two points enclose nothing.
    return [(line[:, 0].astype(np.float32) + np.float32(0.5)) * RATIO for line in contours[0] if len(line) > 2]


def _input_size(found: Detections) -> Tuple[int, int]:
    height, width = found.parts["logits"].shape[1:]
    return height * RATIO, width * RATIO


def _mask(logits: np.ndarray, low: np.ndarray, high: np.ndarray, where: Letterbox) -> np.ndarray:
    """A mask in original pixels from x, y ``low`` to ``high``: logits interpolated, not their signs."""
    import cv2

    width, height = (high - low).tolist()
    if not width or not height:
        return np.zeros((height, width), np.uint8)
    # A pixel's centre in the original, then in the input, then among the prototypes' pixels.
    scale = np.array([where.extent[1] / where.original[1], where.extent[0] / where.original[0]])
    small = np.array([logits.shape[1] / where.imgsz[1], logits.shape[0] / where.imgsz[0]])
    offset = ((low + 0.5) * scale + np.array([where.left, where.top])) * small - 0.5
    moved = np.array([[scale[0] * small[0], 0, offset[0]], [0, scale[1] * small[1], offset[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # Beyond the outermost prototypes the nearest logit holds; zeros there would draw an edge.
    values = cv2.warpAffine(logits, moved, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(values > 0, dtype=np.uint8)


def _shrunk(mask: np.ndarray, corner: Sequence[int], where: Letterbox, size: Tuple[int, int]) -> np.ndarray:
    """A mask in original pixels from ``corner`` on, sampled at the prototypes' pixels, (height, width), less 0.5."""
    import cv2

    if not mask.size:
        return np.full(size, -0.5, np.float32)
    # A prototype's pixel's centre, then in the input, then in the original, then in the mask.
    scale = np.array([where.original[1] / where.extent[1], where.original[0] / where.extent[0]])
    step = np.array([where.imgsz[1] / size[1], where.imgsz[0] / size[0]])
    offset = (0.5 * step - np.array([where.left, where.top])) * scale - 0.5 - np.asarray(corner)
    moved = np.array([[scale[0] * step[0], 0, offset[0]], [0, scale[1] * step[1], offset[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    values = cv2.warpAffine(mask.astype(np.float32), moved, size[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(values - 0.5, dtype=np.float32)


def _check_polygon(row: Row) -> None:
    count = len(row.values)
    if count == 4:
        raise DataError(
            f"{row.where}: 5 columns, a box without a polygon or one of 2 points; segmentation needs lines of {FORM}"
        )
    if count % 2:
        raise DataError(f"{row.where}: {count + 1} columns; are these labels of another task? a line is {FORM}")
    if count < 6:
        raise DataError(f"{row.where}: a polygon of {count // 2} points; it needs at least 3")
    row.check_inside(row.values)


def _resampled(polygon: np.ndarray, count: int) -> np.ndarray:
    """A closed polygon with points added along its sides, as Ultralytics' ``resample_segments`` places them."""
    if len(polygon) == count:
        return polygon
    closed = np.concatenate([polygon, polygon[:1]])
    corners = np.arange(len(closed))
    fewer = len(closed) < count
    places = np.linspace(0, len(closed) - 1, count - len(closed) if fewer else count)
    if fewer:
        places = np.insert(places, np.searchsorted(places, corners), corners)
    columns = [np.interp(places, corners, closed[:, i]) for i in range(2)]
    return np.stack(columns, axis=1).astype(np.float32)


def _fill(polygons: Sequence[np.ndarray], imgsz: Tuple[int, int]) -> np.ndarray:
    """Masks (m, height, width): each polygon filled at the input's size and shrunk, the smallest on top."""
    import cv2

    height, width = imgsz[0] // RATIO, imgsz[1] // RATIO
    masks = np.zeros((len(polygons), height, width), np.uint8)
    for mask, polygon in zip(masks, polygons):
        full = np.zeros(imgsz, np.uint8)
        # Cut off to whole pixels, not rounded, as Ultralytics' `polygon2mask`.
        cv2.fillPoly(full, [polygon.astype(np.int32)], color=(1,))
        mask[...] = cv2.resize(full, (width, height))
    order = np.argsort(-masks.sum(axis=(1, 2), dtype=np.int64), kind="stable")
    hidden = np.zeros((height, width), bool)
    result = np.zeros(masks.shape, bool)
    # From the smallest one, which takes its pixels from all that are larger.
    for index in order[::-1]:
        result[index] = (masks[index] > 0) & ~hidden
        hidden |= result[index]
    return result


def _objects(values: Sequence[Any]) -> np.ndarray:
    """An array of objects, one for each value, whatever their shapes."""
    found = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        found[index] = value
    return found
