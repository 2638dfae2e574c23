"""The loss that a training step minimises: distillation, the model's own loss, or both, and damping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..qat.function_hooks import Quantizers
from .distill import FeatureExtractor, Teacher, distillation_loss, feature_loss


class LossOptions(Protocol):
    """What the loss needs to know of a run's options."""

    @property
    def needs_labels(self) -> bool:
        """Whether the model's own loss is part of it."""

    @property
    def distill_weight(self) -> float:
        """Weight of the distillation loss."""

    @property
    def detect_weight(self) -> float:
        """Weight of the model's own loss."""

    @property
    def feature_weight(self) -> float | None:
        """Weight of the distillation of what every layer computes; None and 0 leave it out."""

    @property
    def local_weight(self) -> float:
        """Weight of what each range loses by itself."""

    @property
    def damping(self) -> float:
        """Weight of the pull towards grid points."""


@dataclass
class DistillationCriterion:
    """Stands where Ultralytics' criterion stands: called with raw predictions and the batch.

    Attributes:
        host: Ultralytics' own criterion of the model.
        options: What is minimised.
        teacher: The float model; None without distillation.
        tap: Keeps the student's raw outputs.
        quantizers: The student's, for damping; None for a float student.
        progress: Share of the run that is done, 0 to 1.
    """

    host: Any
    options: LossOptions
    teacher: Teacher | None
    tap: FeatureExtractor | None
    quantizers: Quantizers | None = None
    progress: float = 0.0

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, multiplied by the batch size as Ultralytics does, and its parts."""
        images = batch["img"]
        total = torch.zeros((), device=images.device)
        items: dict[str, Tensor] = {}
        if self.options.needs_labels:
            loss, parts = self.host(preds, batch)
            total = total + loss.sum() * self.options.detect_weight
            items.update(parts)
        if self.teacher is not None and self.tap is not None:
            parts = distillation_loss(self.tap.take(), self.teacher(images), self.teacher.outputs)
            # times the batch, as Ultralytics' own loss is, so that the weights of the two compare
            total = total + torch.stack(list(parts.values())).sum() * images.shape[0] * self.options.distill_weight
            items.update({k: v.detach() for k, v in parts.items()})
            mine, theirs = self.tap.take_features(), self.teacher.tap.take_features()
            if mine:
                gap = feature_loss(mine, theirs)
                total = total + gap * images.shape[0] * (self.options.feature_weight or 0.0)
                items["distill_features"] = gap.detach()
        if self.options.damping and self.quantizers is not None:
            pull = self.quantizers.distance()
            # from none to all over the run: weights must be free to move first
            total = total + pull * images.shape[0] * self.options.damping * self.progress
            items["damping"] = pull.detach()
        if self.options.local_weight and self.quantizers is not None:
            error = self.quantizers.local_error()
            total = total + error * images.shape[0] * self.options.local_weight
            # the mean is shown, since the sum grows with the number of ranges and says nothing to people
            items["range_error"] = error.detach() / len(self.quantizers.ranges)
        return total, items

    def update(self) -> None:
        """Ultralytics calls this after every epoch; its own criterion may shift weights between branches."""
        if hasattr(self.host, "update"):
            self.host.update()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Copies of the model carry no criterion: they would carry the teacher."""
        return None


class NoLoss:
    """Criterion of a model that is only scored."""

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """No loss at all."""
        # an empty mapping: the validator adds what it finds to the parts of the last training loss (Ultralytics
        # 8.4.190)
        return torch.zeros(1), {}


def without_criterion(model: nn.Module) -> nn.Module:
    """Drop a model's criterion, in place."""
    if hasattr(model, "criterion"):
        # None and not deleted: Ultralytics makes its own where it finds None (``BaseModel.loss``)
        model.criterion = None  # type: ignore[assignment]
    return model
