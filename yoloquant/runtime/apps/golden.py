"""Golden inputs: images with the results that the export machine got from them, and how close others must come.

Integer kernels of different processors round differently here and there, and a step at an early layer moves every
later value a little. So outputs are compared by the size of their whole difference, and detections by overlap, class
and score, not bit by bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.damaged import UNREADABLE
from ..core.detections import Detections, Selection
from ..core.detector import Detector
from ..core.folder_check import check_relative
from ..errors import BundleError
from ..tasks import TaskSpec

SELECTION = Selection(conf=0.1, iou=0.7, max_det=300, multi_label=False)
"""What is kept of an image's detections: also those that another machine may lift above the threshold."""


@dataclass(frozen=True)
class Tolerances:
    """How far another machine may be off.

    Attributes:
        boxes: Root mean square difference of the decoded boxes of all anchors, relative to their standard deviation;
            over all golden inputs.
        scores: The same of the scores, and of everything else that a task predicts.
        score: Difference of the scores of two detections that are the same.
        iou: Overlap of two detections that are the same.
        agreement: Share of detections above ``conf``, of both machines, that the other one has too.
        conf: Score above which a detection must be there.
        map_drop: Drop of mAP50-95 below the export machine's, as a fraction (0.01 is one point).
    """

    boxes: float
    scores: float
    score: float
    iou: float
    agreement: float
    conf: float = 0.25
    map_drop: float = 0.01


@dataclass(frozen=True)
class GoldenImage:
    """One golden input.

    Attributes:
        image: Path of the image inside the bundle.
        outputs: Path of the outputs (npz: ``arr_0``, ``arr_1`` ...).
        input_sha256: Hash of the tensor that the image became.
        detections: Rows of x1, y1, x2, y2 in pixels of the image, score and class; by falling score.
    """

    image: str
    outputs: str
    input_sha256: str
    detections: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Golden:
    """All golden inputs of a bundle.

    Attributes:
        images: The inputs.
        tolerances: How far another machine may be off.
        made_with: Backend, its version, processor, and whether the target's runtime was simulated.
    """

    images: tuple[GoldenImage, ...]
    tolerances: Tolerances
    made_with: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Golden:
        """The way back.

        Raises:
            BundleError: The data are damaged.
        """
        try:
            images = tuple(_image(entry) for entry in data["images"])
            tolerances = Tolerances(**{key: float(value) for key, value in data["tolerances"].items()})
            return cls(images, tolerances, dict(data["made_with"]))
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise BundleError(
                f"the golden inputs in the manifest are damaged ({exc!r}); copy the bundle again"
            ) from exc


def _image(entry: Mapping[str, Any]) -> GoldenImage:
    rows = tuple(tuple(float(value) for value in row) for row in entry["detections"])
    if any(len(row) != 6 for row in rows):
        raise ValueError("a detection has not six numbers")
    return GoldenImage(
        check_relative(entry["image"]), check_relative(entry["outputs"]), str(entry["input_sha256"]), rows
    )


@dataclass(frozen=True)
class GoldenOutcome:
    """What a detector makes of one image.

    Attributes:
        input_sha256: Hash of the input tensor.
        outputs: The network's own outputs.
        detections: Its detections in pixels of the image.
    """

    input_sha256: str
    outputs: tuple[np.ndarray, ...]
    detections: Detections


def run(detector: Detector, image: np.ndarray) -> GoldenOutcome:
    """Take an image through a detector (which selects by ``SELECTION``), keeping what is compared."""
    tensor, where = detector.preprocess(image)
    # of the prepared input: a machine whose decoder or resize differs is told apart from one whose kernels do
    digest = hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()
    # copies, since a backend may use its buffers again
    outputs = tuple(np.array(output, dtype=np.float32) for output in detector.infer(tensor))
    return GoldenOutcome(digest, outputs, detector.postprocess(outputs, where))


def rows(detections: Detections) -> tuple[tuple[float, ...], ...]:
    """Detections as plain rows, rounded to what matters."""
    return tuple(
        (*(round(float(value), 2) for value in box), round(float(score), 5), float(label))
        for box, score, label in zip(detections.xyxy, detections.confidence, detections.class_id)
    )


def from_rows(table: Sequence[Sequence[float]]) -> Detections:
    """The way back from ``rows``."""
    # Also of no rows at all, which alone would have no columns.
    array = np.asarray(table, dtype=np.float32).reshape(-1, 6)
    return Detections(array[:, :4], array[:, 4], array[:, 5].astype(np.int64))


def read_outputs(path: Path) -> tuple[np.ndarray, ...]:
    """Outputs that ``write_outputs`` wrote, as float32.

    Raises:
        BundleError: The file is damaged.
    """
    try:
        # a bundle comes from elsewhere, and a pickle in it could run code
        with np.load(str(path), allow_pickle=False) as stored:
            return tuple(stored[f"arr_{i}"].astype(np.float32) for i in range(len(stored.files)))
    except UNREADABLE as exc:
        raise BundleError(f"the golden outputs '{path.name}' are damaged ({exc}); copy the bundle again") from exc


