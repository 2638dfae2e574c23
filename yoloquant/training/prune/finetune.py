"""Pruning with training: one run for each pruning step, the unpruned model teaching all of them."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ...bridge.checkpoint import load_model
from ...bridge.host_model import model_info
from ...data.label_check import check_labels
from ...errors import UsageError
from ...pruning.criteria import PruningKind
from ...pruning.prune_options import PruneOptions
from ...types import AfterEpoch
from .. import host_errors
from ..callbacks import watch_epochs
from ..qat.run import check_arguments
from .trainer import PruneTrainer

EPOCHS = 50
"""Passes over the training images, where the caller names no number."""


def learning_rate(classes: int) -> float:
    """The rate of a fine-tuning of which the caller names none: what Ultralytics 8.4.190 gives AdamW."""
    return round(0.002 * 5 / (4 + classes), 6)


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning a pruned model left.

    Attributes:
        best: Its best checkpoint.
        folder: The run folder.
        score: Ultralytics' fitness on the val split.
        score_unpruned: The unpruned model's; NaN where it is not known.
    """

    best: Path
    folder: Path
    score: float
    score_unpruned: float


def fine_tune(
    model: Any,
    data: Any,
    options: PruneOptions,
    arguments: dict[str, Any],
    after_epoch: AfterEpoch | None = None,
) -> FineTuned:
    """Prune a model and train what is left; in several steps if the options say so.

    Args:
        model: Path of a checkpoint or a live YOLO; with ``resume=True`` last.pt of an interrupted run.
        data: Data yaml, or a folder of images with ``loss=distill``.
        options: Pruning and its training.
        arguments: Ultralytics' training arguments.
        after_epoch: Told of every epoch of the last step and its score; what it raises ends the training.

    Raises:
        UsageError: An argument is unknown or does not fit.
        PruneError: The target cannot be met.
        TrainingError: Training broke off.
    """
    check_arguments(arguments)
    if arguments.get("resume"):
        # options are None: those of the interrupted run are in its folder
        return _finished(_run(_trainer({**arguments, "model": str(model), "resume": str(model)}, None, data)))
    if data is None:
        raise UsageError("training needs data=<data yaml or folder of images>")
    source = load_model(model, allow_unsafe=options.allow_unsafe)
    single = bool({**source.trained, **arguments}.get("single_cls"))
    check_labels(data, model_info(source, source.resolve_imgsz()), single=single)
    # Ultralytics wants a path, also of a live model, whose weights are given to ``prepare`` below
    path = str(model) if isinstance(model, (str, os.PathLike)) else str(getattr(model, "ckpt_path", None) or "")
    # which classes the model was trained on first, and the caller's own word last
    common = {"model": path or source.source, "task": source.task.value, **source.trained, **_rated(arguments)}
    # Ultralytics trains on squares only
    common.setdefault("imgsz", max(source.resolve_imgsz()))
    total = int(arguments.get("epochs", EPOCHS))
    if options.steps > total:
        raise UsageError(f"steps={options.steps} need as many epochs at least, got epochs={total}")
    # single zeros come by a schedule of their own, within one run
    steps = options.steps if options.kind is PruningKind.STRUCTURED else 1
    current, done = source, 0
    # one teacher for all steps: the model of the step before has lost already what it should teach
    teacher = None if options.teacher is not None or not options.distils else copy.deepcopy(source.module)
    for step in range(1, steps + 1):
        # what is left divided among the steps that are left: together they are exactly the epochs that were asked for
        epochs = (total - done) // (steps - step + 1)
        done += epochs
        # of the unpruned model at every step, since shares count from it
        here = replace(options, amount=options.amount * step / steps)
        overrides = {**common, "epochs": epochs}
        if steps > 1 and step < steps:
            # the last step keeps the name that was asked for: its folder is the result
            overrides["name"] = f"{common.get('name') or 'prune'}-step{step}"
        trainer = _trainer(overrides, here, data)
        # as a module and not as a file: every step writes its teacher into its own folder and drops it at its end
        trainer.taught_by = teacher
        # a study compares epochs of finished models; those of earlier steps are of other sizes
        watch_epochs(trainer, after_epoch if step == steps else None)
        finished = _finished(_run(trainer, current.module))
        current = load_model(finished.best, allow_unsafe=options.allow_unsafe)
    return finished


def _rated(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments with which a learning rate that was given counts: Ultralytics' ``optimizer=auto`` ignores it."""
    if "lr0" not in arguments or arguments.get("optimizer", "auto") != "auto":
        return arguments
    # what auto chooses for short runs, with what comes with it: biases must not begin at SGD's warm-up rate of 0.1
    return {"momentum": 0.9, "warmup_bias_lr": 0.0, **arguments, "optimizer": "AdamW"}


def _trainer(overrides: dict[str, Any], options: PruneOptions | None, data: Any) -> PruneTrainer:
    given = {**overrides, "mode": "train", **({} if options is None else {"prune": options})}
    if data is not None:
        given["data"] = str(data)
    with host_errors.setting_up():
        return PruneTrainer(overrides=given)


def _run(trainer: PruneTrainer, source: nn.Module | None = None) -> PruneTrainer:
    with host_errors.running():
        if source is not None:
            trainer.prepare(source)
        trainer.train()
    return trainer


def _finished(trainer: PruneTrainer) -> FineTuned:
    return FineTuned(
        Path(trainer.best), Path(trainer.save_dir), float(trainer.best_fitness or 0.0), trainer.unpruned_fitness
    )


def quantization_arguments(pruned: FineTuned, arguments: dict[str, Any]) -> dict[str, Any]:
    """Ultralytics' arguments for the quantization-aware training that follows: its own epochs, rates and folder."""
    # all of these are chosen anew by the preset; "name" and "exist_ok" would put the second run beside the first
    theirs = ("epochs", "time", "patience", "resume", "optimizer", "lr0", "lrf", "name", "exist_ok", "close_mosaic")
    kept = {k: v for k, v in arguments.items() if k not in theirs}
    return {**kept, "project": str(pruned.folder), "name": "qat", "exist_ok": True}
