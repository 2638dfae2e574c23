"""What tasks have in common that predict at every cell of a feature map: boxes, class scores, and further values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Dict, List, Tuple

import numpy as np

from ..core.decode import Anchors, decode_levels
from ..core.detections import Detections, Selection
from ..core.matching import Matches, Truth, box_iou
from ..core.metrics import ClassScores, MeanTable, Ranked, ap_table, class_scores, per_size_map
from ..core.model_info import HeadLayout, ModelInfo
from ..core.nms import non_max_suppression
from ..errors import DataError, TargetError
from ..io.labels import read_boxes
from .base import Labels, Metric, Scores, Similarity, TaskSpec, checked

if TYPE_CHECKING:
    from .base import Outputs, Sizes


class AnchorTask(TaskSpec):
    """A task whose decoded output is (1, 4 + classes + further, anchors), or (1, max_det, 6 + further) end to end.

    Attributes:
        rotated: Whether the first further value is the angle of a rotated box.
        further: Name of the further values as a part of the outputs; empty if there are none.
    """

    suppressed: ClassVar[bool] = True
    rotated: ClassVar[bool] = False
    further: ClassVar[str] = ""

    def width(self, outputs: Outputs, info: ModelInfo) -> int:
        """Number of further values of each anchor."""
        return 0

    # -- outputs

    def decode_raw(self, outputs: Outputs, info: ModelInfo, conf: float = 0.0) -> Outputs:
        """See ``TaskSpec.decode_raw``."""
        found = self.levels(outputs, info)
        rest = [found[name] for name in (*self.branches[2:], *self.apart) if name in found]
        decoded = decode_levels(
            found["box"],
            found["score"],
            info,
            conf,
            further=rest,
            extend=(lambda anchors: self.extend(anchors, info)) if rest else None,
            rotated=self.rotated,
        )
        # Raw outputs are channels last, a drop-in's prototypes channels first.
        return (decoded, *(np.ascontiguousarray(found[name][0].transpose(0, 3, 1, 2)) for name in self.single))

    def extend(self, anchors: Anchors, info: ModelInfo) -> np.ndarray:
        """Decode the further branches at some anchors: float32 (anchors, values)."""
        return np.concatenate(anchors.further, axis=1)

    def to_pixels(self, outputs: Outputs, info: ModelInfo, conf: float = 0.0) -> Outputs:
        """See ``TaskSpec.to_pixels``; end-to-end outputs are in pixels already."""
        if info.end2end:
            return outputs
        height, width = info.imgsz
        scores = outputs[0][0, 4 : 4 + len(info.names)]
        below = scores.max(axis=0) <= np.float32(conf) if conf > 0 else None  # NaN stays, to be reported
        # A copy: what lies in the backend's buffer may be decoded again, by `verify` for instance.
        decoded = outputs[0].copy() if below is None else outputs[0][:, :, ~below]
        decoded[:, :4] *= np.array([width, height, width, height], np.float32)[None, :, None]
        self.further_to_pixels(decoded[:, 4 + len(info.names) :], info)
        return (decoded, *outputs[1:])

    def further_to_pixels(self, values: np.ndarray, info: ModelInfo) -> None:
        """Turn fractions of the image among further values (1, values, anchors) into pixels, in place."""

    def select(self, outputs: Outputs, layout: HeadLayout, info: ModelInfo, selection: Selection) -> Detections:
        """See ``TaskSpec.select``."""
        rows = self._rows(outputs, layout, info, selection)
        # Copies: a view would keep the whole table alive, with its further values, for every image scored.
        found = Detections(rows[:, :4].copy(), rows[:, 4].copy(), rows[:, 5].astype(np.int64))
        return self.finish(found, rows[:, 6:], outputs, info)

    def finish(self, found: Detections, further: np.ndarray, outputs: Outputs, info: ModelInfo) -> Detections:
        """Results from boxes and their further values (n, values)."""
        return found

    def _rows(self, outputs: Outputs, layout: HeadLayout, info: ModelInfo, selection: Selection) -> np.ndarray:
        if layout is HeadLayout.RAW:
            raise TargetError("the runner returned a raw head; its decode() must turn it into the drop-in layout")
        array = np.asarray(outputs[0]) if outputs else np.zeros((0, 0, 0))
        classes, width = len(info.names), self.width(outputs, info)
        if layout is HeadLayout.END2END:
            rows = checked(array, (1, "max_det", 6 + width), layout.value)[0]
            # Cut in the head's own order, as in Ultralytics, and then sorted, which `Detections` promise.
            rows = rows[rows[:, 4] > selection.conf][: selection.max_det].astype(np.float32)
            return np.asarray(rows[np.argsort(-rows[:, 4], kind="stable")])
        array = checked(array, (1, 4 + classes + width, "anchors"), layout.value)
        return self.suppress(np.asarray(array, dtype=np.float32), classes, selection)

    def suppress(self, array: np.ndarray, classes: int, selection: Selection) -> np.ndarray:
        """Rows of results that survive non-maximum suppression, float32 (n, 6 + values)."""
        s = selection
        return non_max_suppression(array, s.conf, s.iou, s.max_det, multi_label=s.multi_label, classes=classes)

    def output_parts(self, outputs: Outputs, layout: HeadLayout, info: ModelInfo) -> Dict[str, np.ndarray]:
        """See ``TaskSpec.output_parts``; end-to-end rows have no fixed order, so only their sorted scores count."""
        array = outputs[0]
        if layout is HeadLayout.END2END:
            return {"scores": np.sort(array[..., 4])}
        behind = 4 + len(info.names)
        parts = {"boxes": array[:, :4], "scores": array[:, 4:behind]}
        if self.further:
            parts[self.further] = array[:, behind:]
        return parts

    # -- scoring

    def read_labels(self, path: Path, info: ModelInfo) -> Labels:
        """See ``TaskSpec.read_labels``: boxes, or polygons of which the box is taken."""
        return Labels(*read_boxes(path, len(info.names)))

    def similarity(self, prefix: str, truth: Truth, found: Detections) -> np.ndarray:
        """IoU of the boxes."""
        return box_iou(truth.boxes, found.xyxy)

    def scores(
        self, found: Sequence[Detections], matches: Mapping[str, Sequence[Matches]], truths: Sequence[Truth]
    ) -> Scores:
        """See ``TaskSpec.scores``: mean average precision by every similarity."""
        return MeanAp(
            found, matches, truths, {s.prefix: (f"{s.prefix}map50_95", f"{s.prefix}map50") for s in self.similarities}
        )

    def fidelity(
        self, found: Sequence[Detections], matches: Mapping[str, Sequence[Matches]], references: Sequence[Truth]
    ) -> Scores:
        """See ``TaskSpec.fidelity``: mean average precision against the other model's results."""
        return MeanAp(found, matches, references, {s.prefix: (f"{s.prefix}fidelity", "") for s in self.similarities})


