"""Pruning inside a run: where its data, its loss and its device are at hand."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from ultralytics.utils import LOGGER

from ...bridge.checkpoint import load_model
from ...bridge.host_model import HostModel, model_info
from ...bridge.input_size import check_imgsz
from ...data.calibration import MIN_IMAGES, CalibrationOptions, calibration_set
from ...data.label_check import check_labels
from ...errors import CalibrationError, DataError
from ...pruning.blocks import without_blocks
from ...pruning.choose_plan import choose
from ...pruning.criteria import ImportanceCriterion, PruningKind
from ...pruning.groups import Groups
from ...pruning.make_sparse import is_sparse, note, reordered, sparsity_of
from ...pruning.metadata import unpruned_cost
from ...pruning.plan import PrunePlan
from ...pruning.planner import compute_importance
from ...pruning.prune_options import PruneOptions
from ...pruning.recalibrate_bn import BATCH, recalibrate_bn, stacked
from ...pruning.remove_channels import pruned
from ...sparsity.record import RECORD as SPARSE
from ...sparsity.schedule import Schedule
from ...sparsity.unstructured import Sparsity, sparsity_report
from .gradients import channel_products
from .masks import Masks, MaskSpec, Pattern

if TYPE_CHECKING:
    from .trainer import PruneTrainer


_SHARE_24, _SLACK = 0.3, 0.02  # a 2:4 model has few zeros where many layers do not come in fours


def prune_for(trainer: PruneTrainer, module: Any) -> nn.Module:
    """Prune the model that a run trains.

    Raises:
        PruneError: The target cannot be met.
        ModelError: The model cannot be traced.
    """
    options: PruneOptions = trainer.prune
    if options.blocks:
        module = _without_blocks(trainer, module)
    plan, groups = plan_for(trainer, module)
    for line in plan.summary():
        LOGGER.info(line)
    channels = int((getattr(module, "yaml", None) or {}).get("channels", 3))
    smaller = pruned(module, plan, channels=channels, groups=groups)
    try:
        recalibrate_bn(smaller, stacked(_images(trainer, module)))
    # better stale statistics than no run: fine-tuning updates them unless they are frozen
    except CalibrationError as exc:
        LOGGER.warning(f"BatchNorm statistics stay those of the unpruned model: {exc}")
    return smaller


def _images(trainer: PruneTrainer, module: Any) -> Iterator[np.ndarray]:
    """Training images as validation sees them."""
    source, options = load_model(module), trainer.prune
    # the calibration set refuses fewer, whereas pruning itself may ask for as few as it likes
    images = max(options.images, MIN_IMAGES)
    found = calibration_set(str(trainer.args.data), CalibrationOptions(images=images, seed=options.seed))
    return found.tensors(check_imgsz(trainer.args.imgsz, source.stride), source.task)


def _without_blocks(trainer: PruneTrainer, module: Any) -> Any:
    options: PruneOptions = trainer.prune
    source = load_model(module)
    size = check_imgsz(trainer.args.imgsz, source.stride)
    images = _images(trainer, module)
    smaller, gone = without_blocks(source.module, options.blocks, images, size, source.channels)
    for block in gone:
        LOGGER.info(f"took out {block.path}, which changes its input by {block.change:.0%}")
    return smaller


def make_sparse_for(trainer: PruneTrainer, module: nn.Module) -> nn.Module:
    """Prepare a model for a run that makes it sparse: its channels in a good order, and word that zeros are meant."""
    source = load_model(module)
    for line in reordered(source.module, trainer.prune, source.channels):
        LOGGER.info(line)
    note(source.module, trainer.prune)
    return source.module


def masks_for(trainer: PruneTrainer, model: nn.Module) -> Masks | None:
    """The masks of a run: stored ones, the zeros that a sparse model came with, or new ones by the options.

    Raises:
        PruneError: So many zeros are not possible.
        ArtifactError: Stored masks are damaged.
    """
    if not is_sparse(model):
        return None
    # before any new choice, with which the schedule would start over
    stored = Path(str(trainer.wdir)) / "masks.pt"
    if trainer.resume and stored.is_file():
        return Masks.from_plain(torch.load(stored, map_location="cpu", weights_only=True), model)
    kind = trainer.prune.kind
    # zeros that another run made must not be chosen anew by the magnitude of what training made of them
    if _zeros_are_there(model, trainer.prune):
        spec = MaskSpec(Pattern.KEEP)
    elif kind is PruningKind.NM:
        spec = MaskSpec(Pattern.TWO_FOUR, Sparsity(ignored=trainer.prune.ignored))
    else:
        # optimizer steps and not batches, as ``Masks`` counts them
        steps = max(int(trainer.epochs * len(trainer.train_loader) / max(trainer.accumulate, 1)), 1)
        sparsity = sparsity_of(trainer.prune)
        spec = MaskSpec(Pattern.MAGNITUDE, sparsity, Schedule.over(steps, sparsity.amount))
    masks = Masks.start(model, spec)
    # the average was copied from the model before it had masks
    masks.apply(trainer.ema.ema)
    return masks


def _zeros_are_there(model: nn.Module, options: PruneOptions) -> bool:
    """Whether a model came with its zeros, rather than with the odd one that every trained model has."""
    share = (
        _SHARE_24 if getattr(model, SPARSE)["kind"] == PruningKind.NM.value else float(getattr(model, SPARSE)["amount"])
    )
    return sparsity_report(model, options.ignored).share >= share - _SLACK


def plan_for(trainer: PruneTrainer, module: Any) -> tuple[PrunePlan, Groups]:
    """The plan and what it chose from, with gradients of the run's own loss where the criterion asks for them."""
    options: PruneOptions = trainer.prune
    source = load_model(module)
    size = check_imgsz(trainer.args.imgsz, source.stride)
    gradients = None
    if options.measured_by(not trainer.unlabelled) is ImportanceCriterion.TAYLOR and options.plan is None:
        # Ultralytics sets names, classes and arguments on the trainer's own model, and its losses read them there
        trainer.model = module
        trainer.set_model_attributes()
        gradients = channel_products(trainer, module, options.images)
    analysis = compute_importance(source.module, options, size, channels=source.channels, gradients=gradients)
    return choose(analysis, source, options, size, full=unpruned_cost(module)), analysis.groups


def standalone_products(
    source: HostModel, data: str, imgsz: tuple[int, int], options: PruneOptions
) -> dict[str, Tensor]:
    """Change of the loss by channel, without a run: a trainer is made for its data and loss alone.

    Raises:
        DataError: The data cannot be read, have no labels, or those of another task or other classes.
    """
    from .trainer import PruneTrainer  # the trainer imports this module

    check_labels(data, model_info(source, imgsz), single=bool(source.trained.get("single_cls")))

    # a trainer of Ultralytics writes its arguments into a run folder as soon as it is made
    with tempfile.TemporaryDirectory() as folder:
        overrides = {
            **{"model": source.source, "task": source.task.value, "mode": "train", "data": data, "imgsz": max(imgsz)},
            **{"project": folder, "name": "gradients", "batch": BATCH, "workers": 0, "plots": False, "verbose": False},
        }
        try:
            trainer = PruneTrainer(overrides={**overrides, "prune": options})
        except (RuntimeError, FileNotFoundError) as exc:
            raise DataError(str(exc).strip()) from exc
        # gradients are switched on in it, and the caller's stays frozen for tracing
        module = copy.deepcopy(source.module)
        module.args = trainer.args
        trainer.model = module
        trainer.set_model_attributes()
        return channel_products(trainer, module, options.images)
