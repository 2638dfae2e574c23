"""One training run from plain arguments: what ``yoloquant.train`` and the command do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ultralytics.cfg import DEFAULT_CFG_DICT

from ...bridge.checkpoint import load_model
from ...bridge.host_model import model_info
from ...data.label_check import check_labels
from ...errors import UsageError
from ...options import flatten
from ...quantization.artifact import Artifact
from ...runtime.core.nearest import nearest
from ...types import AfterEpoch
from .. import host_errors
from ..callbacks import watch_epochs
from .qat_options import QATOptions, parse
from .trainer import QATTrainer

OURS = frozenset({"model", "data", "task", "mode", "qat", "trainer"})


def run(
    model: Any, data: Any, qat: Any, arguments: dict[str, Any], after_epoch: AfterEpoch | None = None
) -> tuple[Path, Path, dict[str, Any]]:
    """Train, and return the best checkpoint, the run folder, and what the checkpoint says of its training.

    ``after_epoch`` is told of every epoch and its score; what it raises ends the training.

    Raises:
        UsageError: An argument is unknown to Ultralytics, or does not fit.
    """
    options = parse(dict(qat) if isinstance(qat, dict) else qat)
    check_arguments(arguments)
    resume = bool(arguments.get("resume"))
    if data is None and not resume:
        raise UsageError("training needs data=<data yaml or folder of images>")
    trainer = _trainer(model, data, options, arguments, resume)
    watch_epochs(trainer, after_epoch)
    with host_errors.running():
        trainer.train()
    # read back from the file, since a distributed run trained in other processes
    return trainer.best, trainer.save_dir, dict(Artifact.load(trainer.best).provenance["qat"])


def _trainer(model: Any, data: Any, options: QATOptions, arguments: dict[str, Any], resume: bool) -> QATTrainer:
    # Ultralytics wants a path, also of a live model, which ``start_from`` puts in its place
    path = str(model) if isinstance(model, (str, os.PathLike)) else str(getattr(model, "ckpt_path", None) or "")
    source = load_model(model, allow_unsafe=options.allow_unsafe)
    own = {"model": path or source.source, "task": source.task.value, "mode": "train"}
    # which classes the model was trained on first; what the caller says comes later, and these three last
    overrides = {**source.trained, **arguments, **own}
    if data is not None:
        overrides["data"] = str(data)
    if resume:
        overrides["resume"] = path
    else:
        # a resumed run keeps the options in its checkpoint
        overrides["qat"] = options
        overrides.setdefault("imgsz", max(source.resolve_imgsz()))
        # before Ultralytics makes a run folder, calibration takes minutes, and images are left out without labels
        single = bool(overrides.get("single_cls"))
        check_labels(data, model_info(source, source.resolve_imgsz()), single=single)
    with host_errors.setting_up():
        trainer = QATTrainer(overrides=overrides)
        if not resume:
            trainer.start_from(source)
    return trainer


def check_arguments(arguments: dict[str, Any]) -> None:
    """Raise UsageError for an argument that neither we nor Ultralytics know, with the nearest one."""
    for name in arguments:
        if name in OURS or name not in DEFAULT_CFG_DICT:
            raise UsageError(
                f"unknown training argument '{name}'{nearest(name, [*DEFAULT_CFG_DICT, *flatten(QATOptions)])}"
            )
