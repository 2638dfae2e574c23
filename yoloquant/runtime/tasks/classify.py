"""Classification: one probability for each class, compared by which one is the highest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Dict, List, Tuple

import numpy as np

from ..core.crop import CropCanvas
from ..core.detections import Detections, Selection
from ..core.letterbox import Letterbox
from ..core.matching import Matches, Truth
from ..core.model_info import HeadLayout, ModelInfo, Task
from ..errors import ArtifactError, DataError
from .base import Labels, Metric, Scores, Similarity, TaskSpec, checked

if TYPE_CHECKING:
    from ..io.draw import Painter
    from .base import Outputs

SHOWN = 5
"""Classes of a prediction; Ultralytics shows as many."""
FLOOR = 1e-7
"""Smallest probability that a divergence counts with: below it integer outputs are 0."""


class Classify(TaskSpec):
    """Classes of a whole image.

    A result is every class with its probability, the most probable first, without boxes. The decoded output is
    (1, classes) probabilities; the raw one (1, classes) logits.
    """

    task: ClassVar[Task] = Task.CLASSIFY
    metrics: ClassVar[Tuple[Metric, ...]] = (
        Metric("top1", "top-1 accuracy", "top1_drop"),
        Metric("top5", "top-5 accuracy", "top5_drop"),
    )
    similarities: ClassVar[Tuple[Similarity, ...]] = (Similarity("", "class"),)
    branches: ClassVar[Tuple[str, ...]] = ()
    single: ClassVar[Tuple[str, ...]] = ("logits",)
    normalized: ClassVar[bool] = False
    class_folders: ClassVar[bool] = True
    imgsz: ClassVar[int] = 224
    noun: ClassVar[str] = "classifier"
    prepared: ClassVar[str] = "its short side resized to the input's and cropped in the middle"

    def canvas(self, size: Tuple[int, int], imgsz: Tuple[int, int]) -> Any:
        """Resize and centre crop instead of a letterbox."""
        return CropCanvas(size, imgsz)

    def decode_raw(self, outputs: Outputs, info: ModelInfo, conf: float = 0.0) -> Outputs:
        """Softmax."""
        logits = self.levels(outputs, info)["logits"][0]
        if logits.shape != (1, len(info.names)):
            raise ArtifactError(
                f"raw logits have shape {logits.shape}, a model of {len(info.names)} classes has as many"
            )
        # Less the largest, or exp overflows.
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32),)

    def select(self, outputs: Outputs, layout: HeadLayout, info: ModelInfo, selection: Selection) -> Detections:
        """Classes by falling probability: all of them for validation, else the first five."""
        classes = len(info.names)
        array = np.asarray(outputs[0]) if outputs else np.zeros((0, 0))
        values = np.asarray(checked(array, (1, classes), "classification")[0], dtype=np.float32)
        # `multi_label` is what validation asks for: top-5 and divergence need every class.
        order = np.argsort(-values, kind="stable")[: classes if selection.multi_label else SHOWN]
        # One row of zeros that all share, since a class has no box.
        return Detections(np.broadcast_to(np.zeros(4, np.float32), (len(order), 4)), values[order], order)

    def to_original(self, found: Detections, where: Letterbox) -> Detections:
        """The same: a class has no place."""
        return found

    def output_parts(self, outputs: Outputs, layout: HeadLayout, info: ModelInfo) -> Dict[str, np.ndarray]:
        """See ``TaskSpec.output_parts``."""
        return {"scores": outputs[0]}

    def labels_of(
        self,
        images: Sequence[Path],
        info: ModelInfo,
        label_path: Callable[[Path], Path],
        renamed: Mapping[str, str] | None = None,
    ) -> List[Labels]:
        """The class is named by the folder that an image lies in, as for Ultralytics.

        If any folder has the name of a class, folders count by name, and images in others have no label. If none has,
        the sorted folders are the classes in order.
        """
        roots = sorted({image.parent.parent for image in images})
        folders = sorted({p.name for root in roots for p in root.iterdir() if p.is_dir()})
        names = [(renamed or {}).get(folder, folder) for folder in folders]
        places = {name: index for index, name in enumerate(info.names)}
        if not places.keys() & set(names):
            if len(names) != len(info.names):
                raise DataError(
                    f"{roots[0]} has {len(names)} class folders ({', '.join(names[:3])} ...), none named like one "
                    f"of the model's {len(info.names)} classes ({', '.join(info.names[:3])} ...); name them alike"
                )
            places = {name: index for index, name in enumerate(names)}
        known = {folder: places.get(name) for folder, name in zip(folders, names)}
        return [_label(known.get(image.parent.name)) for image in images]

    def reference(self, found: Detections, conf: float, where: Letterbox) -> Truth:
        """The most probable class, whatever its probability."""
        first = found.take(slice(0, 1))
        # by class, in which order `_divergence` compares; files of other programs may lack some
        probabilities = np.zeros(int(found.class_id.max(initial=-1)) + 1, np.float32)
        probabilities[found.class_id] = found.confidence
        parts = {"probabilities": probabilities[None]}
        return Truth(first.xyxy, first.class_id, np.zeros(len(first), np.int64), parts)

    def kept(self, truth: Truth) -> Truth:
        """The same; probabilities are compared once all images are there."""
        return truth

    def match(self, found: Detections, truth: Truth, area_scale: float) -> Dict[str, Matches]:
        """The result of the true class is its partner; there are no thresholds."""
        n = len(found)
        partner = np.full(n, -1, np.int64)
        if len(truth.classes):
            partner[found.class_id == truth.classes[0]] = 0
        # No sizes and no thresholds.
        return {"": Matches(np.zeros((n, 0, 0), np.uint8), partner, (partner >= 0).astype(np.float32))}

    def similarity(self, prefix: str, truth: Truth, found: Detections) -> np.ndarray:
        """1 for the same class."""
        return np.asarray(truth.classes[:, None] == found.class_id, dtype=np.float32)

    def same(self, expected: Detections, got: Detections) -> np.ndarray:
        """1: results of one class are the same."""
        return np.ones((len(expected), len(got)), dtype=np.float32)

    def scores(
        self, found: Sequence[Detections], matches: Mapping[str, Sequence[Matches]], truths: Sequence[Truth]
    ) -> Scores:
        """Top-1 and top-5 accuracy."""
        return TopK(found, truths)

    def fidelity(
        self, found: Sequence[Detections], matches: Mapping[str, Sequence[Matches]], references: Sequence[Truth]
    ) -> Scores:
        """Share of images with the same first class, and the divergence of probabilities."""
        return ClassAgreement(found, references)

    def counted(self, found: Detections) -> np.ndarray:
        """The first class of an image."""
        return found.class_id[:1]

    def draw(self, painter: Painter, image: np.ndarray, found: Detections) -> None:
        """Write the classes below one another."""
        painter.classes(image, found)


def _label(index: int | None) -> Labels:
    found = [] if index is None else [index]
    return Labels(np.array(found, dtype=np.int64), np.zeros((len(found), 4), np.float32))


class TopK(Scores):
    """Top-1 and top-5 accuracy.

    Args:
        found: Results per image, all classes.
        truths: One class per image; images without one do not count.
    """

    def __init__(self, found: Sequence[Detections], truths: Sequence[Truth]) -> None:
        known = [bool(len(t.classes)) for t in truths]
        label = [int(t.classes[0]) if k else -1 for t, k in zip(truths, known)]
        ranks = [_rank(f, index) for f, index in zip(found, label)]
        self._known = np.array(known, dtype=np.float64)
        self._labels = np.array(label, dtype=np.int64)
        self._right = {
            name: np.array([rank < k for rank in ranks], np.float64) for name, k in (("top1", 1), ("top5", SHOWN))
        }

    def values(self, weights: np.ndarray) -> Dict[str, np.ndarray]:
        """See ``Scores.values``."""
        return {name: _mean(right * self._known, self._known, weights) for name, right in self._right.items()}

    def per_class(self, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Top-1 accuracy of each class."""
        return _by_class(self._labels, self._right["top1"], weights)


