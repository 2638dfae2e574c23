"""What quantization-aware training needs to know beyond Ultralytics' own arguments, and presets that need no tuning."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import Enum
from types import MappingProxyType
from typing import Any

from ...errors import UsageError


class Loss(str, Enum):
    """What training minimises."""

    DISTILL = "distill"
    DETECT = "detect"
    BOTH = "both"


class Select(str, Enum):
    """By what the best checkpoint is chosen, on held-back images."""

    AUTO = "auto"
    FIDELITY = "fidelity"
    FITNESS = "fitness"


@dataclass(frozen=True)
class QATOptions:
    """Quantization-aware training.

    Attributes:
        preset: ``fast``, ``standard`` or ``long``: epochs; learning rates follow from the bits.
        scheme: Scheme whose plan is trained; ``portable`` serves every runtime.
        weight_bits: Bits of weights.
        activation_bits: Bits of activations; the network's input and raw head outputs keep eight.
        loss: Distillation from the float model, the model's own loss, or both.
        teacher: Checkpoint to distil from; the float model itself if None.
        distill_weight: Weight of the distillation loss.
        detect_weight: Weight of the model's own loss.
        feature_weight: Weight of the distillation of every layer's feature map; needs a teacher of the student's own
            width. None for 12 below eight bits, where a few hundred images teach little through the head alone, and 0
            otherwise or with another teacher.
        range_lr: Learning rate of the ranges: their relative change per step.
        learn_offset: Learn the two ends of affine ranges apart, and so their zero_points too.
        learn_heads: Learn the ranges of raw head outputs too.
        damping: Weight of the pull towards grid points that keeps weights from oscillating; it grows from 0.
        local_weight: Weight of the error that each range makes by itself, for that range alone: it repairs ranges that
            were calibrated badly, which the loss behind the network hardly does.
        images: How many training images calibrate the ranges that training starts from.
        select: By what the best checkpoint is chosen; ``auto`` is fidelity to the float model where a detector is
            distilled from itself, else Ultralytics' fitness.
        float_val: Score the float weights too after every epoch.
        minmax: Start from min-max ranges instead of the best calibration; to show what training can repair.
        allow_unsafe: Read checkpoints that can run code.
    """

    preset: str = "standard"
    scheme: str = "portable"
    weight_bits: int = 8
    activation_bits: int = 8
    loss: Loss = Loss.DISTILL
    teacher: str | None = None
    distill_weight: float = 1.0
    detect_weight: float = 1.0
    feature_weight: float | None = None
    range_lr: float | None = None
    learn_offset: bool = False
    learn_heads: bool = False
    damping: float = 0.0
    local_weight: float = 0.0
    images: int = 128
    select: Select = Select.AUTO
    float_val: bool = True
    minmax: bool = False
    allow_unsafe: bool = False

    def __post_init__(self) -> None:
        if self.feature_weight is None:
            helps = self.missing_bits > 0 and self.distils and self.teacher is None
            object.__setattr__(self, "feature_weight", _FEATURES if helps else 0.0)
        if self.preset not in PRESETS:
            raise UsageError(f"preset='{self.preset}' is unknown; allowed are {', '.join(PRESETS)}")
        for name in ("weight_bits", "activation_bits"):
            if not 2 <= getattr(self, name) <= 8:
                raise UsageError(f"{name}={getattr(self, name)} is not supported; allowed are 2 to 8")
        for name in ("distill_weight", "detect_weight", "feature_weight", "damping", "local_weight"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name}={getattr(self, name)} is not supported; it must be 0 or more")

    @property
    def distils(self) -> bool:
        """Whether a teacher is needed."""
        return self.loss is not Loss.DETECT

    @property
    def needs_labels(self) -> bool:
        """Whether the model's own loss is part of it."""
        return self.loss is not Loss.DISTILL

    @property
    def missing_bits(self) -> int:
        """How many bits fewer than eight the narrowest points have."""
        return 8 - min(self.weight_bits, self.activation_bits)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for checkpoints and files."""
        return {k: getattr(v, "value", v) for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Preset:
    """Defaults for Ultralytics' arguments, used where the caller names none.

    Attributes:
        epochs: Passes over the training images.
    """

    epochs: int


PRESETS = MappingProxyType({"fast": Preset(3), "standard": Preset(10), "long": Preset(50)})

# Measured on YOLO11n: at eight bits a step of 1e-5 already costs more than it can win, since an optimizer that moves
# every weight by its learning rate adds as much noise as rounding does; at four bits 5e-5 gives after 7 epochs what
# 1e-4 does not give after 60, and 5e-4 destroys.
_WEIGHT_LR, _NORM_LR, _RANGE_LR = 1e-6, 1e-4, 1e-3
# YOLO11n with four-bit weights at 1e-4, 104 images: fidelity of held-back ones after 8 epochs 0.65 with 12, 0.50 with 3
_FEATURES = 12.0


def host_defaults(options: QATOptions, given: dict[str, Any]) -> dict[str, Any]:
    """Ultralytics arguments that quantization-aware training wants, for those that the caller left open."""
    batch = given.get("batch", 16)
    epochs = int(given.get("epochs", PRESETS[options.preset].epochs))
    defaults = {
        "epochs": epochs,
        "optimizer": "AdamW",
        "lr0": _WEIGHT_LR * 50 ** (options.missing_bits / 4),
        "lrf": 0.05,
        "cos_lr": True,
        "weight_decay": 0.0,
        "warmup_epochs": 0.0,
        "warmup_bias_lr": 0.0,
        "nbs": batch if isinstance(batch, int) and batch > 0 else 16,  # a step for every batch: small sets have few
        # at eight bits ranges should see what deployment sees; at fewer a small set is learned by heart without mixing
        "mosaic": 1.0 if options.missing_bits else 0.0,
        "close_mosaic": epochs // 5,
    }
    return {k: v for k, v in defaults.items() if k not in given}


def norm_ratio(options: QATOptions) -> float:
    """Learning rate of norms and biases relative to that of weights: they are few, and each moves a whole channel."""
    return _NORM_LR / _WEIGHT_LR * 10 ** (-options.missing_bits / 4)


def range_learning_rate(options: QATOptions) -> float:
    """Learning rate of the ranges."""
    return _RANGE_LR if options.range_lr is None else options.range_lr


def parse(value: Any) -> QATOptions:
    """Options from what a caller may give: None, a preset's name, a mapping or options.

    Raises:
        UsageError: An unknown key or value.
    """
    if value is None:
        return QATOptions()
    if isinstance(value, QATOptions):
        return value
    if isinstance(value, str):
        return QATOptions(preset=value)
    if not isinstance(value, dict):
        raise UsageError(
            f"qat={value!r} is not supported; give a preset ({', '.join(PRESETS)}), a mapping or QATOptions"
        )
    known = {f.name: f for f in fields(QATOptions)}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise UsageError(f"qat has no option '{unknown[0]}'; allowed are {', '.join(known)}")
    kinds: dict[str, type[Enum]] = {"loss": Loss, "select": Select}
    values = dict(value)
    for name, kind in kinds.items():
        if name in values:
            try:
                values[name] = kind(values[name])
            except ValueError:
                allowed = ", ".join(str(k.value) for k in kind)
                raise UsageError(f"{name}='{values[name]}' is unknown; allowed are {allowed}") from None
    return QATOptions(**values)
