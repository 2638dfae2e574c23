"""Ultralytics trainers that fine-tune a pruned model: its shapes stay, and the unpruned model teaches it.

Ultralytics' own ``.train()`` rebuilds a model from its yaml and would undo the pruning. Everything else is its
training: loss, augmentation, optimizer, EMA, AMP, checkpoints, resuming.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils import LOGGER, RANK

from .. import host
from ..artifact import Artifact
from ..errors import TrainingError, UsageError
from ..pruning.apply import RECORD, is_pruned
from ..pruning.choices import Kind
from ..pruning.options import PruneOptions, parse
from ..pruning.sparse import is_sparse
from ..types import Task
from ..writing import atomic_path
from . import unlabelled
from .callbacks import host_criterion
from .criterion import Criterion, NoLoss, without_criterion
from .distill import Tap, Teacher, head_outputs
from .masks import Masks
from .prune_start import make_sparse_for, masks_for, prune_for

try:
    from ultralytics.utils.torch_utils import unwrap_model
except ImportError as exc:
    raise TrainingError(
        f"training needs a later Ultralytics than {host.ultralytics_version()}; it is tested with 8.4.190: "
        'pip install "ultralytics>=8.4.190"'
    ) from exc

SETTINGS = "prune.json"  # in the run folder, for people and for other processes of the same run
TEACHER = "teacher.pt"  # beside last.pt: what a resumed run goes on learning from
MASKS = "masks.pt"  # beside last.pt: which weights are zero, and which become so when


class PruneTrainer:
    """Fine-tunes a pruned YOLO, as ``YOLO("pruned.pt").train(trainer=yoloquant.PruneTrainer, ...)``.

    It becomes the trainer of the model's task. ``prune`` adds a mapping or ``PruneOptions``: a model that is not pruned
    yet is pruned first, and then teaches its smaller self.
    """

    if TYPE_CHECKING:  # what the classes below inherit from Ultralytics
        model: Any

        def __getattr__(self, name: str) -> Any: ...

    def __new__(cls, cfg: Any = None, overrides: dict[str, Any] | None = None, _callbacks: Any = None) -> Any:
        """Choose the trainer of the task."""
        if cls is PruneTrainer:
            task = (overrides or {}).get("task") or "detect"
            if task not in _TRAINERS:
                raise UsageError(f"task '{task}' cannot be trained here; allowed are {', '.join(_TRAINERS)}")
            return super().__new__(_TRAINERS[task])
        return super().__new__(cls)

    def __init__(self, cfg: Any = None, overrides: dict[str, Any] | None = None, _callbacks: Any = None) -> None:
        given = dict(overrides or {})
        wanted = given.pop("prune", None)
        self.masks: Masks | None = None
        self.sparsifies = False  # whether this run makes the zeros, rather than keep those it finds
        self._start: nn.Module | None = None
        self._unpruned: nn.Module | None = None
        self._unlabelled = False
        self.unpruned_fitness = float("nan")
        self._again = False  # prune further what was pruned in an earlier step
        if given.get("compile"):
            raise UsageError("compile is not supported with distillation from the unpruned model; leave it out")
        arguments = {} if cfg is None else {"cfg": cfg}
        super().__init__(**arguments, overrides=given, _callbacks=_callbacks)  # type: ignore[call-arg]
        stored = self.save_dir / SETTINGS
        if wanted is None and stored.is_file():
            wanted = json.loads(stored.read_text(encoding="utf-8"))
        self._asked = wanted is not None
        self.prune: PruneOptions = PruneOptions() if wanted is None else parse(wanted)
        if RANK in {-1, 0}:
            stored.write_text(json.dumps(self.prune.to_dict(), indent=2), encoding="utf-8")
        self.add_callback("on_pretrain_routine_end", _hang_in_loss)

    def train(self) -> Any:
        """Train; the settings travel to the workers of a distributed run among its arguments."""
        if self.ddp:
            self.args.prune = self.prune.to_dict()
        return super().train()  # type: ignore[misc]

    def start_from(self, module: nn.Module, teacher: nn.Module | None = None, *, again: bool = False) -> None:
        """Train this live model, taught by that one; ``again`` prunes it further if it is pruned already."""
        self._start, self._unpruned, self._again = module, teacher, again

    def get_dataset(self) -> Any:
        """Ultralytics' data sets, and plain folders of images without labels."""
        folder = Path(str(self.args.data))
        if unlabelled.is_folder_of_images(folder) and self.args.task != Task.CLASSIFY.value:
            if self.prune.needs_labels:
                raise UsageError(
                    f"data='{folder}' is a folder of images without labels; loss={self.prune.loss.value} needs labels: "
                    "give a data yaml, or loss=distill"
                )
            self._unlabelled = True
            names = host.load_model(self.args.model, allow_unsafe=self.prune.allow_unsafe).names
            self.args.data = str(unlabelled.write_data(folder, names, self.save_dir, seed=self.args.seed))
        return super().get_dataset()  # type: ignore[misc]

    def set_class_weights(self) -> None:
        """As Ultralytics does, where there are labels."""
        if not self._unlabelled:
            super().set_class_weights()  # type: ignore[misc]

    def plot_training_labels(self) -> None:
        """As Ultralytics does, where there are labels."""
        if not self._unlabelled:
            super().plot_training_labels()  # type: ignore[misc]

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        """The trained model itself, never rebuilt from its yaml, so that pruned shapes stay."""
        if weights is None:
            raise UsageError(
                f"pruning starts from a trained checkpoint, got '{self.args.model}'; train the float model first, then "
                "give its best.pt"
            )
        return host.load_model(weights, allow_unsafe=self.prune.allow_unsafe).module

    def setup_model(self) -> Any:
        """The pruned model, and the one that it was: a checkpoint that is not pruned is pruned here."""
        checkpoint = super().setup_model() if self._start is None else None  # type: ignore[misc]
        module: Any = self.model if self._start is None else copy.deepcopy(self._start)
        names = self.data["names"]
        if len(module.names) != len(names):
            raise UsageError(
                f"the model knows {len(module.names)} classes, data='{self.args.data}' has {len(names)}; fine-tune the "
                "unpruned model on these data first, then prune it"
            )
        module.args = self.args
        teacher = self._teacher(module)
        if not self.resume and (self._again or not (is_pruned(module) or is_sparse(module))):
            module = self._pruned(module)
        self._unpruned = teacher
        self.model = module.requires_grad_(True)
        self.model.args = self.args
        return checkpoint

    def _pruned(self, module: nn.Module) -> nn.Module:
        if not self._asked:
            raise UsageError(
                f"'{self.args.model}' is not pruned, and how much to prune is not said: give prune=0.5, or "
                "prune=dict(amount=..., kind=...)"
            )
        return prune_for(self, module) if self.prune.kind is Kind.STRUCTURED else make_sparse_for(self, module)

    def _teacher(self, module: nn.Module) -> nn.Module | None:
        """Who teaches: the caller's choice, the one beside a run's checkpoint, or the model before it is pruned."""
        if not self.prune.distils:
            return None
        stored = Path(str(self.wdir)) / TEACHER
        if self._unpruned is not None:
            return copy.deepcopy(self._unpruned)
        if self.prune.teacher is not None:
            return host.load_model(self.prune.teacher, allow_unsafe=self.prune.allow_unsafe).module
        if self.resume and stored.is_file():
            return host.load_model(stored, allow_unsafe=self.prune.allow_unsafe).module
        if is_pruned(module) or is_sparse(module):
            raise UsageError(
                f"'{self.args.model}' is pruned already, and what it was is not known here: give "
                "prune=dict(teacher=<unpruned checkpoint>), or loss=detect to train without a teacher"
            )
        return copy.deepcopy(module)

    def keep_teacher(self, teacher: nn.Module) -> None:
        """Put the teacher beside last.pt, for resuming."""
        path = Path(str(self.wdir)) / TEACHER
        if RANK not in {-1, 0} or path.is_file():
            return
        with atomic_path(path) as temporary:
            torch.save({"model": without_criterion(copy.deepcopy(teacher)).half(), "train_args": {}}, temporary)

    def optimizer_step(self) -> None:
        """Ultralytics' step; masked weights stay zero."""
        if self.masks is not None:
            self.masks.before_step(self)
        super().optimizer_step()  # type: ignore[misc]
        if self.masks is not None:
            self.masks.after_step(self)

    def validate(self) -> Any:
        """Ultralytics' validation; while weights are still being removed, no checkpoint is the best."""
        found = super().validate()  # type: ignore[misc]
        if self.masks is not None and not self.masks.done:
            self.best_fitness = None
        return found

    def save_model(self) -> Any:
        """Ultralytics' checkpoints; masks and their schedule beside them, for resuming."""
        if self.masks is not None:
            with atomic_path(Path(str(self.wdir)) / MASKS) as temporary:
                torch.save(self.masks.to_plain(), temporary)
        return super().save_model()  # type: ignore[misc]

    def final_eval(self) -> None:
        """Score best.pt, and drop what only resuming needed."""
        super().final_eval()  # type: ignore[misc]
        for name in (TEACHER, MASKS):
            (Path(str(self.wdir)) / name).unlink(missing_ok=True)


