"""What the plots of a run show, as numbers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...data.calibration import CalibrationSet
from ...errors import YoloquantError
from ...quantization.calibrate import weight_of
from ...quantization.plan import Plan, Point, PointKind
from ...quantization.qparams import QuantSpec, fake_quantize
from ...quantization.sqnr import Stage, activation_sqnr, weight_sqnr
from .history import EpochScores, History

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One score after each epoch; NaN where it was not measured."""

    name: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Trajectory:
    """How one range moved.

    Attributes:
        name: The point, or the first of those that share the range.
        shared: How many others share it.
        epochs: Epochs done.
        values: Base-two logarithm of the mean scale over the calibrated one.
    """

    name: str
    shared: int
    epochs: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def moved(self) -> float:
        """Largest distance from the calibrated range."""
        return max(map(abs, self.values))


@dataclass(frozen=True)
class Noise:
    """SQNR in dB at both ends of a run, by point name.

    Attributes:
        weights: Before and after, of every weight.
        activations: The same of every activation; empty where no image could be run.
        images: How many images the activations were measured on.
    """

    weights: Mapping[str, tuple[float, float]]
    activations: Mapping[str, tuple[float, float]]
    images: int


@dataclass(frozen=True)
class WeightChange:
    """The weights of one layer before and after, in steps of the calibrated scale of their channel.

    Attributes:
        name: Its weight point.
        spec: Its representation.
        before: Float weights that training started from.
        after: Trained float weights.
        scale_ratio: Median over channels of trained over calibrated scale.
        moved: Relative change of the weights, norm of the difference over norm.
        changed: Share of the weights that quantize to another integer.
        sqnr: In dB, before and after.
    """

    name: str
    spec: QuantSpec
    before: Floats
    after: Floats
    scale_ratio: float
    moved: float
    changed: float
    sqnr: tuple[float, float]


def score_curves(history: History) -> tuple[Curve, Curve, Curve]:
    """Main metric of the quantized and of the float model, and fidelity, for every scored epoch."""
    epochs = tuple(s.epoch for s in history.scores)
    name = history.scores[0].main()[0]
    return (
        Curve(name, epochs, tuple(s.main()[1] for s in history.scores)),
        Curve(name, epochs, tuple(_plain(s, name) for s in history.scores)),
        Curve("fidelity", epochs, tuple(math.nan if s.fidelity is None else s.fidelity for s in history.scores)),
    )


def _plain(scores: EpochScores, name: str) -> float:
    for key, value in (scores.plain or {}).items():
        if key.split("/", 1)[-1] == name:
            return value
    return math.nan


def trajectories(history: History, plan: Plan, kind: PointKind) -> list[Trajectory]:
    """Ranges of one kind, those that moved most first; points that share a range count once."""
    groups = plan.groups().values() if kind is PointKind.ACTIVATION else [(p,) for p in plan.weights]
    epochs = tuple(s.epoch for s in history.scores)
    trajectories = []
    for members in groups:
        name = members[0].name
        if members[0].fixed or any(name not in row for row in history.ranges):
            continue
        start = history.ranges[0][name]
        # base two: doubling and halving a range lie as far from 0
        values = tuple(math.log2(row[name] / start) for row in history.ranges)
        trajectories.append(Trajectory(name, len(members) - 1, epochs, values))
    return sorted(trajectories, key=lambda t: (-t.moved, t.name))


