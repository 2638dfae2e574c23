"""The public verbs, each a thin layer over the part that does the work: names become objects, options are gathered."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import targets as registry
from .types import Progress

if TYPE_CHECKING:
    from .evaluation.results import ValidationResult
    from .evaluation.validate_options import ValidateOptions
    from .pipeline import RunResult
    from .pruning.prune import PruneResult
    from .pruning.prune_options import PruneOptions
    from .quantization.artifact import Artifact
    from .quantization.plan import Plan
    from .quantization.quantize_options import QuantizeOptions
    from .recipe import Recipe
    from .report import ReportPaths
    from .targets.exports import ExportResult
    from .training.qat.qat_options import QATOptions
    from .training.train import TrainResult
    from .types import ExportedModel, Listener

PathLike = str | os.PathLike[str]


def quantize(
    model: Any,
    *,
    data: PathLike,
    scheme: str | Iterable[str] = "auto",
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Quantize a trained model after training: plan, then calibrate on training images.

    The ranges of a checkpoint that Ultralytics' own QAT made (``train(quantize=8)``) are taken over instead of
    calibrated, wherever a scheme quantizes what that training did.

    Args:
        model: Path of an Ultralytics checkpoint, or a live ``ultralytics.YOLO``.
        data: Data yaml whose train split calibrates, or a folder of images.
        scheme: Scheme names; ``auto`` makes a plan for every known runtime, from one pass over the images. ``portable``
            makes one symmetric plan that serves all of them with the same ranges.
        options: Input size, images and algorithms.
        progress: Called after every calibration image.

    Returns:
        The artifact, to be saved, exported or trained further.

    Raises:
        ModelError: The model cannot be read or traced.
        DataError: The data are missing, or are the ones that will be scored.
        CalibrationError: There are too few images, or NaN activations.
        UsageError: Unknown scheme or unsupported input size.
    """
    from .quantization.ptq import quantize as calibrated
    from .targets.schemes import resolve_schemes

    return calibrated(model, data=data, schemes=resolve_schemes(scheme), options=options, progress=progress)


def plan(model: Any, *, scheme: str = "portable", imgsz: int | Sequence[int] | None = None) -> Plan:
    """Return the quantization plan of a scheme: without ranges for a plain checkpoint, with them for an artifact.

    Raises:
        ModelError: The model cannot be read or traced.
        UsageError: Unknown scheme, or another input size than an artifact's own.
    """
    from .quantization.ptq import derive_plan
    from .targets.schemes import resolve_schemes

    (rules,) = resolve_schemes(scheme)
    return derive_plan(model, rules, imgsz)


def train(
    model: Any,
    *,
    data: PathLike | None = None,
    qat: QATOptions | Mapping[str, Any] | str | None = None,
    prune: PruneOptions | Mapping[str, Any] | float | None = None,
    **arguments: Any,
) -> TrainResult:
    """Train a model for its device: prune it, learn quantization ranges, or one after the other.

    See ``yoloquant.training.train.train`` for the arguments and the errors raised.
    """
    from .training.train import train as trained

    return trained(model, data=data, qat=qat, prune=prune, **arguments)


def prune(
    model: Any,
    *,
    data: PathLike | None = None,
    options: PruneOptions | dict[str, Any] | float | None = None,
    imgsz: int | Sequence[int] | None = None,
    output: PathLike | None = None,
    dry_run: bool = False,
    latency: bool = False,
) -> PruneResult:
    """Prune a trained model in one shot, without training.

    See ``yoloquant.pruning.prune.prune`` for the arguments and the errors raised.
    """
    from .pruning.prune import prune as pruned
    from .training.prune.start import standalone_products

    return pruned(
        model,
        data=data,
        options=options,
        imgsz=imgsz,
        output=output,
        dry_run=dry_run,
        latency=latency,
        gradients=standalone_products,
    )


def export(
    model: Any,
    *,
    targets: str | Iterable[str],
    folder: PathLike | None = None,
    keep_going: bool = False,
    data: PathLike | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Export a quantized model.

    Args:
        model: An Artifact, or the path of a checkpoint that ``Artifact.save`` wrote.
        targets: Target or device names; ``all`` for every one that is installed.
        folder: Where to write; ``<checkpoint>_exports`` beside the checkpoint by default.
        keep_going: Report a target that cannot be built in the result instead of raising.
        data: Data yaml or folder whose images calibrate points that a target needs and the artifact lacks.
        progress: Called before and after every target.

    Returns:
        The exported models; their list is also written to ``exports.json`` in the folder.

    Raises:
        UsageError: Unknown target.
        PlanError: The artifact lacks ranges that a target needs.
        TargetError: A target cannot be built.
        OutputError: The folder cannot be written.
    """
    from .quantization.artifact import Artifact
    from .targets.export import complete
    from .targets.export import export as exported

    chosen = registry.resolve(targets)
    artifact = model if isinstance(model, Artifact) else Artifact.load(model)
    if data is not None:
        artifact = complete(artifact, chosen, data=data)
    return exported(artifact, chosen, folder=folder, keep_going=keep_going, progress=progress)


def validate(
    model: Any,
    exports: ExportResult | Iterable[ExportedModel] | PathLike,
    *,
    data: PathLike | None = None,
    source: PathLike | None = None,
    options: ValidateOptions | None = None,
    progress: Progress | None = None,
) -> ValidationResult:
    """Score every artifact beside the FP32 model on the same images, judge it by a gate, and report.

    See ``yoloquant.evaluation.validate.validate`` for the arguments and the errors raised.
    """
    from .evaluation.validate import validate as validated

    result = validated(model, exports, data=data, source=source, options=options, progress=progress)
    if options is not None and options.report is not None:
        write_report(result, options.report)
    return result


def write_report(result: ValidationResult, folder: PathLike) -> ReportPaths:
    """Write the JSON, JUnit, Markdown and HTML reports of a validation into a folder."""
    from . import report
    from .io import output_folder

    return report.write_report(result, output_folder(folder))


def run(recipe: Recipe | PathLike | None = None, *, listener: Listener | None = None, **keys: Any) -> RunResult:
    """Do the whole job: prune, train or calibrate, export, validate and report.

    Args:
        recipe: A recipe, or the path of one.
        listener: Told of every stage and its progress; nothing is printed without one.
        **keys: Keys of a recipe, on top of the recipe's own: ``model``, ``data``, ``targets`` ...

    Returns:
        Everything that was made, and the verdict.

    Raises:
        UsageError: The recipe holds unknown keys or bad values.
        YoloquantError: See the single verbs.
    """
    from .pipeline import run as whole_job
    from .recipe import as_recipe

    return whole_job(as_recipe(recipe, keys), listener)