def _hang_in_loss(trainer: Any) -> None:
    """Before the first epoch: distillation beside the model's own loss, and zeros that hold."""
    student = unwrap_model(trainer.model)
    trainer.masks = masks_for(trainer, student)
    teacher, tap = None, None
    if trainer._unpruned is not None:
        source = host.load_model(student)
        artifact = Artifact(source, host.model_info(source, (_TRACED, _TRACED)), {})
        outputs = head_outputs(student, artifact.graph)
        trainer.keep_teacher(trainer._unpruned)
        teacher = Teacher(without_criterion(trainer._unpruned).to(trainer.device), outputs, student)
        tap = Tap(student, outputs)
    student.criterion = Criterion(
        host=host_criterion(student, trainer.start_epoch) if trainer.prune.needs_labels else None,
        options=trainer.prune,
        teacher=teacher,
        tap=tap,
    )
    trainer.ema.ema.criterion = None
    _score_unpruned(trainer)
    LOGGER.info(f"Fine-tuning by {trainer.prune.loss.value}: {_sizes(student)}")


def _score_unpruned(trainer: Any) -> None:
    """What the pruned model is measured against: the unpruned one on the same held-back images."""
    if trainer._unpruned is None or RANK not in {-1, 0} or trainer.prune.teacher is not None or trainer._unlabelled:
        return
    model = copy.deepcopy(trainer._unpruned).to(trainer.device).float()
    model.args = trainer.args
    before, trainer.ema.ema = trainer.ema.ema, without_criterion(model)
    plots, trainer.validator.args.plots = trainer.validator.args.plots, False
    trainer.loss_items, trainer.epoch = {}, trainer.start_epoch
    try:
        model.criterion = NoLoss()
        metrics = trainer.validator(trainer)
        trainer.unpruned_fitness = float((metrics or {}).get("fitness", float("nan")))
    finally:
        trainer.ema.ema, trainer.validator.args.plots = before, plots


