"""What quantization-aware training needs to know beyond Ultralytics' own arguments, and presets that need no tuning."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

from ...errors import UsageError
from ...options import TextOrNone, build, option, option_model
from ...options.shared import AllowUnsafe, DetectWeight, DistillWeight
from ...summarized import plain


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


class Preset(str, Enum):
    """How long training is; learning rates follow from the bits."""

    FAST = "fast"
    STANDARD = "standard"
    LONG = "long"


@option_model
class QATOptions:
    """Quantization-aware training."""

    preset: Preset = option(
        default=Preset.STANDARD, help="how long: fast (minutes), standard or long", aliases=("qat",)
    )
    scheme: str = option(
        default="auto",
        help="scheme whose plan is trained; portable serves every runtime; auto is the targets' own where run is given "
        "targets of one scheme only, else portable",
    )
    weight_bits: int = option(default=8, ge=2, le=8, help="bits of weights")
    activation_bits: int = option(
        default=8, ge=2, le=8, help="bits of activations; the network's input and raw head outputs keep eight"
    )
    loss: Loss = option(
        default=Loss.DISTILL, help="distill (from the float model, needs no labels), detect (the model's own) or both"
    )
    teacher: TextOrNone = option(default=None, help="checkpoint to distil from; the float model itself if not given")
    distill_weight: DistillWeight = 1.0
    detect_weight: DetectWeight = 1.0
    feature_weight: float | None = option(
        default=None,
        ge=0,
        help="weight of distilling every layer's feature map, for a teacher of the student's own width; if not given "
        "12 below eight bits, where a few hundred images teach little through the head alone, else 0",
    )
    range_lr: float | None = option(
        default=None, gt=0, help="learning rate of the ranges, their relative change per step; 0.001 if not given"
    )
    learn_offset: bool = option(
        default=False, help="learn the two ends of affine ranges apart, and so their zero_points too"
    )
    learn_heads: bool = option(default=False, help="learn the ranges of raw head outputs too")
    damping: float = option(
        default=0.0,
        ge=0,
        help="weight of the pull towards grid points that keeps weights from oscillating; it grows from 0",
        aliases=("oscillation_dampening",),
    )
    local_weight: float = option(
        default=0.0,
        ge=0,
        help="weight of the error that each range makes by itself, for that range alone: repairs badly calibrated ones",
        aliases=("reconstruction_weight",),
    )
    images: int = option(
        default=128, ge=8, help="how many training images calibrate the ranges that training starts from"
    )
    select: Select = option(
        default=Select.AUTO,
        help="what chooses the best checkpoint: fidelity to the float model, Ultralytics' fitness, or auto: fidelity "
        "where a detector is distilled from itself",
    )
    float_val: bool = option(default=True, help="score the float weights too after every epoch")
    allow_unsafe: AllowUnsafe = False

    def __post_init__(self) -> None:
        if self.feature_weight is None:
            # a teacher that was given may be of another width, whose features cannot be compared
            helps = self.missing_bits > 0 and self.distils and self.teacher is None
            object.__setattr__(self, "feature_weight", _FEATURES if helps else 0.0)

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
        return dict(plain(self))


EPOCHS = MappingProxyType({Preset.FAST: 3, Preset.STANDARD: 10, Preset.LONG: 50})
"""Passes over the training images, where the caller names no number."""

# Measured on YOLO11n: at eight bits a step of 1e-5 already costs more than it can win, since an optimizer that moves
# every weight by its learning rate adds as much noise as rounding does; at four bits 5e-5 gives after 7 epochs what
# 1e-4 does not give after 60, and 5e-4 destroys.
_WEIGHT_LR, _NORM_LR, _RANGE_LR = 1e-6, 1e-4, 1e-3
# YOLO11n with four-bit weights at 1e-4, 104 images: fidelity of held-back ones after 8 epochs 0.65 with 12, 0.50 with 3
_FEATURES = 12.0


def host_defaults(options: QATOptions, given: dict[str, Any]) -> dict[str, Any]:
    """Ultralytics arguments that quantization-aware training wants, for those that the caller left open."""
    batch = given.get("batch", 16)
    epochs = int(given.get("epochs", EPOCHS[options.preset]))
    defaults = {
        "epochs": epochs,
        "optimizer": "AdamW",
        # 1e-6 at eight bits, 5e-5 at four
        "lr0": _WEIGHT_LR * 50 ** (options.missing_bits / 4),
        "lrf": 0.05,
        "cos_lr": True,
        "weight_decay": 0.0,
        "warmup_epochs": 0.0,
        "warmup_bias_lr": 0.0,
        "nbs": batch if isinstance(batch, int) and batch > 0 else 16,  # a step for every batch: small sets have few
        # at eight bits ranges should see what deployment sees; at fewer a small set is learned by heart without mixing
        "mosaic": 1.0 if options.missing_bits else 0.0,
        # the last fifth sees whole images, as the device will
        "close_mosaic": epochs // 5,
    }
    return {k: v for k, v in defaults.items() if k not in given}


def norm_ratio(options: QATOptions) -> float:
    """Learning rate of norms and biases relative to that of weights: they are few, and each moves a whole channel."""
    # 100 at eight bits, 10 at four, where the weights' own rate is fifty times as high
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
    # through ``build``, whose message lists the presets
    if isinstance(value, str):
        return build(QATOptions, {"preset": value}, "qat")
    if not isinstance(value, Mapping):
        raise UsageError(
            f"qat={value!r} is not supported; give a preset ({', '.join(Preset)}), a mapping or QATOptions"
        )
    return build(QATOptions, value, "qat")
