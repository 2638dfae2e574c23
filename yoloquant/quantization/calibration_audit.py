"""Do the calibration images stand for what the model will see? Judged before export, without labels.

Four questions, each answered from one pass over the images: are there so many that ranges have settled; does the model
see objects in them, and of how many of its classes; are they alike (a black image teaches nothing); and do the images
that will be scored look the same inside the network. The answer travels in the artifact, with a fingerprint of the
calibration's activations that other images can be held against later.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CalibrationError

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.25
"""Score above which the model is taken to see an object."""
SETTLED = 0.1
"""Median growth of the ranges over a doubling of the images that counts as settled."""
FEW_SEEING = 0.5  # share of images with an object; a set for detection has few backgrounds
FEW_CLASSES = 0.25  # share of the model's classes
FAR = 1.6  # distance of scored images, in units of the calibration images' own
ALIKE = 0.02  # relative spread of activations over images; photographs reach 0.1 to 0.3
_SHUFFLES, _MOST = 16, 1 << 14


@dataclass
class ImageStatistics:
    """What each image did inside the network.

    Attributes:
        points: Names of the observed tensors.
        low: Smallest value per image and tensor.
        high: Largest value.
        mean: Mean.
        deviation: Standard deviation.
        classes: Best score of each class, per image; empty rows where the model has no class scores.
    """

    points: tuple[str, ...]
    low: list[Floats] = field(default_factory=list)
    high: list[Floats] = field(default_factory=list)
    mean: list[Floats] = field(default_factory=list)
    deviation: list[Floats] = field(default_factory=list)
    classes: list[Floats] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.low)

    def add(self, moments: Mapping[str, Sequence[float]], classes: Floats) -> None:
        """Add one image.

        Args:
            moments: Smallest and largest value, mean and standard deviation of every tensor.
            classes: Best score of each class.
        """
        table = np.array([moments[name] for name in self.points], np.float64).reshape(-1, 4)
        for column, values in zip((self.low, self.high, self.mean, self.deviation), table.T, strict=True):
            column.append(values)
        self.classes.append(classes)

    @property
    def features(self) -> Floats:
        """(images, 2 * tensors): mean and standard deviation of every tensor."""
        return np.concatenate([np.stack(self.mean), np.stack(self.deviation)], 1)


@dataclass(frozen=True)
class Fingerprint:
    """The calibration's activations in short: what other images are compared with.

    Attributes:
        points: Names of the tensors.
        center: Mean over the images of each feature, see ``ImageStatistics.features``.
        spread: Its standard deviation over the images.
    """

    points: tuple[str, ...]
    center: tuple[float, ...]
    spread: tuple[float, ...]

    @classmethod
    def of(cls, statistics: ImageStatistics) -> Fingerprint:
        """The fingerprint of some images."""
        features = statistics.features
        return cls(
            statistics.points, *(tuple(float(f"{v:.6g}") for v in f) for f in (features.mean(0), features.std(0)))
        )

    @property
    def sha256(self) -> str:
        """Hash of the content."""
        return hashlib.sha256(repr((self.points, self.center, self.spread)).encode()).hexdigest()

    def distance(self, other: ImageStatistics) -> float:
        """How far images are from the calibration: median over them of the root mean square of their z-scores.

        About 1 for images like the calibration's own.

        Raises:
            CalibrationError: The images were observed at other tensors.
        """
        if other.points != self.points:
            raise CalibrationError("the images were observed at other tensors than the calibration; use the same plans")
        center, spread = np.asarray(self.center), np.asarray(self.spread)
        # a tensor that never changed on the calibration images has a spread of 0, and any other value would be
        # infinitely far
        floor = 1e-3 * np.maximum(np.abs(center), np.median(np.abs(center)) + 1e-12)
        z = (other.features - center) / np.maximum(spread, floor)
        # a single tensor that is constant in one set must not decide alone
        return float(np.median(np.sqrt(np.square(np.clip(z, -10, 10)).mean(1))))


@dataclass(frozen=True)
class CalibrationAudit:
    """What was found.

    Attributes:
        images: Number of images.
        growth: Median relative growth of the tensors' ranges from one half of the images to all of them.
        settled_at: How many images would bring that below ``SETTLED``; None if growth does not fall.
        seeing: Share of images in which the model sees an object; None if it has no class scores.
        classes: How many of the model's classes it sees in them; None likewise.
        all_classes: How many classes it has.
        spread: Median relative spread of the activations over the images.
        distance: How far the images that will be scored are from these; None if none were given.
        fingerprint: The activations in short.
        warnings: One sentence for each thing that is wrong; none if all is well.
    """

    images: int
    growth: float
    settled_at: int | None
    seeing: float | None
    classes: int | None
    all_classes: int
    spread: float
    distance: float | None
    fingerprint: Fingerprint
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for provenance."""
        data = asdict(self)
        data["warnings"] = list(self.warnings)
        data["fingerprint"] = {
            "points": list(self.fingerprint.points),
            "center": list(self.fingerprint.center),
            "spread": list(self.fingerprint.spread),
            "sha256": self.fingerprint.sha256,
        }
        return data