def most_moved(found: Sequence[Trajectory], count: int) -> list[Trajectory]:
    """The ranges that moved most, half of them upwards and half downwards where there are enough of both."""
    up = [t for t in found if t.values[-1] > 0][: count // 2]
    down = [t for t in found if t.values[-1] < 0][: count - len(up)]
    rest = [t for t in found if t not in up and t not in down and t.moved > 0]
    return [*up, *down, *rest][:count]


def measure_noise(before: Stage, after: Stage, files: Sequence[Path], count: int = 4) -> Noise:
    """SQNR of every point at both ends of a run.

    A weight's noise is its own rounding. An activation's is its distance from the float model that training started
    from, the same reference at both ends: what distillation and fidelity are about.

    Args:
        before: What training started from.
        after: What it ended with.
        files: Held-back images, of which a few are run.
        count: How many.
    """
    weights = _both(weight_sqnr(before), weight_sqnr(after))
    try:
        images = _images(after, files, count)
        activations = _both(*(activation_sqnr(stage, images, before.graph) for stage in (before, after)))
    # weights need no images: half a picture is better than none
    except (YoloquantError, RuntimeError, OSError, ValueError) as exc:
        logger.warning("SQNR of activations is not plotted: %s", exc)
        return Noise(weights, {}, 0)
    return Noise(weights, activations, len(images))


def _images(stage: Stage, files: Sequence[Path], count: int) -> list[np.ndarray]:
    info = stage.graph.info
    if info.channels != 3:
        raise ValueError(f"the model takes {info.channels} channels, only colour images can be read here")
    if not files:
        raise ValueError("the held-back images are not known by file name")
    # over the whole list: neighbours may be of one scene
    spread = [files[i] for i in np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)]
    return list(islice(CalibrationSet(tuple(spread), "", "", "").tensors(info.imgsz, info.task), count))


def _both(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    return {name: (value, after[name]) for name, value in before.items() if name in after}


def worst_points(noise: Mapping[str, tuple[float, float]], count: int) -> list[tuple[str, float, float]]:
    """The points with the lowest SQNR at either end: name, before and after; the lowest before first."""
    # by the worse of both ends: a point that training spoilt belongs here too
    chosen = sorted(noise.items(), key=lambda item: min(item[1]))[:count]
    return [(name, *values) for name, values in sorted(chosen, key=lambda item: item[1][0])]


def weight_changes(before: Stage, after: Stage, noise: Noise, count: int = 6) -> list[WeightChange]:
    """The layers whose weights are worth a look: half with the lowest SQNR, half that moved most."""
    changes = {name: _change(before, after, name, sqnr) for name, sqnr in noise.weights.items()}
    noisy = sorted(changes, key=lambda name: min(changes[name].sqnr))
    moved = sorted(changes, key=lambda name: -changes[name].moved)
    half = (count + 1) // 2
    names = list(dict.fromkeys([*noisy[:half], *moved]))[:count]
    return [changes[name] for name in names]


def _change(before: Stage, after: Stage, name: str, sqnr: tuple[float, float]) -> WeightChange:
    point, trained = before.plan.by_name[name], after.plan.by_name[name]
    assert point.params is not None and trained.params is not None
    # float64: the difference of nearly equal weights is what is shown
    old, new = (weight_of(stage.graph, point).astype(np.float64) for stage in (before, after))
    start, end = (_steps(p, old.ndim) for p in (point, trained))
    integers = [_quantized(v, p) / by for v, p, by in ((old, point, start), (new, trained, end))]
    return WeightChange(
        name=name,
        spec=point.spec,
        before=(old / start).ravel(),
        after=(new / start).ravel(),
        scale_ratio=float(np.median(trained.params.scale / point.params.scale)),
        moved=float(np.linalg.norm(new - old) / max(float(np.linalg.norm(old)), 1e-12)),
        changed=float((integers[0].round() != integers[1].round()).mean()),
        sqnr=sqnr,
    )


def _quantized(weight: Floats, point: Point) -> Floats:
    assert point.params is not None
    return fake_quantize(weight, point.params, point.spec)


def _steps(point: Point, dimensions: int) -> Floats:
    """Scales in float64, shaped to divide the weight."""
    assert point.params is not None
    shape = [1] * dimensions
    if point.params.scale.ndim and point.spec.axis is not None:
        shape[point.spec.axis] = -1
    return point.params.scale.astype(np.float64).reshape(shape)
