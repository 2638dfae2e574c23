"""What a task has to say: how outputs become results, what results are compared by, and how they are shown.

Every number is computed in numpy, so that a device measures what the export machine measured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Dict, List, Tuple

import numpy as np

from ..core.detections import Detections, Selection
from ..core.letterbox import Canvas, Letterbox, to_tensor
from ..core.matching import Matches, Truth, box_iou, match, size_index
from ..core.model_info import HeadLayout, ModelInfo, Task
from ..errors import TargetError

if TYPE_CHECKING:
    from ..io.draw import Painter

    Outputs = Tuple[np.ndarray, ...]
    Sizes = Dict[str, "float | None"]


@dataclass(frozen=True)
class Metric:
    """One figure that a task is scored by.

    Attributes:
        name: Its key, for instance ``mask_map50_95``.
        title: What people call it.
        drop: The gate's limit on its drop, for instance ``mask_map_drop``.
    """

    name: str
    title: str
    drop: str


@dataclass(frozen=True)
class Similarity:
    """One way to compare two results.

    Attributes:
        prefix: Before the names of its metrics; empty for the main one.
        title: What is compared.
        coco: What pycocotools calls the comparison (``bbox``, ``segm``, ``keypoints``); empty if it has none like it.
    """

    prefix: str
    title: str
    coco: str = ""


@dataclass(frozen=True)
class Labels:
    """What a label file says about one image.

    Attributes:
        classes: int64 (n,).
        boxes: float32 (n, 4), normalised xywh.
        parts: What the task labels besides, each with n rows.
    """

    classes: np.ndarray
    boxes: np.ndarray
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """One labelled object as other formats than label files describe it, in pixels of the image.

    Attributes:
        box: Left, top, right and bottom.
        polygons: Its outline, in one or several parts (points, 2).
        keypoints: (count, 3) as x, y and visibility (0 not labelled, 1 hidden, 2 visible).
    """

    box: Tuple[float, float, float, float]
    polygons: Tuple[np.ndarray, ...] = ()
    keypoints: "np.ndarray | None" = None

    def xywh(self, size: Tuple[int, int]) -> List[float]:
        """The box as a label file has it: centre and sides, as fractions of an image of (height, width)."""
        (left, top, right, bottom), (height, width) = self.box, size
        return [
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        ]


class Scores(ABC):
    """What one model's results are worth against labels, or against another model's results."""

    @abstractmethod
    def values(self, weights: np.ndarray) -> Dict[str, np.ndarray]:
        """Every metric by name, (replicates,), for each row of image weights (replicates, images)."""

    @abstractmethod
    def per_class(self, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Class indices (c,) and the main metric of each, (replicates, c); NaN where a class is not there."""

    def per_size(self) -> Sizes:
        """The main metric of small, medium and large objects; empty where objects have no size."""
        return {}


