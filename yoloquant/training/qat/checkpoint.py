"""Checkpoints of a run: ordinary Ultralytics files, with the plan, and what resuming needs, beside the module.

Everything beside the module is plain data. The module is the plain float model with its averaged weights in float32:
what was trained is what is exported, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import init_seeds, unwrap_model

from ...bridge.checkpoint import STATE_KEY, load_model
from ...bridge.host_model import HostModel
from ...bridge.installed import ultralytics_version
from ...errors import ArtifactError, PlanError, UsageError
from ...graph.traced_model import TracedModel
from ...io import atomic_path
from ...quantization.artifact import Artifact, versions
from ...quantization.plan import Plan
from .. import distributed as ranks
from ..distillation.criterion import without_criterion
from ..state import plain, random_state, restore_random_state
from .prepare import detach
from .qat_options import QATOptions, parse

if TYPE_CHECKING:
    from .trainer import QATTrainer


RUN_KEY = "train"
# Of a score: layouts and fused kernels change the order of sums, and with it a detection or two.
TOLERANCE = 5e-4


@dataclass(frozen=True)
class ResumableRun:
    """A checkpoint of a run that can be resumed.

    Attributes:
        source: Its float model, with the stored state.
        run: What the run must remember.
    """

    source: HostModel
    run: dict[str, Any]


def read(path: Any) -> ResumableRun:
    """Read last.pt of a run that was interrupted.

    Raises:
        ArtifactError: It holds no state of a run: it is finished, or was not written by this trainer.
    """
    # never unsafe: such a file was written here, of plain data
    source = load_model(path)
    run = source.state.get(RUN_KEY)
    if not isinstance(run, dict):
        raise ArtifactError(
            f"'{path}' holds no interrupted run: it is finished, or was not trained here. Start a new one with "
            f"model={path}, or give last.pt of the run to resume"
        )
    # what resuming cannot do without; the rest has defaults
    missing = {"options", "epoch", "model", "ema", "optimizer", "random", "float"} - set(run)
    if missing:
        raise ArtifactError(f"'{path}' is damaged: its run lacks {', '.join(sorted(missing))}")
    return ResumableRun(source, run)


def stored_options(path: Any) -> QATOptions:
    """Options of an interrupted run.

    Raises:
        ArtifactError: It holds none, or damaged ones.
    """
    try:
        return parse(read(path).run["options"])
    except (UsageError, TypeError) as exc:
        raise ArtifactError(f"'{path}' is damaged: {exc}") from exc


def artifact_of(trainer: QATTrainer, plan: Plan, bias: Mapping[str, np.ndarray] | None = None) -> Artifact:
    """The averaged weights with a plan, as everything downstream takes them.

    Args:
        trainer: Whose weights they are.
        plan: The plan.
        bias: Corrections of biases that go with it, of a calibrated plan; training has them in its weights.
    """
    # the average goes on being trained, with its hooks
    module = copy.deepcopy(trainer.ema.ema)
    detach(module)
    # a loss holds the teacher, which would double the size of the file
    without_criterion(module)
    module.requires_grad_(False)
    provenance = {**trainer.artifact.provenance, "versions": versions(), "qat": _provenance(trainer)}
    module = module.cpu().float().to(memory_format=torch.contiguous_format)  # CUDA trains on channels-last weights
    model = replace(trainer.artifact.model, module=module)
    corrections = {plan.scheme: bias} if bias else {}
    return Artifact(TracedModel(model, trainer.artifact.info), {plan.scheme: plan}, corrections, provenance)


def _provenance(trainer: QATTrainer) -> dict[str, Any]:
    return {
        **trainer.qat.to_dict(),
        # 0 is the calibrated start, before any epoch
        "epoch": trainer.epoch + 1,
        "epochs": trainer.epochs,
        "score": float(trainer.fitness),
        "score_kind": "fidelity" if trainer.selects_fidelity else "fitness",
        "score_calibrated": trainer.history.start.fitness if trainer.history.start else float(trainer.fitness),
        # the name alone: paths of the training machine do not belong into a file that is given away
        "data": Path(str(trainer.args.data)).name,
        "data_sha256": trainer.data_sha256(),
    }


def run_state(trainer: QATTrainer) -> dict[str, Any]:
    """What resuming needs besides the artifact."""
    return {
        "options": trainer.qat.to_dict(),
        "epoch": trainer.epoch,
        "model": plain(unwrap_model(trainer.model).state_dict()),
        "ema": plain(trainer.ema.ema.state_dict()),
        "updates": trainer.ema.updates,
        "optimizer": plain(trainer.optimizer.state_dict()),
        "scaler": plain(trainer.scaler.state_dict()),
        "best_fitness": float(trainer.best_fitness),
        "stopper": {"best_fitness": trainer.stopper.best_fitness, "best_epoch": trainer.stopper.best_epoch},
        "random": random_state(trainer.train_loader),
        # of the other processes of a distributed run, in order of their ranks
        "random_others": plain(trainer.random_states[1:]),
        # the teacher and reference: the checkpoint's own module holds trained weights
        "float": plain(trainer.float_model.state_dict()),
        "plan": trainer.plan.to_json(),
        "history": trainer.history.to_plain(),
        "accumulation": trainer.accumulation.to_plain(unwrap_model(trainer.model)),
    }


def write(
    trainer: QATTrainer,
    path: Path,
    plan: Plan,
    *,
    bias: Mapping[str, np.ndarray] | None = None,
    run: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint; an interrupted write leaves the previous file."""
    artifact = artifact_of(trainer, plan, bias)
    state = artifact.state()
    if run is not None:
        state[RUN_KEY] = run
    content = {
        # -1 is Ultralytics' mark of a finished run
        "epoch": trainer.epoch if run is not None else -1,
        "best_fitness": float(trainer.best_fitness),
        # Ultralytics reads ``ema`` where there is one, and half the file suffices
        "model": None,
        "ema": artifact.model.module,
        "updates": trainer.ema.updates,
        "optimizer": run["optimizer"] if run is not None else None,
        # plain: an argument may hold an object that no other machine could unpickle
        "train_args": plain(vars(trainer.args)),
        "train_metrics": plain({**trainer.metrics, "fitness": trainer.fitness}),
        "date": datetime.now().astimezone().isoformat(),
        "version": ultralytics_version(),
        "license": "AGPL-3.0",
        STATE_KEY: state,
    }
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save(content, stream)


