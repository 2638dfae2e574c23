"""Pruning without training: plan, look, remove, save."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bridge.checkpoint import load_model
from ..bridge.host_model import HostModel, model_info
from ..data.calibration import CalibrationOptions, calibration_set
from ..data.class_folders import is_split_root
from ..data.convert import as_yolo
from ..errors import PruneError, UsageError
from ..io import output_folder
from ..quantization.artifact import plain_arguments, save_checkpoint
from ..runtime.tasks import spec_of
from ..summarized import Summarized
from .blocks import without_blocks
from .choose_plan import choose
from .criteria import ImportanceCriterion, PruningKind
from .metadata import unpruned_cost
from .plan import PrunePlan
from .planner import compute_importance
from .prune_options import PruneOptions, parse
from .recalibrate_bn import recalibrate_bn, stacked
from .remove_channels import pruned

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..types import Task


GradientSource = Callable[[HostModel, str, "tuple[int, int]", PruneOptions], "dict[str, Tensor]"]
"""From a model, its data yaml, an input size and options to the change of the loss by channel."""


@dataclass(frozen=True, repr=False)
class PruneResult(Summarized):
    """What pruning left.

    Attributes:
        plan: What goes; None for the sparse kinds.
        path: The pruned checkpoint; None for a dry run.
        report: Lines for people.
    """

    plan: PrunePlan | None
    path: Path | None
    report: tuple[str, ...]

    def summary(self) -> str:
        """What went, and where the checkpoint is."""
        lines = self.report if self.plan is None else tuple(self.plan.summary())
        return "\n".join((*lines, f"saved {self.path}" if self.path else "nothing written: a dry run"))


def prune(
    model: Any,
    *,
    data: str | os.PathLike[str] | None = None,
    options: PruneOptions | dict[str, Any] | float | None = None,
    imgsz: int | Sequence[int] | None = None,
    output: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    latency: bool = False,
    gradients: GradientSource | None = None,
) -> PruneResult:
    """Prune a trained model in one shot, without training.

    Args:
        model: Path of an Ultralytics checkpoint, or a live ``ultralytics.YOLO``.
        data: Data yaml, or a folder of images: BatchNorm statistics are measured anew on them, and ``taylor`` takes its
            gradients there (labels needed).
        options: A share of the multiplications, a mapping, or ``PruneOptions``.
        imgsz: Input size at which multiplications are counted; the checkpoint's own by default.
        output: The ``.pt`` file to write; ``<checkpoint>_pruned.pt`` by default.
        dry_run: Only plan: ``result.plan`` can be printed, saved, edited, and applied with ``PruneOptions(plan=...)``.
        latency: Measure the plan's latency in ``options.runtime``, beside the unpruned model's.
        gradients: Where ``taylor`` takes its gradients from: they need a trainer's data and loss.

    Returns:
        The plan, and where the pruned checkpoint is: an ordinary one, with smaller layers.

    Raises:
        ModelError: The model cannot be read or traced.
        PruneError: The target cannot be met; the message states the nearest that can.
        UsageError: An option does not fit.
        DataError: The data are missing.
    """
    chosen = PruneOptions() if options is None else parse(options)
    source = load_model(model, allow_unsafe=chosen.allow_unsafe)
    if data is not None:
        data = as_yolo(data, task=source.task, names=source.names)
    size = source.resolve_imgsz(imgsz)
    # Before images are read: a place that cannot be written must not be found at the end.
    target = _output(source, output)
    images = None if data is None else _images(data, chosen, size, source.task)
    if chosen.kind is not PruningKind.STRUCTURED:
        return _sparse(source, chosen, size, target, dry_run)
    module, lines = source.module, []
    if chosen.blocks:
        if images is None:
            raise PruneError("blocks need data=<data yaml or folder>: which ones change least is measured on images")
        module, removed = without_blocks(module, chosen.blocks, images, size, source.channels)
        lines = [f"took out {b.path}, which changes its input by {b.change:.0%}" for b in removed]
        # From here on this is the model: what is timed and saved has no such blocks.
        source = replace(source, module=module)
    products = None
    if chosen.plan is None and chosen.measured_by(_labelled(data, source.task)) is ImportanceCriterion.TAYLOR:
        if not _labelled(data, source.task):
            raise PruneError(
                f"criterion=taylor takes gradients of the loss and needs labelled data: data=<data yaml>, or a "
                f"classifier's folder of class folders, got {data}; or use criterion=l2"
            )
        if gradients is None:
            raise PruneError("criterion=taylor needs a source of gradients; use yoloquant.prune, or criterion=l2")
        products = gradients(source, str(data), size, chosen)
    analysis = compute_importance(module, chosen, size, channels=source.channels, gradients=products)
    plan = choose(analysis, source, chosen, size, full=unpruned_cost(module))
    # Where latency was the target, it is in the plan already.
    if latency and chosen.runtime not in plan.latency:
        from .latency import with_latency

        plan = with_latency(plan, source, chosen.runtime, groups=analysis.groups)
    if dry_run:
        return PruneResult(plan, None, (*lines, *plan.table()))
    smaller = pruned(module, plan, channels=source.channels, groups=analysis.groups)
    lines += plan.summary()
    if images is not None:
        recalibrate_bn(smaller, stacked(images))
        lines.append(f"BatchNorm statistics measured anew on {chosen.images} images")
    _save(smaller, source, size, target)
    return PruneResult(plan, target, tuple(lines))


def _labelled(data: str | os.PathLike[str] | None, task: Task) -> bool:
    if data is None:
        return False
    # A classifier's labels are the names of its class folders, as in training.
    return is_split_root(Path(data)) if spec_of(task).class_folders else Path(data).suffix in {".yaml", ".yml"}


def _output(source: HostModel, output: str | os.PathLike[str] | None) -> Path:
    if output is not None:
        path = Path(output)
        if path.suffix != ".pt":
            raise UsageError(f"output='{output}' is not supported; it is the checkpoint to write and must end in .pt")
    else:
        origin = Path(source.source)
        parent = origin.parent if origin.is_file() else Path.cwd()
        path = parent / f"{origin.stem if origin.suffix == '.pt' else 'model'}_pruned.pt"
    output_folder(path.parent)
    return path


def _images(data: str | os.PathLike[str], options: PruneOptions, size: tuple[int, int], task: Task) -> Any:
    images = calibration_set(data, CalibrationOptions(images=options.images, seed=options.seed))
    # A list: blocks are ranked on them first, and BatchNorm statistics measured at the end.
    return list(images.tensors(size, task))


def _save(module: nn.Module, source: HostModel, size: tuple[int, int], path: Path) -> None:
    info = model_info(replace(source, module=module), size)
    # Checkpoints hold an EMA, whose parameters Ultralytics freezes; what is trained next must not be frozen.
    module.requires_grad_(True)
    save_checkpoint(path, module, plain_arguments(module, info))


def _sparse(
    source: HostModel, options: PruneOptions, size: tuple[int, int], target: Path, dry_run: bool
) -> PruneResult:
    from .make_sparse import make_sparse

    module, lines = make_sparse(source, options)
    if dry_run:
        return PruneResult(None, None, tuple(lines))
    _save(module, source, size, target)
    return PruneResult(None, target, tuple(lines))
