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
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK

from ...bridge.checkpoint import load_model
from ...errors import UsageError
from ...graph.traced_model import TracedModel
from ...io import atomic_path
from ...pruning.criteria import PruningKind
from ...pruning.make_sparse import is_permuted, is_sparse
from ...pruning.metadata import is_pruned, kept_channels, pruned_fraction
from ...pruning.prune_options import PruneOptions, parse
from ...quantization.artifact import save_checkpoint
from .. import distributed as ranks
from ..callbacks import Average, host_criterion
from ..distillation.criterion import DistillationCriterion, NoLoss, without_criterion
from ..distillation.distill import FeatureExtractor, Teacher, head_outputs
from ..task_trainer import TaskTrainer, unwrap_model
from .start import make_sparse_for, masks_for, prune_for

SETTINGS = "prune.json"  # in the run folder, for people and for other processes of the same run
START = "pruned.pt"  # beside last.pt: what training starts from
TEACHER = "teacher.pt"  # beside last.pt: what a resumed run goes on learning from
SCORES = "scores.json"  # in the run folder of a distributed run, for the process that started it
MASKS = "masks.pt"  # beside last.pt: which weights are zero, and which become so when


class PruneTrainer(TaskTrainer):
    """Fine-tunes a pruned YOLO, as ``YOLO("pruned.pt").train(trainer=yoloquant.PruneTrainer, ...)``.

    It becomes the trainer of the model's task. ``prune`` adds a mapping or ``PruneOptions``: a model that is not pruned
    yet is pruned first, and then teaches its smaller self.
    """

    fix = "fine-tune the unpruned model on these data first, then prune it"

    if TYPE_CHECKING:  # what the classes below inherit from Ultralytics
        model: Any

    def __init__(self, cfg: Any = None, overrides: dict[str, Any] | None = None, _callbacks: Any = None) -> None:
        given = dict(overrides or {})
        wanted = given.pop("prune", None)
        # all of these before Ultralytics' constructor, which calls methods of ours (``get_dataset``)
        self._prepared = False
        self.teacher: nn.Module | None = None
        self.taught_by: nn.Module | None = None  # who teaches, if not what the options say
        # workers of a distributed run are given every argument, also those that their user left open
        self._may_step = "nbs" not in given or (RANK != -1 and given["nbs"] == DEFAULT_CFG.nbs)
        self.unpruned_fitness = float("nan")
        if given.get("compile"):
            raise UsageError("compile is not supported with distillation from the unpruned model; leave it out")
        # None is "not said" and not "the defaults": a run must not prune by amounts that nobody asked for
        wanted = _stored(given) if wanted is None else wanted
        self._asked = wanted is not None
        self.prune: PruneOptions = PruneOptions() if wanted is None else parse(wanted)
        arguments = {} if cfg is None else {"cfg": cfg}
        super().__init__(**arguments, overrides=given, _callbacks=_callbacks)  # type: ignore[call-arg]
        # one writer: all processes of a run share the folder
        if RANK in {-1, 0}:
            (self.save_dir / SETTINGS).write_text(json.dumps(self.prune.to_dict(), indent=2), encoding="utf-8")
        if _hang_in_loss not in self.callbacks["on_pretrain_routine_end"]:  # workers are given their parent's
            self.add_callback("on_pretrain_routine_end", _hang_in_loss)
            self.add_callback("on_train_batch_start", _hold_statistics)

    @property
    def settings(self) -> PruneOptions:
        """What is pruned, and how what is left is trained."""
        return self.prune

    def train(self) -> Any:
        """Prune, then train; workers of a distributed run are given the pruned checkpoint and the settings."""
        # workers are given the pruned checkpoint as their model
        if RANK == -1 and not self.resume and not self._prepared:
            self.prepare()
        if not self.ddp:
            return super().train()  # type: ignore[misc]
        # its workers are new processes, which know their parent's arguments and nothing else
        self.args.prune = self.prune.to_dict()
        with ranks.launching(self):
            result = super().train()  # type: ignore[misc]
        self._take_scores()
        return result

    def _take_scores(self) -> None:
        """What the first of the processes that trained measured."""
        path = Path(str(self.save_dir)) / SCORES
        scores = json.loads(path.read_text(encoding="utf-8"))
        self.best_fitness, self.unpruned_fitness = scores["best"], scores["unpruned"]
        # for this process alone
        path.unlink()

    def prepare(self, source: nn.Module | None = None) -> None:
        """Put the pruned model and its teacher into the run folder, from where training takes them.

        Args:
            source: A live model to prune further, whatever was removed before; by default the trainer's own, which is
                pruned unless it is already.
        """
        model = self.model if source is None else source
        module: Any = load_model(model, allow_unsafe=self.prune.allow_unsafe).module.cpu()
        self.check_classes(module.names)
        teacher = self._teacher(module)
        # written before the model is pruned: afterwards nothing knows what it was
        if teacher is not None:
            self._write(teacher, TEACHER)
        # the same call on the result of the first must not prune a second time
        if is_pruned(module) and pruned_fraction(module) >= self.prune.amount:
            share = pruned_fraction(module)
            LOGGER.info(f"{share:.1%} of the multiplications are gone already: training goes on without pruning")
        elif source is not None or not (is_pruned(module) or is_sparse(module)):
            module = self._pruned(module)
        # as a file: workers and resumed runs find it by its path
        self.model = self.args.model = str(self._write(module, START))
        self._prepared = True

    def _write(self, module: nn.Module, name: str) -> Path:
        path = Path(str(self.wdir)) / name
        arguments = {"imgsz": self.args.imgsz, "task": self.args.task}
        # a copy without its loss: that holds the teacher of the step before
        save_checkpoint(path, without_criterion(copy.deepcopy(module)).cpu(), arguments)
        return path

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        """The trained model itself, never rebuilt from its yaml, so that pruned shapes stay."""
        if weights is None:
            raise UsageError(
                f"pruning starts from a trained checkpoint, got '{self.args.model}'; train the float model first, then "
                "give its best.pt"
            )
        return load_model(weights, allow_unsafe=self.prune.allow_unsafe).module

    def setup_model(self) -> Any:
        """The model that is trained, and the one that teaches it."""
        checkpoint = super().setup_model()  # type: ignore[misc]
        # loaded models are frozen for tracing
        self.model.requires_grad_(True)
        self.model.args = self.args
        # a file, since resuming and other processes have nothing else to learn from
        stored = Path(str(self.wdir)) / TEACHER
        if self.prune.distils and stored.is_file():
            self.teacher = load_model(stored, allow_unsafe=self.prune.allow_unsafe).module
        return checkpoint

    def _pruned(self, module: nn.Module) -> nn.Module:
        if not self._asked:
            raise UsageError(
                f"'{self.args.model}' is not pruned, and how much to prune is not said: give prune=0.5, or "
                "prune=dict(amount=..., kind=...)"
            )
        return prune_for(self, module) if self.prune.kind is PruningKind.STRUCTURED else make_sparse_for(self, module)

    def _teacher(self, module: nn.Module) -> nn.Module | None:
        """Who teaches: the caller's choice, or the model before it is pruned."""
        if not self.prune.distils:
            return None
        if self.taught_by is not None:
            return self.taught_by
        if self.prune.teacher is not None:
            return load_model(self.prune.teacher, allow_unsafe=self.prune.allow_unsafe).module
        if is_pruned(module) or is_sparse(module):
            raise UsageError(
                f"'{self.args.model}' is pruned already, and what it was is not known here: give "
                "prune=dict(teacher=<unpruned checkpoint>), or loss=detect to train without a teacher"
            )
        return module

    def build_optimizer(self, model: nn.Module, *args: Any, iterations: float = 1e5, **kwargs: Any) -> Any:
        """Ultralytics' optimizer; a small set gets a step for every batch, where it would wait for ``nbs`` images."""
        # not after resuming: the checkpoint's arguments have the changed nbs already
        if self._may_step and not self.resume and iterations < _FEW_STEPS and self.batch_size < self.args.nbs:
            LOGGER.info(f"{iterations:.0f} steps of nbs={self.args.nbs} images are few: nbs={self.batch_size}")
            self.args.nbs, self.accumulate = self.batch_size, 1
        return super().build_optimizer(model, *args, iterations=iterations, **kwargs)  # type: ignore[misc]

    def validate(self) -> Any:
        """Ultralytics' validation; while weights are still being removed, no checkpoint is the best."""
        if not self.prune.needs_labels:
            self.ema.ema.criterion = NoLoss()  # it is only scored: its own loss was not asked for
        found = super().validate()  # type: ignore[misc]
        # a model that is still denser than asked scores better, and is not what was asked for
        if self.masks is not None and not self.masks.done:
            # 0 is what early stopping takes for "no score yet" (Ultralytics 8.4.190), so patience counts from the full
            # sparsity
            self.best_fitness = None
            self.stopper.best_fitness, self.stopper.best_epoch = 0.0, self.epoch
        return found

    def save_model(self) -> Any:
        """Ultralytics' checkpoints; masks and their schedule beside them, for resuming."""
        if self.masks is not None:
            # before last.pt: masks that are one epoch newer than it still hold its zeros, older ones would let some go
            with atomic_path(Path(str(self.wdir)) / MASKS) as temporary:
                torch.save(self.masks.to_plain(), temporary)
        return super().save_model()  # type: ignore[misc]

    def final_eval(self) -> None:
        """Score best.pt, and drop what only resuming needed."""
        super().final_eval()  # type: ignore[misc]
        # of several processes; a single one has both numbers in memory
        if RANK == 0:
            scores = {"best": float(self.best_fitness or 0.0), "unpruned": self.unpruned_fitness}
            (Path(str(self.save_dir)) / SCORES).write_text(json.dumps(scores), encoding="utf-8")
        # a finished run is not resumed
        for name in (START, TEACHER, MASKS):
            (Path(str(self.wdir)) / name).unlink(missing_ok=True)


