"""What is analysed and how it is measured, checked before any work starts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator

from ..options import Names, PathOrNone, option, option_model
from ..options.shared import AllowUnsafe, ClusterAddress, InputSize, MeasuredSplit
from ..options.where import Where, refuse_for_ray
from ..pruning.criteria import ImportanceCriterion

if TYPE_CHECKING:
    import torch


class AnalysisKind(str, Enum):
    """What is done to one part of the model at a time."""

    PRUNE = "prune"
    QUANT = "quant"


class AnalysisMetric(str, Enum):
    """What is measured afterwards."""

    DISTILL = "distill"  # distance of raw head outputs to the float model's: cheap, and needs no labels
    FIDELITY = "fidelity"  # mAP50-95 against the float model's own detections
    MAP = "map"  # mAP50-95 against labels


class Per(str, Enum):
    """What is quantized at a time."""

    LAYER = "layer"  # every point of one layer: weight, result and what follows it
    POINT = "point"


def _shares(values: Any) -> tuple[float, ...]:
    given = values.split(",") if isinstance(values, str) else values
    try:
        # a set: the same share twice would be measured once and shown twice
        ratios = tuple(sorted({float(v) for v in ([given] if isinstance(given, (int, float)) else given)}))
    except (TypeError, ValueError):
        ratios = ()
    if not ratios or not all(0 < r < 1 for r in ratios):
        raise ValueError("each is a share of channels to prune, above 0 and below 1, for instance 0.25,0.5,0.75")
    return ratios


Shares = Annotated[tuple[float, ...], PlainValidator(_shares)]


@option_model
class AnalyzeOptions:
    """A sensitivity analysis."""

    kind: AnalysisKind = option(
        default=AnalysisKind.PRUNE, help="prune (channels of each group) or quant (points of each layer)"
    )
    metric: AnalysisMetric = option(
        default=AnalysisMetric.DISTILL, help="distill (raw outputs, needs no labels), fidelity or map"
    )
    ratios: Shares = option(
        default=(0.25, 0.5, 0.75),
        help="shares of every group that are pruned, separated by commas; each is rounded to what the group allows",
    )
    images: int = option(
        default=16,
        ge=1,
        help="how many images of the split are measured on, none of which calibrates (training_images=); their "
        "float outputs are held in memory",
    )
    split: MeasuredSplit = "val"
    imgsz: InputSize = None
    only: Names = option(default=("*",), help="layers to analyse, separated by commas; patterns with * are allowed")
    criterion: ImportanceCriterion = option(
        default=ImportanceCriterion.L2, help="which channels of a group go first: l1, l2, bn, lamp, taylor or random"
    )
    gradients: Any = option(
        default=None, help="what ``training.prune.gradients`` returns, for criterion=taylor", python_only=True
    )
    round_to: int = option(default=8, ge=1, help="every pruned layer keeps a multiple of so many channels")
    recalibrate_bn: bool | None = option(
        default=None,
        help="take BatchNorm statistics anew after pruning; for all metrics but distill if not given",
    )
    training_images: int = option(
        default=64, ge=1, help="training images that BatchNorm statistics or ranges come from"
    )
    scheme: str = option(
        default="portable",
        help="quantization scheme whose points are analysed; a quantized checkpoint's own ranges are used",
    )
    per: Per = option(default=Per.LAYER, help="quantize a layer or a single point at a time")
    weight_bits: int = option(default=8, ge=2, le=16, help="bits of weights")
    activation_bits: int = option(default=8, ge=2, le=16, help="bits of activations")
    seed: int = option(default=0, help="chooses training images, and channels for criterion=random")
    folder: PathOrNone = option(
        default=None,
        help="where finished measurements are kept: a second start with the same model, data and options goes on there",
        flat="output",
        aliases=("folder",),
        python_only=True,
    )
    allow_unsafe: AllowUnsafe = False
    on: Where = option(default=Where.LOCAL, help="local, or ray: workers of a Ray cluster measure the parts")
    address: ClusterAddress = None

    def __post_init__(self) -> None:
        refuse_for_ray(self.on, address=self.address)

    @property
    def recalibrates(self) -> bool:
        """Whether BatchNorm statistics are taken anew."""
        if self.kind is not AnalysisKind.PRUNE:
            return False
        return self.metric is not AnalysisMetric.DISTILL if self.recalibrate_bn is None else self.recalibrate_bn

    def settings(self) -> dict[str, Any]:
        """Plain data: everything of the options that a measurement depends on."""
        common = {"kind": self.kind.value, "metric": self.metric.value, "images": self.images, "split": self.split}
        if self.kind is AnalysisKind.QUANT:
            names = ("scheme", "weight_bits", "activation_bits")
            return {**common, **{n: getattr(self, n) for n in names}, "per": self.per.value, **self._training(True)}
        # by content: they come from a run, and another run's rank channels otherwise
        products = {"gradients": _digest(self.gradients)} if self.gradients else {}
        return {
            **common,
            "criterion": self.criterion.value,
            "round_to": self.round_to,
            "recalibrate_bn": self.recalibrates,
            **self._training(self.recalibrates or self.criterion is ImportanceCriterion.RANDOM),
            **products,
        }

    def _training(self, used: bool) -> dict[str, Any]:
        # only what a result depends on: changing the rest must not start the journal anew
        return {"training_images": self.training_images, "seed": self.seed} if used else {}


def _digest(gradients: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(gradients):
        digest.update(name.encode() + gradients[name].detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