class TaskSpec(ABC):
    """The rules of one task. Its methods keep no state.

    Attributes:
        task: The task.
        metrics: Figures that it is scored by, the main one first.
        similarities: Ways to compare two results, the main one first.
        branches: Branches of the head that have one raw tensor per level, in the order of raw outputs.
        single: Branches that have one raw tensor in all, behind the others.
        apart: Branches that some files have behind ``branches``: a part of the last one with scales of its own.
        normalized: Whether LiteRT files give boxes as fractions of the image, as Ultralytics expects of the task.
        class_folders: Whether labels are the names of the folders that images lie in.
        keypointed: Whether objects have keypoints.
        suppressed: Whether results are what suppression of upright boxes leaves.
        imgsz: Input side where a checkpoint does not tell one.
        noun: What people call such a model.
        prepared: How an image is brought to the input's size, in words.
        behind: What outputs hold behind boxes and scores, in words; empty if nothing.
    """

    task: ClassVar[Task]
    metrics: ClassVar[Tuple[Metric, ...]]
    similarities: ClassVar[Tuple[Similarity, ...]]
    branches: ClassVar[Tuple[str, ...]]
    single: ClassVar[Tuple[str, ...]] = ()
    apart: ClassVar[Tuple[str, ...]] = ()
    normalized: ClassVar[bool] = True
    class_folders: ClassVar[bool] = False
    keypointed: ClassVar[bool] = False
    suppressed: ClassVar[bool] = False
    imgsz: ClassVar[int] = 640
    noun: ClassVar[str]
    prepared: ClassVar[str] = "letterboxed with grey 114"
    behind: ClassVar[str] = ""

    @property
    def main_metrics(self) -> Tuple[str, ...]:
        """Names of the metrics that a device is held to: the strictest by each similarity."""
        # `metrics` is one group for each similarity, of equal length, the strictest first.
        return tuple(metric.name for metric in self.metrics[:: max(1, len(self.metrics) // len(self.similarities))])

    def named(self, values: Mapping[str, float], *, every: bool = False) -> str:
        """The main metrics in words, or every one."""
        shown = [m for m in self.metrics if (every or m.name in self.main_metrics) and m.name in values]
        return ", ".join(f"{metric.title} {values[metric.name]:.4f}" for metric in shown)

    # -- input

    def canvas(self, size: Tuple[int, int], imgsz: Tuple[int, int]) -> Any:
        """What images of one size are prepared in; see ``letterbox.Canvas``."""
        return Canvas(size, imgsz)

    def prepare(self, image: np.ndarray, imgsz: Tuple[int, int]) -> Tuple[np.ndarray, Letterbox]:
        """Turn an image into a network's input.

        Args:
            image: BGR uint8 (height, width, 3).
            imgsz: Height and width of the input.

        Returns:
            float32 (1, 3, height, width), RGB, 0 to 1; and where the image lies in it.
        """
        canvas = self.canvas((image.shape[0], image.shape[1]), imgsz)
        canvas.fill(image)
        return to_tensor(canvas.pixels), canvas.where

    # -- outputs

    def levelled(self, outputs: int, levels: int) -> Tuple[str, ...]:
        """Branches with a tensor per level, of a file with so many raw outputs.

        Raises:
            TargetError: No file of this task has so many.
        """
        allowed = {len(b) * levels + len(self.single): b for b in (self.branches, self.branches + self.apart)}
        if outputs not in allowed:
            wanted = " or ".join(map(str, allowed))
            raise TargetError(f"the artifact has {outputs} raw outputs, a {self.task.value} model has {wanted}")
        return allowed[outputs]

    def levels(self, outputs: Outputs, info: ModelInfo) -> Dict[str, List[np.ndarray]]:
        """Raw outputs by branch: for every branch the tensors of its levels, and the single ones behind them."""
        count = len(info.strides)
        branches = self.levelled(len(outputs), count)
        found = {name: list(outputs[i * count : (i + 1) * count]) for i, name in enumerate(branches)}
        found.update((name, [outputs[count * len(branches) + i]]) for i, name in enumerate(self.single))
        return found

    @abstractmethod
    def decode_raw(self, outputs: Outputs, info: ModelInfo, conf: float = 0.0) -> Outputs:
        """Turn raw head outputs, channels last, into the drop-in layout.

        Args:
            outputs: Every branch's levels one after the other, in the order of ``branches``, ``apart`` and ``single``.
            info: The model.
            conf: Anchors without any score above it may be left out.

        Raises:
            ArtifactError: The shapes do not fit the model.
        """

    def to_pixels(self, outputs: Outputs, info: ModelInfo, conf: float = 0.0) -> Outputs:
        """Turn fractions of the image in a drop-in's outputs into pixels; see ``decode_raw`` for ``conf``."""
        return outputs

    @abstractmethod
    def select(self, outputs: Outputs, layout: HeadLayout, info: ModelInfo, selection: Selection) -> Detections:
        """Turn drop-in outputs into results in input pixels, by falling score.

        Raises:
            TargetError: An output has another shape than the model's, or holds NaN or infinity.
        """

    def to_original(self, found: Detections, where: Letterbox) -> Detections:
        """Move results into the pixels of the original image, clipped to it."""
        parts = self.parts_to_original(found, where)
        return Detections(where.to_original(found.xyxy), found.confidence, found.class_id, parts)

    def parts_to_original(self, found: Detections, where: Letterbox) -> Mapping[str, np.ndarray]:
        """What a result has besides its box, in the pixels of the original image."""
        return found.parts

    def to_input(self, found: Detections, where: Letterbox) -> Detections:
        """Move results from the pixels of the original image into the input's: the inverse of ``to_original``."""
        parts = self.parts_to_input(found, where)
        return Detections(where.boxes_to_input(found.xyxy), found.confidence, found.class_id, parts)

    def parts_to_input(self, found: Detections, where: Letterbox) -> Mapping[str, np.ndarray]:
        """What a result in original pixels has besides its box, in input pixels."""
        return found.parts

    def read_record(self, record: Mapping[str, Any], count: int, info: ModelInfo) -> Mapping[str, np.ndarray]:
        """What results have besides boxes, in original pixels, from the plain data that ``record`` gives.

        Args:
            record: Plain data of one image, from a file that anybody may have written.
            count: Its results.
            info: The model.

        Raises:
            DataError: It is missing or of another shape.
        """
        return {}

    @abstractmethod
    def output_parts(self, outputs: Outputs, layout: HeadLayout, info: ModelInfo) -> Dict[str, np.ndarray]:
        """Drop-in outputs cut into what has one unit each: ``boxes``, ``scores`` and others.

        Two machines' outputs are compared part by part; parts of rows without a fixed order are left out.
        """

    # -- scoring

    def check_data(self, content: Mapping[str, Any], source: str, info: ModelInfo) -> None:  # noqa: B027
        """Raise DataError if a data yaml does not describe data of this task and model.

        Args:
            content: The yaml.
            source: Its path, for the message.
            info: The model.
        """

    def labels_of(
        self,
        images: Sequence[Path],
        info: ModelInfo,
        label_path: Callable[[Path], Path],
        renamed: Mapping[str, str] | None = None,
    ) -> List[Labels]:
        """Labels of images.

        Args:
            images: The images.
            info: Class names and keypoint shape count.
            label_path: Finds an image's label file.
            renamed: Class names by folder name, where the host knows better ones (ImageNet's codes).

        Raises:
            DataError: See ``read_labels``; or class folders do not fit the model.
        """
        return [self.read_labels(label_path(image), info) for image in images]

    def read_labels(self, path: Path, info: ModelInfo) -> Labels:
        """Read an image's label file.

        Args:
            path: The file; a missing one means an image without objects, as for Ultralytics.
            info: Class names and keypoint shape count.

        Raises:
            DataError: A line is malformed, out of range or one of another task's.
        """
        raise NotImplementedError(f"{self.task.value} models have no label files")

    def label_line(self, drawn: Drawn, size: Tuple[int, int]) -> List[float]:
        """What a label file says of an object behind its class: the inverse of ``read_labels``.

        Args:
            drawn: The object; its outline is one polygon.
            size: Height and width of its image.

        Raises:
            DataError: It lacks what the task is about.
        """
        return drawn.xywh(size)

    def truth(self, labels: Labels, where: Letterbox, info: ModelInfo) -> Truth:
        """Labels as ground truth in input pixels."""
        boxes = where.to_input(labels.boxes)
        parts = self.truth_parts(labels, where, info) if labels.parts else {}  # images without labels have none
        return Truth(boxes, labels.classes, size_index(boxes, where.area_scale), parts)

    def truth_parts(self, labels: Labels, where: Letterbox, info: ModelInfo) -> Mapping[str, np.ndarray]:
        """What labels have besides boxes, in input pixels."""
        return {}

    def reference(self, found: Detections, conf: float, where: Letterbox) -> Truth:
        """A model's results above a confidence as ground truth for another one."""
        # Only what the model is sure of: the long tail of a validation is no ground truth.
        confident = found.above(conf)
        sizes = size_index(confident.xyxy, where.area_scale)
        return Truth(confident.xyxy, confident.class_id, sizes, self.reference_parts(confident, where))

    def reference_parts(self, found: Detections, where: Letterbox) -> Mapping[str, np.ndarray]:
        """What another model's results are compared with besides boxes."""
        return found.parts

    def kept(self, truth: Truth) -> Truth:
        """What is kept of ground truth once an image is matched: little memory."""
        # Without parts: masks of thousands of images would fill the memory.
        return Truth(truth.boxes, truth.classes, truth.sizes)

    def match(self, found: Detections, truth: Truth, area_scale: float) -> Dict[str, Matches]:
        """Match results with ground truth by every similarity; by its prefix."""
        return {
            s.prefix: match(found, truth, area_scale, self.similarity(s.prefix, truth, found))
            for s in self.similarities
        }

    @abstractmethod
    def similarity(self, prefix: str, truth: Truth, found: Detections) -> np.ndarray:
        """How similar each truth is to each result, float32 (m, n), 0 to 1."""

    def same(self, expected: Detections, got: Detections) -> np.ndarray:
        """How similar results of one class are by their boxes alone, (m, n), for results of two machines."""
        # Masks and keypoints are compared as parts of the raw outputs (`output_parts`), so boxes are enough here.
        return box_iou(expected.xyxy, got.xyxy)

    @abstractmethod
    def scores(
        self, found: Sequence[Detections], matches: Mapping[str, Sequence[Matches]], truths: Sequence[Truth]
    ) -> Scores:
        """Score results of every image against labels: ``values`` has the names of ``metrics``."""

    @abstractmethod
    def fidelity(
        self, found: Sequence[Detections], matches: Mapping[str, Sequence[Matches]], references: Sequence[Truth]
    ) -> Scores:
        """Score results against another model's: ``values`` has ``fidelity`` and what else tells them apart."""

    def compact(self, found: Detections, conf: float) -> Detections:
        """What is kept of an image's results once they are matched: little memory, and what pictures need."""
        return found

    # -- for people

    def counted(self, found: Detections) -> np.ndarray:
        """Classes that count as found in an image."""
        return found.class_id

    def draw(self, painter: Painter, image: np.ndarray, found: Detections) -> None:
        """Draw results onto their image, in place."""
        painter.boxes(image, found)

    def record(self, found: Detections, size: Tuple[int, int]) -> Dict[str, List[Any]]:
        """What results have besides boxes, scores and classes, as plain data; ``size`` is the image's height, width."""
        return {}

    def outlines(self, found: Detections, where: Letterbox) -> List[List[List[List[float]]]]:
        """Lines that show each result in the original image besides its box: lists of x, y; see the report."""
        return [[] for _ in range(len(found))]


def labels_bytes(labels: Labels) -> bytes:
    """Labels as bytes that are the same on every machine, to be hashed."""
    parts = [labels.classes.astype("<i8").tobytes(), labels.boxes.astype("<f4").tobytes()]
    for name in sorted(labels.parts):
        rows = labels.parts[name]
        # Row by row, since polygons differ in length; the order of bytes is fixed, or the hash would be the machine's.
        parts += [np.asarray(row).astype("<f4").tobytes() for row in rows]
    return b"".join(parts)


def checked(array: np.ndarray, wanted: Sequence[int | str], what: str) -> np.ndarray:
    """An output of a network, if it has a shape and is finite.

    Args:
        array: The output.
        wanted: Its sides; a name stands for a side of any length.
        what: Its name, for the message.

    Raises:
        TargetError: It has another shape, or holds NaN or infinity.
    """
    fits = array.ndim == len(wanted) and all(isinstance(w, str) or w == side for w, side in zip(wanted, array.shape))
    if not fits:
        raise TargetError(
            f"the runner returned an output of shape {array.shape}, but {what} needs ({', '.join(map(str, wanted))}); "
            "was it exported with another task or number of classes?"
        )
    # One sum instead of a test of every value: NaN and infinity survive it.
    if not np.isfinite(array.sum()):
        raise TargetError("the runner returned NaN or infinite outputs; the artifact is numerically broken")
    return array