def _stored(given: dict[str, Any]) -> Any:
    """Settings that another process of the same run, or the run that is resumed, left in its folder."""
    folders = [Path(str(given["save_dir"]))] if given.get("save_dir") else []
    if isinstance(given.get("resume"), (str, Path)):
        folders.append(Path(given["resume"]).resolve().parent.parent)
    for folder in folders:
        if (folder / SETTINGS).is_file():
            return json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return None


def _hang_in_loss(trainer: PruneTrainer) -> None:
    """Before the first epoch: distillation beside the model's own loss, and zeros that hold."""
    student = unwrap_model(trainer.model)
    # first: whatever is traced, taught and scored below has the zeros already
    trainer.masks = masks_for(trainer, student)
    teacher, tap = None, None
    if trainer.teacher is not None:
        source = load_model(student)
        outputs = head_outputs(student, TracedModel.of(source, _TRACED).graph)
        model = without_criterion(copy.deepcopy(trainer.teacher)).to(trainer.device)
        features = comparable(student, model, trainer.device) if trainer.prune.feature_weight else {}
        teacher = Teacher(model, outputs, student, features)
        # all channels of the student, of which the teacher's are chosen by ``features``
        tap = FeatureExtractor(student, outputs, dict.fromkeys(features))
    student.criterion = DistillationCriterion(
        host=host_criterion(student, trainer.start_epoch) if trainer.prune.needs_labels else None,
        options=trainer.prune,
        teacher=teacher,
        tap=tap,
    )
    # over an epoch, as in ``callbacks``: Ultralytics' ramp hardly averages in a run this short
    trainer.ema.decay = Average(len(trainer.train_loader))
    _score_unpruned(trainer)
    LOGGER.info(f"Fine-tuning by {trainer.prune.loss.value}: {_sizes(student)}")