class ClassAgreement(Scores):
    """Agreement of two models' first classes, and how far their probabilities are apart.

    Args:
        found: Results per image, all classes.
        references: The other model's; see ``Classify.reference``.
    """

    def __init__(self, found: Sequence[Detections], references: Sequence[Truth]) -> None:
        self._known = np.array([bool(len(t.classes)) for t in references], dtype=np.float64)
        self._labels = np.array([int(t.classes[0]) if len(t.classes) else -1 for t in references], dtype=np.int64)
        self._same = np.array([_rank(f, index) == 0 for f, index in zip(found, self._labels)], dtype=np.float64)
        self._divergence = np.array([_divergence(f, t) for f, t in zip(found, references)], dtype=np.float64)

    def values(self, weights: np.ndarray) -> Dict[str, np.ndarray]:
        """``fidelity``, and ``divergence``: Kullback-Leibler, in nats, from the other model's probabilities."""
        return {
            "fidelity": _mean(self._same * self._known, self._known, weights),
            "divergence": _mean(self._divergence * self._known, self._known, weights),
        }

    def per_class(self, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Agreement of images by the other model's first class."""
        return _by_class(self._labels, self._same, weights)


def _by_class(labels: np.ndarray, right: np.ndarray, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Classes that are labelled, and the share of each one's images that is right."""
    classes = np.unique(labels[labels >= 0])
    # (images, classes); weights are (rows, images).
    member = (labels[:, None] == classes).astype(np.float64)
    total, found = weights @ member, weights @ (member * right[:, None])
    # NaN where a resample holds no image of a class, as for average precision.
    return classes, np.divide(found, total, out=np.full(total.shape, np.nan), where=total > 0)


def _rank(found: Detections, label: int) -> int:
    """Place of a class among an image's results; in no top k if it is not there."""
    places = np.flatnonzero(found.class_id == label)
    # not merely behind the last: files of other programs may hold fewer than k classes
    return int(places[0]) if len(places) else sys.maxsize


def _divergence(found: Detections, truth: Truth) -> float:
    if not len(truth.classes) or "probabilities" not in truth.parts:
        return 0.0
    known = truth.parts["probabilities"][0].astype(np.float64)
    # classes that are not among the results of either count as if they were 0
    wanted, got = np.full((2, max(len(known), int(found.class_id.max(initial=-1)) + 1)), FLOOR)
    wanted[: len(known)] = np.maximum(known, FLOOR)
    got[found.class_id] = np.maximum(found.confidence, FLOOR)
    return float((wanted * np.log(wanted / got)).sum())


def _mean(values: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights @ counts
    return np.asarray(np.divide(weights @ values, total, out=np.zeros(len(weights)), where=total > 0))