_TRACED = 64  # pixels: enough to find the head's outputs


def _sizes(model: nn.Module) -> str:
    record = getattr(model, RECORD, None)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    if not record:
        return f"{count:.2f} M parameters"
    macs = record[0]["macs"][0], record[-1]["macs"][1]
    return f"{count:.2f} M parameters, {1 - macs[1] / macs[0]:.1%} of the multiplications are gone"


class DetectPruneTrainer(PruneTrainer, DetectionTrainer):  # type: ignore[misc]
    """Fine-tunes pruned detectors."""


class SegmentPruneTrainer(PruneTrainer, SegmentationTrainer):  # type: ignore[misc]
    """Fine-tunes pruned instance segmentation."""


class PosePruneTrainer(PruneTrainer, PoseTrainer):  # type: ignore[misc]
    """Fine-tunes pruned pose estimation."""


class OBBPruneTrainer(PruneTrainer, OBBTrainer):  # type: ignore[misc]
    """Fine-tunes pruned oriented boxes."""


class ClassifyPruneTrainer(PruneTrainer, ClassificationTrainer):  # type: ignore[misc]
    """Fine-tunes pruned classifiers."""


_TRAINERS: dict[str, type[PruneTrainer]] = {
    Task.DETECT.value: DetectPruneTrainer,
    Task.SEGMENT.value: SegmentPruneTrainer,
    Task.POSE.value: PosePruneTrainer,
    Task.OBB.value: OBBPruneTrainer,
    Task.CLASSIFY.value: ClassifyPruneTrainer,
}
