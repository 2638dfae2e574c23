"""What a user says about pruning, checked before any work starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

from ..errors import UsageError
from .criteria import Criterion, FineTune, Kind, Limits, Measure, Scope


@dataclass(frozen=True)
class PruneOptions:
    """Pruning, and the training that follows it.

    Attributes:
        amount: Share of ``target`` that goes, between 0 and 1.
        target: What the share is of: multiplications (``flops``), parameters, channels, or latency measured in
            ``runtime``. Sparse kinds count weights and take no other target.
        kind: Whole channels, single weights, or two of four.
        criterion: How importance is measured; by default ``taylor`` where there are labelled data, else ``l2``.
        scope: The least important channels of the whole network, or the same share everywhere.
        round_to: Pruned layers keep a multiple of so many channels; the runtime's own by default.
        max_ratio: Largest share of a layer that may go.
        ignored: Layers that stay: names or patterns, comma-separated in a command.
        steps: Prune in so many steps, each followed by its share of the epochs.
        blocks: Whole residual bottlenecks to take out before channels go.
        runtime: Target whose latency is measured, and whose channel multiple is the default.
        plan: A saved plan to apply instead of making one.
        sensitivity: A saved analysis whose sensitive layers are protected.
        tolerance: Drop that the analysis allows a single layer.
        permutation: For 2:4, permute channels so that more magnitude stays: ``none`` or ``channel``.
        images: Training images that importance and BatchNorm statistics are measured on.
        seed: Of random choices.
        loss: What the pruned model is trained on.
        teacher: Checkpoint to distil from; the unpruned model by default.
        distill_weight: Weight of the distillation loss.
        detect_weight: Weight of the model's own loss.
        feature_weight: Weight of distilling what every block computes, in the channels that are left; 0 for a teacher
            that is another training of the same model, whose channels mean something else.
        freeze_bn: Fine-tune with the BatchNorm statistics that were measured after pruning, as they are: for sets so
            small that a batch's own statistics mislead.
        allow_unsafe: Read checkpoints that can run code.
    """

    amount: float = 0.5
    target: Measure = Measure.FLOPS
    kind: Kind = Kind.STRUCTURED
    criterion: Criterion | None = None
    scope: Scope = Scope.GLOBAL
    round_to: int | None = None
    max_ratio: float = 0.8
    ignored: tuple[str, ...] = ()
    steps: int = 1
    blocks: int = 0
    runtime: str = "openvino"
    plan: str | None = None
    sensitivity: str | None = None
    tolerance: float = 0.05
    permutation: str = "none"
    images: int = 64
    seed: int = 0
    loss: FineTune = FineTune.BOTH
    teacher: str | None = None
    distill_weight: float = 1.0
    detect_weight: float = 1.0
    feature_weight: float = 4.0
    freeze_bn: bool = False
    allow_unsafe: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise UsageError(
                f"amount={self.amount} is not supported; it is the share to remove, between 0 and 1, for instance 0.5"
            )
        if self.steps < 1 or self.blocks < 0 or self.images < 1:
            raise UsageError("steps and images must be 1 or more, blocks 0 or more")
        if self.permutation not in {"none", "channel"}:
            raise UsageError(f"permutation='{self.permutation}' is unknown; allowed are none and channel")
        if self.kind is not Kind.STRUCTURED and (self.target is not Measure.FLOPS or self.blocks):
            raise UsageError(f"kind={self.kind.value} counts weights; target and blocks belong to kind=structured")
        for name in ("distill_weight", "detect_weight", "feature_weight"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name}={getattr(self, name)} is not supported; it must be 0 or more")
        self.limits()

    def limits(self, default: int = 8, protected: dict[str, float] | None = None) -> Limits:
        """What must stay."""
        return Limits(self.round_to or default, self.max_ratio, self.ignored, protected)

    def measured_by(self, labels: bool) -> Criterion:
        """The criterion, with or without labelled data."""
        return self.criterion or (Criterion.TAYLOR if labels else Criterion.L2)

    @property
    def needs_labels(self) -> bool:
        """Whether fine-tuning uses labels."""
        return self.loss is not FineTune.DISTILL

    @property
    def distils(self) -> bool:
        """Whether a teacher is needed."""
        return self.loss is not FineTune.DETECT

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
        return {k: getattr(v, "value", list(v) if isinstance(v, tuple) else v) for k, v in asdict(self).items()}


_KINDS: dict[str, type[Enum]] = {
    "target": Measure,
    "kind": Kind,
    "criterion": Criterion,
    "scope": Scope,
    "loss": FineTune,
}


def parse(value: Any) -> PruneOptions:
    """Options from what a caller may give: an amount, a mapping or options.

    Raises:
        UsageError: An unknown key or value.
    """
    if isinstance(value, PruneOptions):
        return value
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return PruneOptions(amount=float(value))
        except ValueError:
            raise UsageError(f"prune='{value}' is not supported; give the share to remove, for instance 0.5") from None
    if not isinstance(value, dict):
        raise UsageError(f"prune={value!r} is not supported; give a share, a mapping or PruneOptions")
    known = [f.name for f in fields(PruneOptions)]
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise UsageError(f"prune has no option '{unknown[0]}'; allowed are {', '.join(known)}")
    values = dict(value)
    for name, kind in _KINDS.items():
        if values.get(name) is not None:
            try:
                values[name] = kind(values[name])
            except ValueError:
                allowed = ", ".join(str(k.value) for k in kind)
                raise UsageError(f"{name}='{values[name]}' is unknown; allowed are {allowed}") from None
    ignored = values.get("ignored", ())
    if isinstance(ignored, str):
        ignored = [part.strip() for part in ignored.split(",") if part.strip()]
    values["ignored"] = tuple(ignored)
    return PruneOptions(**values)