def write_outputs(path: Path, outputs: Sequence[np.ndarray]) -> None:
    """Write outputs, compressed; what no tolerance sees is rounded away, so that they are small."""
    np.savez_compressed(str(path), *(rounded(output) for output in outputs))


def rounded(values: np.ndarray) -> np.ndarray:
    """Float32 to 12 bits of mantissa and to multiples of 2**-14: boxes to 0.1 pixels, and tiny scores become 0."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # half of the last bit that stays is added first: cutting off alone would shift every value towards zero
    coarse = ((bits + np.uint32(0x400)) & np.uint32(0xFFFFF800)).view(np.float32)
    return np.asarray(np.rint(coarse * np.float32(2**14)) * np.float32(2**-14), dtype=np.float32)


def output_errors(expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Mean square difference of boxes, scores and other parts on one image, each with the variance of the expected one.

    Raw heads are compared once they are decoded: the logits of one level may hardly vary at all, and then a step of
    their grid is a large part of their spread.

    Args:
        expected: Parts of the export machine's decoded outputs, see ``TaskSpec.output_parts``.
        got: Ours.

    Returns:
        Both by the name of the part; the first is infinite where shapes differ or a value is not finite.
    """
    return {name: _error(values, got[name]) for name, values in expected.items()}


def _error(expected: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    if expected.shape != got.shape:
        return float("inf"), 1.0
    # In float64: a sum of squared pixels over thousands of anchors has more digits than float32.
    error = float(np.mean(np.square(expected - got, dtype=np.float64)))
    return (error if np.isfinite(error) else float("inf")), float(np.var(expected, dtype=np.float64))


def pooled(errors: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """Root mean square difference of each part over several images, relative to the standard deviation of that part."""
    pooled: dict[str, float] = {}
    for part in sorted({name for one in errors for name in one}):
        # Summed before the quotient: an image whose outputs hardly vary would outweigh all others.
        error = sum(one[part][0] for one in errors if part in one)
        spread = sum(one[part][1] for one in errors if part in one)
        # A part that never varies has no spread to divide by: equal is right, and anything else is not.
        pooled[part] = float(np.sqrt(error / spread)) if spread > 0 else (0.0 if error == 0 else float("inf"))
    return pooled


@dataclass(frozen=True)
class Agreement:
    """How the detections of two machines agree on one image.

    Attributes:
        same: Detections above the threshold, of both, that the other machine has too.
        total: Detections above the threshold, of both.
        missing: Those that we lack, as rows.
        unexpected: Those that only we have, as rows.
    """

    same: int
    total: int
    missing: tuple[tuple[float, ...], ...]
    unexpected: tuple[tuple[float, ...], ...]


def compare_detections(expected: Detections, got: Detections, tolerances: Tolerances, task: TaskSpec) -> Agreement:
    """Match detections one to one by class, overlap and score, best overlap first.

    A detection above ``conf`` may be matched with one below it, so that scores beside the threshold do not count.
    """
    ours, theirs = _matched(expected, got, tolerances, task)
    missing = (expected.confidence >= tolerances.conf) & ~theirs
    unexpected = (got.confidence >= tolerances.conf) & ~ours
    total = int((expected.confidence >= tolerances.conf).sum() + (got.confidence >= tolerances.conf).sum())
    lost = int(missing.sum() + unexpected.sum())
    return Agreement(total - lost, total, rows(_only(expected, missing)), rows(_only(got, unexpected)))


def _only(found: Detections, keep: np.ndarray) -> Detections:
    return Detections(found.xyxy[keep], found.confidence[keep], found.class_id[keep])


def _matched(
    expected: Detections, got: Detections, tolerances: Tolerances, task: TaskSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Which of ours and which of theirs have a partner."""
    ours, theirs = np.zeros(len(got), dtype=bool), np.zeros(len(expected), dtype=bool)
    if not len(got) or not len(expected):
        return ours, theirs
    overlap = task.same(expected, got)
    # an overlap of 0 is no candidate: classes and scores enter the matching this way
    overlap[expected.class_id[:, None] != got.class_id[None]] = 0
    overlap[np.abs(expected.confidence[:, None] - got.confidence[None]) > tolerances.score] = 0
    # Stable, so that ties fall alike on every machine.
    for flat in np.argsort(-overlap, axis=None, kind="stable"):
        their, our = divmod(int(flat), len(got))
        if overlap[their, our] < tolerances.iou:
            break
        if not ours[our] and not theirs[their]:
            ours[our] = theirs[their] = True
    return ours, theirs