def audit(statistics: ImageStatistics, names: Sequence[str], scored: ImageStatistics | None = None) -> CalibrationAudit:
    """Judge calibration images.

    Args:
        statistics: What they did inside the network.
        names: Classes of the model.
        scored: The same of some images that the exports will be scored on; None if there are none.

    Raises:
        CalibrationError: There are fewer than two images.
    """
    if len(statistics) < 2:
        raise CalibrationError(f"an audit needs at least 2 images, got {len(statistics)}")
    growth, settled = _growth(np.stack(statistics.low), np.stack(statistics.high))
    fingerprint = Fingerprint.of(statistics)
    best = np.stack(statistics.classes)
    has_scores = best.shape[1] > 0
    audit = CalibrationAudit(
        images=len(statistics),
        growth=growth,
        settled_at=settled,
        seeing=float((best.max(1) > CONFIDENCE).mean()) if has_scores else None,
        classes=int((best.max(0) > CONFIDENCE).sum()) if has_scores else None,
        all_classes=len(names),
        spread=_spread(fingerprint),
        distance=None if scored is None or not len(scored) else fingerprint.distance(scored),
        fingerprint=fingerprint,
    )
    return CalibrationAudit(**{**vars(audit), "warnings": _warnings(audit)})


def _growth(low: Floats, high: Floats) -> tuple[float, int | None]:
    """Growth of ranges over the last doubling, and where it would fall below ``SETTLED``.

    Averaged over fixed shuffles, since which image comes first is chance. Growth is taken to fall by the same ratio
    with every doubling.
    """
    images = len(low)
    # fixed: the same images must always get the same verdict
    rng = np.random.default_rng(0)
    last, before = [], []
    for _ in range(_SHUFFLES):
        order = rng.permutation(images)
        quarter, half, whole = (
            _widths(low[order[:n]], high[order[:n]]) for n in (-(-images // 4), -(-images // 2), images)
        )
        used = half > 0
        last.append(float(np.median(whole[used] / half[used] - 1)) if used.any() else 0.0)
        used = quarter > 0
        before.append(float(np.median(half[used] / quarter[used] - 1)) if used.any() else 0.0)
    growth, earlier = float(np.mean(last)), float(np.mean(before))
    if growth <= SETTLED:
        return growth, images
    ratio = min(growth / earlier, 0.95) if earlier > 0 else 1.0
    # growth that hardly falls cannot be extrapolated: millions of images would come out
    if ratio >= 0.95:
        return growth, None
    needed = images * 2 ** math.ceil(math.log(SETTLED / growth) / math.log(ratio))
    return growth, needed if needed <= _MOST else None


def _widths(low: Floats, high: Floats) -> Floats:
    return np.asarray(np.maximum(high.max(0), 0) - np.minimum(low.min(0), 0), np.float64)


def _spread(fingerprint: Fingerprint) -> float:
    center, spread = np.asarray(fingerprint.center), np.asarray(fingerprint.spread)
    half = len(center) // 2  # the deviations: means may lie at zero
    usual = center[half:]
    used = usual > 0
    return float(np.median(spread[half:][used] / usual[used])) if used.any() else 0.0


def _warnings(found: CalibrationAudit) -> tuple[str, ...]:
    said = []
    if found.growth > SETTLED:
        enough = f"about {found.settled_at} images would settle them" if found.settled_at else "take more images"
        said.append(
            f"{found.images} calibration images are few: over the last doubling ranges grew by {found.growth:.0%}; "
            f"{enough}"
        )
    if found.spread < ALIKE:
        said.append(
            f"the calibration images are all alike inside the network (spread {found.spread:.1%}): blank, broken or "
            "repeated images; look at them"
        )
    if found.seeing is not None and found.seeing < FEW_SEEING:
        said.append(
            f"the model sees an object in {found.seeing:.0%} of the calibration images; they look foreign to it: "
            "calibrate on images of what it was trained for"
        )
    elif found.classes is not None and found.classes < FEW_CLASSES * found.all_classes:
        said.append(
            f"the model sees {found.classes} of its {found.all_classes} classes in the calibration images; "
            "calibrate on images that show what it will be used for"
        )
    if found.distance is not None and found.distance > FAR:
        said.append(
            f"the scored images are {found.distance:.1f} times as far from the calibration images as those are from "
            "each other; calibrate on images of the same kind"
        )
    return tuple(said)
