"""What a user says about pruning, checked before any work starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from ..options import Names, TextOrNone, build, option, option_model
from ..options.shared import AllowUnsafe, DetectWeight, DistillWeight
from ..summarized import plain
from .criteria import FineTune, ImportanceCriterion, Limits, Measure, Permutation, PruningKind, PruningScope

FINE_TUNING = ("steps", "loss", "teacher", "distill_weight", "detect_weight", "feature_weight", "freeze_bn")
"""Options of the training that follows pruning; without training they mean nothing."""
SHARE = "the share to remove, between 0 and 1, for instance 0.5"


@option_model
class PruneOptions:
    """Pruning, and the training that follows it."""

    amount: float = option(
        default=0.5,
        gt=0,
        lt=1,
        help="share of target to remove, between 0 and 1",
        aliases=("pruning_ratio",),
        allowed=SHARE,
    )
    target: Measure = option(
        default=Measure.FLOPS,
        help="what the share is of: flops (multiplications), parameters, channels, or latency measured in runtime=; "
        "the sparse kinds count weights",
    )
    kind: PruningKind = option(
        default=PruningKind.STRUCTURED,
        help="structured (whole channels), unstructured (single weights) or 2:4 (two of four)",
    )
    criterion: ImportanceCriterion | None = option(
        default=None,
        help="how importance is measured: l1, l2, bn, lamp, taylor or random; taylor where data have labels, else l2, "
        "if not given",
    )
    scope: PruningScope = option(
        default=PruningScope.GLOBAL,
        help="global (least important of the network) or uniform (the same share everywhere)",
    )
    round_to: int | None = option(
        default=None, ge=1, help="pruned layers keep a multiple of so many channels; the runtime's own if not given"
    )
    max_ratio: float = option(
        default=0.8, gt=0, lt=1, help="largest share of a layer that may go", aliases=("max_pruning_ratio",)
    )
    ignored: Names = option(
        default=(),
        help="layers that stay, separated by commas; patterns with * are allowed",
        aliases=("ignored_layers",),
    )
    steps: int = option(default=1, ge=1, help="prune in so many steps, each followed by its share of the epochs")
    blocks: int = option(default=0, ge=0, help="whole residual bottlenecks to take out first")
    runtime: str = option(default="openvino", help="target whose latency and channel multiple count")
    plan: TextOrNone = option(default=None, help="saved plan to apply instead of making one")
    sensitivity: TextOrNone = option(default=None, help="saved analysis whose sensitive layers are protected")
    tolerance: float = option(default=0.05, ge=0, help="drop that the analysis allows a single layer")
    permutation: Permutation = option(
        default=Permutation.NONE, help="for 2:4, permute channels so that more magnitude stays: none or channel"
    )
    images: int = option(
        default=64, ge=1, help="training images that importance and BatchNorm statistics are measured on"
    )
    seed: int = option(default=0, help="of random choices")
    loss: FineTune = option(
        default=FineTune.BOTH,
        help="what the pruned model is fine-tuned on: both (labels and the unpruned model), distill or detect",
    )
    teacher: TextOrNone = option(default=None, help="checkpoint to distil from; the unpruned model if not given")
    distill_weight: DistillWeight = 1.0
    detect_weight: DetectWeight = 1.0
    feature_weight: float = option(
        default=4.0,
        ge=0,
        help="weight of distilling what every block computes, in the channels that are left; 0 for a teacher that is "
        "another training of the same model, whose channels mean something else",
    )
    freeze_bn: bool = option(
        default=False,
        help="fine-tune with the BatchNorm statistics measured after pruning: a small set's own batches mislead",
    )
    allow_unsafe: AllowUnsafe = False

    def __post_init__(self) -> None:
        if self.kind is not PruningKind.STRUCTURED and (self.target is not Measure.FLOPS or self.blocks):
            raise UsageError(f"kind={self.kind.value} counts weights; target and blocks belong to kind=structured")

    def limits(self, default: int = 8, protected: dict[str, float] | None = None) -> Limits:
        """What must stay."""
        return Limits(self.round_to or default, self.max_ratio, self.ignored, protected)

    def measured_by(self, labels: bool) -> ImportanceCriterion:
        """The criterion, with or without labelled data."""
        return self.criterion or (ImportanceCriterion.TAYLOR if labels else ImportanceCriterion.L2)

    @property
    def needs_labels(self) -> bool:
        """Whether fine-tuning uses labels."""
        return self.loss is not FineTune.DISTILL

    @property
    def distils(self) -> bool:
        """Whether a teacher is needed."""
        return self.loss is not FineTune.DETECT

    # the criterion that QAT and fine-tuning share asks for these two as well

    @property
    def local_weight(self) -> float:
        """Nothing is quantized."""
        return 0.0

    @property
    def damping(self) -> float:
        """Float weights do not oscillate."""
        return 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for checkpoints and files."""
        return dict(plain(self))


def parse(value: Any) -> PruneOptions:
    """Options from what a caller may give: an amount, a mapping or options.

    Raises:
        UsageError: An unknown key or value.
    """
    if isinstance(value, PruneOptions):
        return value
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            share = float(value)
        except ValueError:
            raise UsageError(f"prune='{value}' is not supported; allowed is {SHARE}") from None
        return PruneOptions(amount=share)
    if not isinstance(value, Mapping):
        raise UsageError(f"prune={value!r} is not supported; give a share, a mapping or PruneOptions")
    return build(PruneOptions, value, "prune")
