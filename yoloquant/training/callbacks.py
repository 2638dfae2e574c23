"""What a run hangs into Ultralytics' callbacks: its loss, its first scores, and the order of its images."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import RandomSampler
from ultralytics.utils.torch_utils import unwrap_model

from ..bridge.checkpoint import load_model
from ..types import AfterEpoch
from .distillation.criterion import DistillationCriterion, without_criterion
from .distillation.distill import FeatureExtractor, Teacher, head_outputs, layers_of
from .qat import calibrate_start as start
from .qat import checkpoint
from .qat.prepare import quantizers_of

if TYPE_CHECKING:
    from .qat.trainer import QATTrainer


# ``on_pretrain_routine_end`` comes after EMA and optimizer are built and before the first batch (Ultralytics 8.4.190)
def _begin(trainer: QATTrainer) -> None:
    """Before the first epoch: hang in the loss, and score what training starts from."""
    student = unwrap_model(trainer.model)
    outputs = head_outputs(student, trainer.artifact.graph)
    teacher, features = None, layers_of(student) if trainer.qat.feature_weight else None
    if trainer.qat.distils:
        # a copy: the original is scored as the reference, and a teacher's head is set to training mode
        model = copy.deepcopy(trainer.float_model)
        if trainer.qat.teacher is not None:
            model = load_model(trainer.qat.teacher, allow_unsafe=trainer.qat.allow_unsafe).module
        model = without_criterion(model).to(trainer.device)
        teacher = Teacher(model, outputs, student, features)
    # Ultralytics asks the model for its loss, and takes a criterion that is there already
    student.criterion = DistillationCriterion(
        host=host_criterion(student, trainer.start_epoch) if trainer.qat.needs_labels else None,
        options=trainer.qat,
        teacher=teacher,
        tap=None if teacher is None else FeatureExtractor(student, outputs, features),
        quantizers=quantizers_of(student),
    )
    # ranges are averaged with the weights: a best epoch is chosen by both
    trainer.ema.decay = Average(len(trainer.train_loader))
    trainer.reference_detections = None
    # Ultralytics' validator reads both, which are set by the first batch only (8.4.190)
    trainer.loss_items = {}
    trainer.epoch = trainer.start_epoch
    if trainer.resumed_from is None:
        start.score_calibrated(trainer)
    else:
        trainer.reference()  # before the randomness of the interrupted run is put back


class Average:
    """Decay of the averaged weights and ranges: over about one epoch.

    Ultralytics' own ramp of 2000 updates hardly averages in a run of some hundred steps.
    """

    def __init__(self, batches: int) -> None:
        # not fewer than 16 steps, or a run of few batches would average nothing; not more than Ultralytics' own ramp
        self.longest = 1.0 - 1.0 / min(max(batches, 16), 2000)

    def __call__(self, updates: int) -> float:
        """Share of the average that stays at an update."""
        # n / (n + 1) is the plain mean of the start and of all steps so far, until these are more than an epoch
        return min(self.longest, updates / (updates + 1))


def host_criterion(student: Any, epochs: int) -> Any:
    """Ultralytics' loss, which of an end-to-end head shifts its weights with every epoch done."""
    criterion = student.init_criterion()
    # only losses of end-to-end heads have a schedule
    if epochs and hasattr(criterion, "updates"):
        # its weights are a function of this count, so that one update leads to where the interrupted run was
        criterion.updates = epochs - 1
        criterion.update()
    return criterion


def _restore_progress(trainer: QATTrainer) -> None:
    if trainer.resumed_from is not None:
        checkpoint.restore_progress(trainer, trainer.resumed_from)


def _advance(trainer: QATTrainer) -> None:
    """Before an epoch, whose order of images depends on nothing but the seed and its number: resuming keeps it."""
    sampler = getattr(trainer.train_loader, "sampler", None)
    # of one process; the sampler of several is told its epoch by Ultralytics and shuffles by that
    if isinstance(sampler, RandomSampler):
        # seed and epoch side by side, so that no two of them give one number
        sampler.generator = torch.Generator().manual_seed((trainer.args.seed << 32) + trainer.epoch)
    # here and not where they are restored: Ultralytics zeroes all gradients after ``on_train_start``
    trainer.accumulation.fill(unwrap_model(trainer.model))
    # 1 in the last epoch, so that damping ends with its whole weight
    unwrap_model(trainer.model).criterion.progress = trainer.epoch / max(trainer.epochs - 1, 1)


def watch_epochs(trainer: Any, after_epoch: AfterEpoch | None) -> None:
    """Tell somebody of every epoch and its score."""
    if after_epoch is None:
        return

    def tell(trainer: Any) -> None:
        if trainer.epoch < trainer.epochs:  # Ultralytics calls it once more for the final scores, as another epoch
            after_epoch(trainer.epoch + 1, float(trainer.fitness or 0.0))

    trainer.add_callback("on_fit_epoch_end", tell)


CALLBACKS = {
    "on_pretrain_routine_end": _begin,
    "on_train_start": _restore_progress,
    "on_train_epoch_start": _advance,
}