def restore(trainer: QATTrainer, found: ResumableRun) -> None:
    """Put a run's state back into a trainer that was set up anew.

    Raises:
        ArtifactError: The state does not fit the model.
    """
    run = found.run
    try:
        # both: the average lags behind the weights that the optimizer steps
        unwrap_model(trainer.model).load_state_dict(run["model"])
        trainer.ema.ema.load_state_dict(run["ema"])
        trainer.ema.updates = int(run["updates"])
        # not strict: another number of groups is reported by load_state_dict below, with its own words
        for saved, group in zip(run["optimizer"]["param_groups"], trainer.optimizer.param_groups, strict=False):
            saved["fused"] = group.get("fused")  # the device at hand decides, as in Ultralytics
        trainer.optimizer.load_state_dict(run["optimizer"])
        if run["scaler"]:
            trainer.scaler.load_state_dict(run["scaler"])
        trainer.float_model.load_state_dict(run["float"])
        trainer.plan = Plan.from_json(run["plan"])
        # scores of the calibrated start belong to it: they are what the end is compared with
        trainer.history.restore(run["history"])
        trainer.best_fitness = run["best_fitness"]
        # Ultralytics' early stopping has no method to set its state
        trainer.stopper.__dict__.update(run["stopper"])
        trainer.start_epoch = int(run["epoch"]) + 1
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, PlanError) as exc:
        raise ArtifactError(f"the interrupted run in '{found.source.source}' does not fit: {exc}") from exc


def restore_progress(trainer: QATTrainer, found: ResumableRun) -> None:
    """Put every source of randomness, and gradients that await a step, where they were.

    Raises:
        ArtifactError: The state is damaged.
    """
    try:
        # after ``start_epoch`` is known, by which the trainer counts batches
        trainer.accumulation.restore(trainer, found.run["accumulation"])
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ArtifactError(f"'{found.source.source}' is damaged: its gradients cannot be read ({exc!r})") from exc
    states = [found.run["random"], *found.run.get("random_others", ())]
    # as many processes as before: each goes on with its own randomness
    if len(states) == ranks.world_size():
        restore_random_state(states[max(RANK, 0)], trainer.train_loader)
    elif RANK > 0:  # more or fewer processes than before: no two of them may go on alike
        init_seeds(trainer.args.seed + 1 + RANK + trainer.start_epoch * ranks.world_size(), trainer.args.deterministic)
    else:
        restore_random_state(found.run["random"], trainer.train_loader)
