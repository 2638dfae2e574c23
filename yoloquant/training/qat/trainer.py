"""Ultralytics trainers with learned ranges: the one place that subclasses them.

Only stable extension points are used: ``get_model``, ``setup_model``, ``build_optimizer``, ``preprocess_batch``,
``get_validator``, ``validate``, ``save_model``, ``resume_training``, ``final_eval`` and callbacks; of the private ones
only ``_handle_nan_recovery``. Nothing is patched.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils import LOGGER, RANK

from ...bridge.checkpoint import load_model
from ...bridge.host_model import HostModel
from ...errors import TrainingError, UsageError
from ...pruning.make_sparse import is_sparse
from ...quantization.artifact import Artifact
from ...quantization.plan import Plan
from ...runtime.tasks import spec_of
from ...types import Task
from .. import distributed as ranks
from ..callbacks import CALLBACKS
from ..distillation.criterion import NoLoss
from ..prune.masks import Masks, MaskSpec, Pattern
from ..state import Accumulation, random_state
from ..task_trainer import TaskTrainer, unwrap_model
from . import calibrate_start as start
from . import checkpoint
from .function_hooks import disabled
from .history import EpochScores, History
from .lsq import LSQQuantizer
from .prepare import corrected, current_plan, live_corrections, merge_branches, prepare_qat, quantizers_of
from .qat_options import QATOptions, Select, host_defaults, norm_ratio, parse, range_learning_rate
from .scores import Capture, agreement

logger = logging.getLogger(__name__)

SETTINGS = "qat.json"  # in the run folder: the settings, for people and for other processes of the same run


class QATTrainer(TaskTrainer):
    """Quantization-aware training of any YOLO, as ``YOLO(...).train(trainer=yoloquant.QATTrainer, ...)``.

    It becomes the trainer of the model's task. Every argument of Ultralytics' training works as it does there; ``qat``
    adds a preset's name, a mapping, or ``QATOptions``.
    """

    fix = "fine-tune the float model on these data first, then train it here"
    artifact: Artifact  # what training started from; set with the model
    plan: Plan  # of the scheme that is learned
    corrections: dict[str, np.ndarray]  # of biases, by which calibration moves class scores, by live path
    float_model: nn.Module  # what training started from, in float: it teaches, and fidelity is held against it
    resumed_from: checkpoint.ResumableRun | None

    if TYPE_CHECKING:  # what the classes below inherit from Ultralytics
        amp: Any

    def __init__(self, cfg: Any = None, overrides: dict[str, Any] | None = None, _callbacks: Any = None) -> None:
        given = dict(overrides or {})
        wanted = given.pop("qat", None)
        # known before the constructor below reads the data, which asks whether labels are needed
        self.qat: QATOptions = _settings(given) if wanted is None else parse(wanted)
        # set before Ultralytics' constructor, which reads the data set and asks for class names
        self._source: HostModel | None = None
        self.history = History()
        self.accumulation = Accumulation()
        self.random_states: list[Any] = []  # of every process, at the end of the last epoch
        self.reference_detections: list[Any] | None = None
        if not given.get("resume"):
            # only for a new run: a resumed one has all of its arguments in the checkpoint
            given.update(host_defaults(self.qat, given))
            _refuse(given)
        elif isinstance(given["resume"], (str, Path)):
            checkpoint.stored_options(given["resume"])  # a clear error before Ultralytics looks at its data
        arguments = {} if cfg is None else {"cfg": cfg}
        super().__init__(**arguments, overrides=given, _callbacks=_callbacks)  # type: ignore[call-arg]
        # Ultralytics has found the checkpoint by now (``resume=True`` means the latest run)
        if self.resume:
            self.qat = checkpoint.stored_options(self.args.model)
        # one writer: all processes of a run share the folder
        if RANK in {-1, 0}:
            (self.save_dir / SETTINGS).write_text(json.dumps(self.qat.to_dict(), indent=2), encoding="utf-8")
        for event, callback in CALLBACKS.items():
            # callbacks, since Ultralytics has no method to override at these places
            if callback not in self.callbacks[event]:  # workers of a distributed run are given their parent's
                self.add_callback(event, callback)

    @property
    def settings(self) -> QATOptions:
        """How ranges are learned."""
        return self.qat

    def train(self) -> Any:
        """Train; the workers of a distributed run are given the settings, and the model where it is a live one."""
        # in one process; the parent of several only starts them
        if not self.ddp:
            return super().train()  # type: ignore[misc]
        # plain data: Ultralytics hands its arguments on in a file, pickled (8.4.190) or as Python source (before)
        self.args.qat = self.qat.to_dict()
        if self._source is not None:
            # a live model has no file that the workers could read it from
            self.model = self._source.module
        with ranks.launching(self):
            return super().train()  # type: ignore[misc]

    # -- data and model

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
        """The trained float model itself: it is never rebuilt from its yaml, so that pruned shapes stay."""
        if weights is None:
            raise UsageError(
                f"quantization-aware training starts from a trained checkpoint, got '{self.args.model}'; train the "
                "float model first, then give its best.pt"
            )
        return self.start_from(load_model(weights))

    def start_from(self, source: HostModel) -> nn.Module:
        """Train this model; a live one takes over the plan of the checkpoint that it came from."""
        self._source = source if source.state else self._stored(source)
        return self._source.module

    def _stored(self, live: HostModel) -> HostModel:
        """The checkpoint that a live model came from, with the plan beside it, unless its weights changed since."""
        path = Path(str(self.args.model))
        if path.suffix != ".pt" or not path.is_file():
            return live
        stored = load_model(path, allow_unsafe=self.qat.allow_unsafe)
        ours, theirs = live.module.state_dict(), stored.module.state_dict()
        # a plan fits the weights that it was calibrated for, not others of the same shape
        same = list(ours) == list(theirs) and all(torch.equal(ours[k].cpu(), v) for k, v in theirs.items())
        return stored if same else live

    def setup_model(self) -> Any:
        """Put the plan's ranges into the model, calibrated, or as a checkpoint holds them."""
        # of a resumed run this is last.pt (Ultralytics' ``check_resume``)
        found = checkpoint.read(self.args.model) if self.resume else None
        if found is None and self._source is None and isinstance(self.model, nn.Module):
            self.start_from(load_model(self.model))  # a live model that the parent of this process was given
        source = self.source_model() if found is None else found.source
        # before calibration, which takes minutes
        self.check_classes(source.names)
        self.artifact, self.plan = start.calibrated(source, self.qat, self._calibration_data(), self.args.imgsz)
        # loaded models are frozen for tracing
        module = copy.deepcopy(source.module).requires_grad_(True)
        # losses read their weights from there
        module.args = self.args
        # before quantizers are put in: a copy without hooks is what teaches and what fidelity is held against
        self.float_model = copy.deepcopy(module)
        merge_branches(self.float_model)
        prepare_qat(module, self.artifact.graph, self.plan, offset=self.qat.learn_offset, heads=self.qat.learn_heads)
        shifts = self.artifact.bias.get(self.plan.scheme, {})
        self.corrections = live_corrections(module, self.artifact.graph, shifts)
        # zeros that pruning paid for must outlive training
        if is_sparse(module):
            self.masks = Masks.start(module, MaskSpec(Pattern.KEEP))
        quantizers_of(module).keeps_distance = self.qat.damping > 0
        quantizers_of(module).keeps_errors = self.qat.local_weight > 0
        self.model = module
        self.resumed_from = found
        # Ultralytics passes this on to ``resume_training``
        return None if found is None else {"epoch": found.run["epoch"]}

    def source_model(self) -> HostModel:
        """The model that training starts from, read once."""
        if self._source is None:
            self._source = load_model(self.args.model, allow_unsafe=self.qat.allow_unsafe)
        return self._source

    def _calibration_data(self) -> str:
        """A classifier's data set is a folder of splits, of which the training images calibrate."""
        return str(self.data["train"] if self.args.task == Task.CLASSIFY.value else self.args.data)

    def data_sha256(self) -> str:
        """Hash over names and sizes of the training images."""
        files = sorted(str(f) for f in getattr(self.train_loader.dataset, "im_files", []))
        # a classifier's data set keeps pairs of path and class
        files = files or sorted(str(s[0]) for s in getattr(self.train_loader.dataset, "samples", []))
        digest = hashlib.sha256()
        for file in files:
            # names and sizes, since reading a training set to hash it takes as long as an epoch
            digest.update(f"{Path(file).name}:{Path(file).stat().st_size}\n".encode())
        return digest.hexdigest()

    # -- steps

    def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Ultralytics' optimizer, with the ranges in a group of their own: no weight decay, their own learning rate."""
        optimizer: torch.optim.Optimizer = super().build_optimizer(model, *args, **kwargs)  # type: ignore[misc]
        ranges = [p for m in model.modules() if isinstance(m, LSQQuantizer) for p in m.parameters()]
        # by identity: tensors compare element by element
        chosen = {id(p) for p in ranges}
        for group in optimizer.param_groups:
            # recent Ultralytics names its groups; without names their rates stay
            if group.get("param_group") in {"bn", "bias"}:
                group["lr"] *= norm_ratio(self.qat)
            group["params"] = [p for p in group["params"] if id(p) not in chosen]
        rate = range_learning_rate(self.qat)
        # whatever keys this optimizer has must be in every group
        template = {k: v for k, v in optimizer.param_groups[-1].items() if k not in {"params", "use_muon"}}
        optimizer.add_param_group(
            {**template, "params": ranges, "lr": rate, "weight_decay": 0.0, "param_group": "range"}
        )
        return optimizer

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Ultralytics' preprocessing; BatchNorm statistics stay frozen."""
        for module in self.model.modules():
            # Ultralytics puts the model into training mode every epoch; statistics are folded into quantized weights,
            # which would jump with every batch
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        prepared: dict[str, Any] = super().preprocess_batch(batch)  # type: ignore[misc]
        # counted here, which Ultralytics calls once a batch and nothing else does
        self.accumulation.batches += 1
        return prepared

    def optimizer_step(self) -> None:
        """Take Ultralytics' step; a resumed run's first one may have come early in an epoch."""
        super().optimizer_step()
        self.accumulation.stepped(self)

    # -- scores

    def get_validator(self) -> Any:
        """Ultralytics' validator, whose results are kept."""
        validator = super().get_validator()  # type: ignore[misc]
        # detections are taken where Ultralytics makes them: a second pass over the images would double the time of a
        # validation
        validator.postprocess = Capture(validator.postprocess)
        if getattr(unwrap_model(self.model).model[-1], "one2one_cv2", None) is not None:
            # recent releases let this argument choose the branch, and write the choice into the model they score
            # the branch that is exported is the branch that is scored
            validator.args.nms = False if self.artifact.info.end2end else None
        return validator

    def validate(self) -> Any:
        """Score the quantized model, and the float weights beside it; the quantized score decides."""
        # before scores, which NaN weights would make 0 without a word
        self._require_finite(self.epoch)
        scores = self.score(epoch=self.epoch + 1)
        if scores is None:
            return None, None
        self.history.add(scores, current_plan(self.ema.ema, self.plan))
        if self.best_fitness is None or self.best_fitness < scores.fitness:
            self.best_fitness = scores.fitness
        LOGGER.info(scores.line(self.history.start))
        return scores.metrics(), scores.fitness

    def score(self, epoch: int) -> EpochScores | None:
        """Score the quantized model, and the float weights too where asked; None on all processes but the first."""
        plain_metrics = None
        # the start always: log and plots show what the float model scored
        if self.qat.float_val or epoch == 0:
            # the same averaged weights, ranges off: how much of a change is quantization
            # before the first step the float model itself: the calibrated one's class scores are moved
            with self._scored(self.float_model) if epoch == 0 else disabled(self.ema.ema):
                plain_metrics = self._run_validator()
        metrics = self._run_validator()
        # before processes without metrics leave: gathering needs them all
        pair = (self._detections(), self.reference()) if self.has_fidelity else None
        if metrics is None:  # another process of the run has the scores of them all
            return None
        found = None if pair is None else agreement(*pair, spec_of(self.artifact.info.task))
        fitness = float(metrics.pop("fitness", 0.0))
        if plain_metrics is not None:
            plain_metrics.pop("fitness", None)
        if found is None:
            return EpochScores(epoch, metrics, plain_metrics, None, fitness)
        # fidelity alone does not see confidences that have all moved the same way
        chosen = found.fidelity - abs(found.shift) if self.selects_fidelity else fitness
        return EpochScores(epoch, metrics, plain_metrics, found.fidelity, chosen, found.shift)

    def _run_validator(self) -> dict[str, float] | None:
        """One pass over the held-back images in float32, however training computes."""
        # half precision moves values across steps of their grids, which no device does
        amp, self.amp = self.amp, False
        plots = self.validator.args.plots
        self.validator.postprocess.found = []
        try:
            # validation in training computes the loss too, and this run's would ask the teacher for it
            self.ema.ema.criterion = NoLoss()
            found: dict[str, float] | None = self.validator(self)
            return found
        finally:
            self.amp = amp
            self.validator.args.plots = plots

    def _detections(self) -> list[Any]:
        """Of the last pass; on the first process those of every process, in order."""
        return [found for part in ranks.gathered(self.validator.postprocess.found) for found in part]

    def reference(self) -> Any:
        """Detections of the float model that training started from, on the held-back images."""
        if self.reference_detections is None:
            # the quantized model's, which the pass below would replace
            found = self.validator.postprocess.found
            with self._scored(self.float_model):
                self._run_validator()
                self.reference_detections = self._detections()
            self.validator.postprocess.found = found
        return self.reference_detections

    @contextmanager
    def _scored(self, model: nn.Module) -> Iterator[None]:
        before, self.ema.ema = self.ema.ema, model.to(self.device)
        try:
            yield
        finally:
            self.ema.ema = before

    @property
    def has_fidelity(self) -> bool:
        """Whether results can be compared with the float model's."""
        return bool(self.validator.postprocess.usable)

    @property
    def selects_fidelity(self) -> bool:
        """Whether fidelity, less the confidence shift, chooses the best checkpoint."""
        if self.qat.select is not Select.AUTO:
            return self.qat.select is Select.FIDELITY and self.has_fidelity
        return self.has_fidelity and not self.qat.needs_labels and self.qat.teacher is None

    # -- checkpoints

    def save_model(self) -> bool:
        """Write best.pt where the quantized model has never scored better, then last.pt.

        In this order a kill in between costs nothing. A tie, and an epoch that was not scored, leave best.pt as it is.
        With the last epoch the run is over.
        """
        plan = current_plan(self.ema.ema, self.plan)
        # history counts epochs from 1; 0 is the calibrated model
        # and not ``fitness == best_fitness`` as Ultralytics has it, by which a tie would replace the first of the best
        if self.history.best().epoch == self.epoch + 1:
            checkpoint.write(self, self.best, plan)
        checkpoint.write(self, self.last, plan, run=None if self.stop else checkpoint.run_state(self))
        if self.save_period > 0 and self.epoch % self.save_period == 0:
            checkpoint.write(self, self.wdir / f"epoch{self.epoch}.pt", plan)
        return True

    def resume_training(self, ckpt: Any) -> None:
        """Go on where last.pt stopped: weights, ranges, averages, optimizer and schedule."""
        # Ultralytics' own would load the module's plain weights and know nothing of ranges
        if self.resumed_from is not None:
            checkpoint.restore(self, self.resumed_from)

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """What every process calls between validation and checkpoint; the first one is told where the others stand."""
        self._require_finite(epoch)
        # one process has its own state at hand when it writes
        if ranks.world_size() > 1:
            self.random_states = ranks.gathered(random_state(self.train_loader))
        # never True, which would let Ultralytics train this epoch once more: what is not finite has raised above
        return False

    def _require_finite(self, epoch: int) -> None:
        """A loss or a weight that is not finite ends the run; the best checkpoint so far stays."""
        values = [v for v in self.ema.ema.state_dict().values() if v.is_floating_point()]
        values += [] if self.loss is None else [self.loss]
        # every process asks together: one that raised alone would leave the others waiting for it
        if not ranks.everywhere(all(bool(torch.isfinite(v).all()) for v in values)):
            raise TrainingError(
                f"the loss or a weight became NaN or infinite in epoch {epoch + 1}; lower lr0 or range_lr. {self.best} "
                "holds the best model so far, and resume=true goes on from the last good epoch"
            )

    def final_eval(self) -> None:
        """Score best.pt as it was written, and say whether training helped."""
        # not Ultralytics' ``final_eval``, which casts best.pt to half precision (``strip_optimizer``)
        artifact = Artifact.load(self.best)
        model = copy.deepcopy(artifact.model.module)
        # with the plan that was written and not with the ranges in memory: it is what an export will read
        prepare_qat(model, artifact.graph, artifact.plans[self.plan.scheme], heads=True)
        shifts = live_corrections(model, artifact.graph, artifact.bias.get(self.plan.scheme, {}))
        with corrected(model, shifts), self._scored(model):
            scores = self.score(epoch=self.epoch + 2)
        if scores is None:
            return
        self._compare_with_stored(artifact, scores)
        self.metrics = scores.metrics()
        if self.args.plots:
            self.history.write(self, artifact)
        LOGGER.info(self.history.verdict(self.best))

    def _compare_with_stored(self, artifact: Artifact, scores: EpochScores) -> None:
        stored = artifact.provenance["qat"]["score"]
        if abs(stored - scores.fitness) > checkpoint.TOLERANCE:
            logger.warning(
                "%s scores %.4f after reading it back, %.4f when it was written", self.best, scores.fitness, stored
            )


