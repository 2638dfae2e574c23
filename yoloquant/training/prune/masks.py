"""Hold zeros while a model is trained: through optimizer steps, averaging, checkpoints, resuming and QAT.

What is masked is the raw weight of a convolution or linear layer. Folding a BatchNorm multiplies whole output channels
and a symmetric range maps zero to zero, so the zeros are in the trained, quantized and exported weight alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.utils.torch_utils import unwrap_model

from ...errors import ArtifactError, PruneError, UsageError
from ...sparsity.schedule import Schedule
from ...sparsity.two_four import masks_24
from ...sparsity.unstructured import (
    MaskTensors,
    Sparsity,
    SparsityScope,
    apply_masks,
    magnitude_masks,
    masks_of,
    parameter_for,
)

if TYPE_CHECKING:
    from ..task_trainer import TaskTrainer

logger = logging.getLogger(__name__)


class Pattern(str, Enum):
    """What a run masks."""

    MAGNITUDE = "magnitude"  # single weights, perhaps more and more of them
    TWO_FOUR = "2:4"  # two of every four input channels, from the start
    KEEP = "keep"  # the zeros that the model comes with


@dataclass(frozen=True)
class MaskSpec:
    """What to mask.

    Attributes:
        pattern: Which zeros.
        sparsity: How much, for magnitude; its ``ignored`` holds for every pattern.
        schedule: When, for magnitude, in optimizer steps of the whole run; at once if None. It sets the amount.
    """

    pattern: Pattern = Pattern.MAGNITUDE
    sparsity: Sparsity = field(default_factory=Sparsity)
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if self.schedule is not None and self.pattern is not Pattern.MAGNITUDE:
            raise UsageError(f"a schedule needs pattern=magnitude, got pattern={self.pattern.value}; leave it out")
        if self.schedule is not None and self.schedule.amount != self.sparsity.amount:
            # one amount: of two that disagree nobody could tell which holds
            object.__setattr__(self, "sparsity", replace(self.sparsity, amount=self.schedule.amount))

    def to_plain(self) -> dict[str, Any]:
        """Plain data for checkpoints."""
        sparsity = self.sparsity
        return {
            "pattern": self.pattern.value,
            "amount": sparsity.amount,
            "scope": sparsity.scope.value,
            "ignored": list(sparsity.ignored),
            "schedule": None if self.schedule is None else self.schedule.to_plain(),
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> MaskSpec:
        """Inverse of ``to_plain``; raises what the constructors and a damaged mapping raise."""
        schedule = data["schedule"]
        return cls(
            Pattern(data["pattern"]),
            Sparsity(data["amount"], SparsityScope(data["scope"]), tuple(map(str, data["ignored"]))),
            None if schedule is None else Schedule(**schedule),
        )


class Masks:
    """Masks of one run.

    Attributes:
        spec: What is masked.
        tensors: Masks by parameter name; True is a weight that stays.
        steps: Optimizer steps so far.
    """

    def __init__(self, spec: MaskSpec, tensors: MaskTensors, steps: int = 0) -> None:
        self.spec, self.tensors, self.steps = spec, tensors, steps

    @classmethod
    def start(cls, model: nn.Module, spec: MaskSpec) -> Masks:
        """Choose the first masks, and apply them.

        Call it before the averaged copy of the model is made, and before ranges are calibrated.

        Args:
            model: The live model, perhaps with quantizers attached.
            spec: What to mask.

        Returns:
            The masks.

        Raises:
            PruneError: ``spec`` asks for what the model cannot have; with ``keep``, the model has no zeros.
        """
        masks = cls(spec, {})
        if spec.pattern is Pattern.TWO_FOUR:
            masks.tensors = masks_24(model, spec.sparsity.ignored).masks
        elif spec.pattern is Pattern.KEEP:
            masks.tensors = masks_of(model, spec.sparsity.ignored)
            if not masks.tensors:
                raise PruneError(
                    "pattern=keep holds the zeros of a sparse model, and this one is dense; prune it first"
                )
        else:
            if spec.schedule is not None:
                magnitude_masks(model, spec.sparsity)  # what cannot be reached is refused now, not in the last epoch
            # the share that the schedule starts with; all of it without one
            masks.step(model)
        masks.apply(model)
        return masks

    @property
    def done(self) -> bool:
        """Whether the final masks hold; a checkpoint before that is not the best, whatever it scores."""
        return self.spec.schedule is None or self.spec.schedule.done(self.steps)

    @property
    def amount(self) -> float:
        """Share of zeros in the masks."""
        total = sum(m.numel() for m in self.tensors.values())
        return 1.0 - sum(int(m.sum()) for m in self.tensors.values()) / total if total else 0.0

    def step(self, model: nn.Module) -> bool:
        """Choose the masks that the schedule asks for now; zeros stay zeros.

        Returns:
            Whether the masks changed.
        """
        schedule = self.spec.schedule
        if self.spec.pattern is not Pattern.MAGNITUDE or (schedule is None and self.tensors):
            return False
        if schedule is not None and not schedule.changes_at(self.steps):
            return False
        amount = self.spec.sparsity.amount if schedule is None else schedule.at(self.steps)
        # the masks so far are given: what was dropped once never comes back, or a checkpoint's zeros would wander
        self.tensors = magnitude_masks(model, replace(self.spec.sparsity, amount=amount), self.tensors)
        return True

    def apply(self, *models: nn.Module) -> None:
        """Set what is masked to zero, in the model and in copies of it.

        Raises:
            PruneError: A mask does not fit.
        """
        for model in models:
            apply_masks(model, self.tensors)

    # -- what a trainer calls

    def before_step(self, trainer: TaskTrainer) -> None:
        """Drop gradients of masked weights, so that neither clipping nor momentum counts them."""
        for parameter, dropped in self._dropped(unwrap_model(trainer.model)):
            # a layer that this batch did not reach has none
            if parameter.grad is not None:
                parameter.grad.masked_fill_(dropped, 0.0)

    def after_step(self, trainer: TaskTrainer) -> None:
        """Follow the schedule, then zero the masked weights of the model and of its average, and their momentum."""
        model = unwrap_model(trainer.model)
        self.steps += 1
        # before the zeros are written below, so that a new mask holds from this very step
        if self.step(model):
            logger.debug("step %d: %.1f %% of the weights are masked", self.steps, 100 * self.amount)
        with torch.no_grad():
            for parameter, dropped in self._dropped(model):
                parameter.masked_fill_(dropped, 0.0)
                _forget(trainer.optimizer, parameter, dropped)
        ema = getattr(trainer, "ema", None)
        if ema is not None:
            # averaged with values from before they were masked, weights would come back by a fraction
            self.apply(ema.ema)

    def _dropped(self, model: nn.Module) -> Iterable[tuple[nn.Parameter, Tensor]]:
        for name, mask in self.tensors.items():
            parameter = parameter_for(model, name, mask)
            # moved once and kept: masks are read from a file before the model is on its device
            if mask.device != parameter.device:
                mask = self.tensors[name] = mask.to(parameter.device)
            yield parameter, ~mask

    # -- checkpoints

    def to_plain(self) -> dict[str, Any]:
        """Plain data for a checkpoint: numbers, strings, and eight mask bits in a byte."""
        packed = {
            # a bool tensor takes a byte for each weight, as much as a quarter of the float32 model
            name: {"shape": list(mask.shape), "bits": torch.from_numpy(np.packbits(mask.cpu().numpy().ravel()))}
            for name, mask in self.tensors.items()
        }
        return {"spec": self.spec.to_plain(), "steps": self.steps, "masks": packed}

    @classmethod
    def from_plain(cls, data: Any, model: nn.Module | None = None) -> Masks:
        """Inverse of ``to_plain``.

        Args:
            data: What a checkpoint holds.
            model: The model that it must fit; its masked weights are set to zero.

        Returns:
            The masks.

        Raises:
            ArtifactError: The data are damaged, or do not fit the model.
        """
        try:
            tensors = {str(name): _unpack(entry) for name, entry in data["masks"].items()}
            masks = cls(MaskSpec.from_plain(data["spec"]), tensors, int(data["steps"]))
            if masks.steps < 0:
                raise ValueError(f"steps={masks.steps}")
            if model is not None:
                masks.apply(model)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, UsageError, PruneError) as exc:
            raise ArtifactError(f"the checkpoint's masks are damaged or of another model: {exc}") from exc
        return masks


def _unpack(entry: Mapping[str, Any]) -> Tensor:
    shape = [int(n) for n in entry["shape"]]
    bits = entry["bits"]
    count = int(np.prod(shape))
    # checked before anything is allocated: the numbers come from a file
    if min(shape, default=0) < 1 or bits.dtype != torch.uint8 or bits.numel() != -(-count // 8):
        raise ValueError(f"{bits.numel()} bytes of {bits.dtype} for a mask of shape {shape}")
    flat = np.unpackbits(bits.cpu().numpy(), count=count).astype(bool)
    return torch.from_numpy(flat).reshape(shape)


# left alone, momentum would move masked weights between this step and the next mask, and so the average
def _forget(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, dropped: Tensor) -> None:
    """Zero what an optimizer remembers of masked weights."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == dropped.shape:
            value.masked_fill_(dropped, 0.0)