class MeanAp(Scores):
    """Mean average precision by every similarity.

    Args:
        found: Results per image.
        matches: Their matches per image, by prefix of the similarity.
        truths: Ground truth per image.
        names: By prefix, the names of AP averaged over IoU 0.5 to 0.95 and of AP at 0.5; none if empty.
    """

    def __init__(
        self,
        found: Sequence[Detections],
        matches: Mapping[str, Sequence[Matches]],
        truths: Sequence[Truth],
        names: Mapping[str, Tuple[str, str]],
    ) -> None:
        # Sorted once for all similarities.
        ranked = Ranked.of(found)
        self._given = ranked, matches, truths
        self._names = names
        self._scores: Dict[str, Dict[int, ClassScores]] = {p: class_scores(ranked, matches[p], truths) for p in names}
        self._last: Dict[str, Tuple[np.ndarray, MeanTable]] = {}
        self._sizes: Sizes = {}

    def table(self, prefix: str, weights: np.ndarray) -> MeanTable:
        """AP of every class by one similarity; the last one is kept, since a thousand resamples take a while."""
        last = self._last.get(prefix)
        # By identity: all who ask hand over the same array of resamples.
        if last is None or last[0] is not weights:
            last = self._last[prefix] = (weights, ap_table(self._scores[prefix], weights).means())
        return last[1]

    def values(self, weights: np.ndarray) -> Dict[str, np.ndarray]:
        """See ``Scores.values``; 0 where there is no truth at all."""
        result: Dict[str, np.ndarray] = {}
        for prefix, (strict, loose) in self._names.items():
            table = self.table(prefix, weights)
            result[strict] = table.map50_95
            if loose:
                result[loose] = table.map50
        return result

    def per_class(self, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """See ``Scores.per_class``."""
        table = self.table(next(iter(self._names)), weights)
        return table.classes, table.per_class

    def per_size(self) -> Sizes:
        """See ``Scores.per_size``."""
        if not self._sizes:
            ranked, matches, truths = self._given
            self._sizes = per_size_map(ranked, matches[next(iter(self._names))], truths)
        return self._sizes


def ap_metrics(prefix: str, what: str) -> Tuple[Metric, Metric]:
    """Both average precisions of a similarity."""
    return (
        Metric(f"{prefix}map50_95", f"{what}mAP50-95", f"{prefix}map_drop"),
        Metric(f"{prefix}map50", f"{what}mAP50", f"{prefix}map50_drop"),
    )


BOX = Similarity("", "box", "bbox")


def numbers(record: Mapping[str, Any], key: str, shape: Tuple[int, ...]) -> np.ndarray:
    """Numbers of one image's results from plain data, float32 of a shape.

    Raises:
        DataError: They are missing, no finite numbers, or others than asked for.
    """
    if key not in record:
        raise DataError(f"results have no '{key}', which this model's task needs; was it another task's model?")
    try:
        found = np.asarray(record[key], dtype=np.float32)
    except (TypeError, ValueError) as exc:
        raise DataError(f"'{key}' of the results are not numbers in the shape {shape}") from exc
    # An empty list has no shape of its own.
    if found.size == 0 and 0 in shape:
        return np.zeros(shape, np.float32)
    if found.shape != shape or not np.isfinite(found).all():
        raise DataError(f"'{key}' of the results have the shape {found.shape}; finite numbers of {shape} are needed")
    return found


def plain(rows: np.ndarray, digits: int) -> List[List[float]]:
    """Rows of an array (n, k) as plain rounded numbers."""
    return [[round(float(v), digits) for v in row] for row in rows]