def _settings(given: dict[str, Any]) -> QATOptions:
    """Settings that another process of the same run left in its folder."""
    path = Path(str(given.get("save_dir") or "")) / SETTINGS
    return (
        parse(json.loads(path.read_text(encoding="utf-8"))) if given.get("save_dir") and path.is_file() else parse(None)
    )


def _refuse(given: dict[str, Any]) -> None:
    """Arguments of Ultralytics that contradict what is trained here."""
    if given.get("compile"):
        raise UsageError("compile is not supported with learned ranges; leave it out")
    if given.get("quantize"):
        raise UsageError("quantize is Ultralytics' own QAT; leave it out, or train without yoloquant's trainer")
    if given.get("distill_model"):
        raise UsageError("distill_model is Ultralytics' own distillation; give qat=dict(teacher=...) instead")
    if given.get("data") is not None and isinstance(given["data"], (list, tuple)):
        raise UsageError("data must be one data set")


class DetectQATTrainer(QATTrainer, DetectionTrainer):  # type: ignore[misc]
    """Quantization-aware training of detectors."""


class SegmentQATTrainer(QATTrainer, SegmentationTrainer):  # type: ignore[misc]
    """Quantization-aware training of instance segmentation."""


class PoseQATTrainer(QATTrainer, PoseTrainer):  # type: ignore[misc]
    """Quantization-aware training of pose estimation."""


class OBBQATTrainer(QATTrainer, OBBTrainer):  # type: ignore[misc]
    """Quantization-aware training of oriented boxes."""


class ClassifyQATTrainer(QATTrainer, ClassificationTrainer):  # type: ignore[misc]
    """Quantization-aware training of classifiers."""
