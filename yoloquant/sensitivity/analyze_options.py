"""What is analysed and how it is measured, checked before any work starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..pruning.criteria import Criterion

if TYPE_CHECKING:
    import torch


class Kind(str, Enum):
    """What is done to one part of the model at a time."""

    PRUNE = "prune"
    QUANT = "quant"


class Metric(str, Enum):
    """What is measured afterwards."""

    DISTILL = "distill"  # distance of raw head outputs to the float model's: cheap, and needs no labels
    FIDELITY = "fidelity"  # mAP50-95 against the float model's own detections
    MAP = "map"  # mAP50-95 against labels


class Per(str, Enum):
    """What is quantized at a time."""

    LAYER = "layer"  # every point of one layer: weight, result and what follows it
    POINT = "point"


@dataclass(frozen=True)
class AnalyzeOptions:
    """A sensitivity analysis.

    Attributes:
        kind: Pruning groups, or quantization points.
        metric: What is measured.
        ratios: Shares of every group that are pruned, between 0 and 1; each is rounded to what the group allows.
        images: Images that are measured on, the first of the split; their float outputs are held in memory.
        split: Split of the data yaml that they come from.
        imgsz: Input height and width in pixels, or one number; the checkpoint's own by default.
        only: Names or patterns with ``*`` of the parts that are analysed.
        criterion: Which channels of a group go first.
        gradients: What ``training.gradients`` returns, for ``criterion=taylor``.
        round_to: Every pruned layer keeps a multiple of so many channels.
        reestimate: Take BatchNorm statistics anew after pruning; None for where it is worth its time: all metrics but
            ``distill``.
        training_images: Images of the train split that BatchNorm statistics or ranges come from.
        scheme: Quantization scheme whose points are analysed; a quantized checkpoint's own ranges are used.
        per: Whether a layer or a single point is quantized at a time.
        weight_bits: Bits of weights.
        activation_bits: Bits of activations.
        seed: Chooses training images, and channels for ``criterion=random``.
        folder: Where finished measurements are kept; a second start with the same model, data and options goes on from
            there. None keeps none.
        allow_unsafe: Read checkpoints that can run code.
    """

    kind: Kind = Kind.PRUNE
    metric: Metric = Metric.DISTILL
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75)
    images: int = 16
    split: str = "val"
    imgsz: int | Sequence[int] | None = None
    only: tuple[str, ...] = ("*",)
    criterion: Criterion = Criterion.L2
    gradients: Mapping[str, torch.Tensor] | None = field(default=None, repr=False, compare=False)
    round_to: int = 8
    reestimate: bool | None = None
    training_images: int = 64
    scheme: str = "portable"
    per: Per = Per.LAYER
    weight_bits: int = 8
    activation_bits: int = 8
    seed: int = 0
    folder: str | os.PathLike[str] | None = None
    allow_unsafe: bool = False

    def __post_init__(self) -> None:
        closed: dict[str, type[Enum]] = {"kind": Kind, "metric": Metric, "criterion": Criterion, "per": Per}
        for name, allowed in closed.items():
            object.__setattr__(self, name, _member(name, getattr(self, name), allowed))
        object.__setattr__(self, "ratios", _ratios(self.ratios))
        object.__setattr__(self, "only", tuple([self.only] if isinstance(self.only, str) else self.only))
        for name in ("images", "round_to", "training_images"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} is not supported; it must be 1 or more")
        for name in ("weight_bits", "activation_bits"):
            if not 2 <= getattr(self, name) <= 16:
                raise UsageError(f"{name}={getattr(self, name)} is not supported; allowed are 2 to 16")

    @property
    def reestimates(self) -> bool:
        """Whether BatchNorm statistics are taken anew."""
        if self.kind is not Kind.PRUNE:
            return False
        return self.metric is not Metric.DISTILL if self.reestimate is None else self.reestimate

    def settings(self) -> dict[str, Any]:
        """Plain data: everything of the options that a measurement depends on."""
        common = {"kind": self.kind.value, "metric": self.metric.value, "images": self.images, "split": self.split}
        if self.kind is Kind.QUANT:
            names = ("scheme", "weight_bits", "activation_bits")
            return {**common, **{n: getattr(self, n) for n in names}, "per": self.per.value, **self._training(True)}
        products = {"gradients": _digest(self.gradients)} if self.gradients else {}
        return {
            **common,
            "criterion": self.criterion.value,
            "round_to": self.round_to,
            "reestimate": self.reestimates,
            **self._training(self.reestimates or self.criterion is Criterion.RANDOM),
            **products,
        }

    def _training(self, used: bool) -> dict[str, Any]:
        return {"training_images": self.training_images, "seed": self.seed} if used else {}


def _member(name: str, value: Any, allowed: type[Enum]) -> Enum:
    try:
        return allowed(value)
    except ValueError:
        known = ", ".join(str(m.value) for m in allowed)
        raise UsageError(f"{name}='{value}' is unknown; allowed are {known}") from None


def _ratios(values: Any) -> tuple[float, ...]:
    try:
        ratios = tuple(sorted({float(v) for v in ([values] if isinstance(values, (int, float)) else values)}))
    except (TypeError, ValueError):
        ratios = ()
    if not ratios or not all(0 < r < 1 for r in ratios):
        raise UsageError(
            f"ratios={values} is not supported; each is a share of channels to prune, above 0 and below 1, for "
            "instance 0.25,0.5,0.75"
        )
    return ratios


def _digest(gradients: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(gradients):
        digest.update(name.encode() + gradients[name].detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