def comparable(student: nn.Module, teacher: nn.Module, device: torch.device) -> dict[str, torch.Tensor | None]:
    """Blocks of the teacher that the student still has, and which channels are left of each; None for all of them.

    A teacher of other widths, or with its channels in another order, is not what the student was: its results teach.
    """
    sizes = {path: len(kept) for path, (_, kept) in kept_channels(teacher).items()}
    known = kept_channels(student)
    if is_permuted(student) or any(sizes.get(path) != size for path, (size, _) in known.items()):
        LOGGER.info(
            "the teacher's channels are not those of the unpruned model: results are compared, features are not"
        )
        return {}
    whole = {path for path, (size, kept) in known.items() if len(kept) == size}
    return {path: None if path in whole else torch.tensor(kept, device=device) for path, (_, kept) in known.items()}


def _hold_statistics(trainer: PruneTrainer) -> None:
    """Before every batch, since Ultralytics puts the whole model into training mode again and again."""
    if trainer.prune.freeze_bn:
        for module in unwrap_model(trainer.model).modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _score_unpruned(trainer: PruneTrainer) -> None:
    """What the pruned model is measured against: the unpruned one on the same held-back images."""
    # a teacher of the user's own is not what was pruned; without labels there is nothing to score by
    if trainer.teacher is None or trainer.prune.teacher is not None or trainer.unlabelled:
        return
    model: Any = copy.deepcopy(trainer.teacher).to(trainer.device).float()
    # the validator computes a loss beside the scores, whose gains it reads there
    model.args = trainer.args
    # Ultralytics' validator scores the average: put in its place, another model is scored in the very same way
    before, trainer.ema.ema = trainer.ema.ema, without_criterion(model)
    plots, trainer.validator.args.plots = trainer.validator.args.plots, False
    trainer.loss_items, trainer.epoch = {}, trainer.start_epoch
    try:
        model.criterion = NoLoss()
        metrics = trainer.validator(trainer)
        trainer.unpruned_fitness = float((metrics or {}).get("fitness", float("nan")))
    finally:
        trainer.ema.ema, trainer.validator.args.plots = before, plots


_FEW_STEPS = 1000
_TRACED = 64  # pixels: enough to find the head's outputs


def _sizes(model: nn.Module) -> str:
    count = sum(p.numel() for p in model.parameters()) / 1e6
    if not is_pruned(model):
        return f"{count:.2f} M parameters"
    return f"{count:.2f} M parameters, {pruned_fraction(model):.1%} of the multiplications are gone"


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
