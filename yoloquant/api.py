"""The public verbs: quantize, export, validate, and the whole job from one recipe."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bridge.checkpoint import check_imgsz, load_model, model_info
from .data.calibration import CalibrationOptions, calibration_set
from .errors import PlanError, TargetError, UsageError, YoloquantError
from .evaluation.validate import DEFAULT_IMGSZ, Progress, ValidateOptions, validate, write_report
from .io import output_folder
from .quantization.artifact import Artifact, versions
from .quantization.observers import CalibrationRecipe
from .targets import exports as export_list
from .targets.exports import ExportResult
from .types import ExportedModel, Task

if TYPE_CHECKING:
    import numpy as np

    from .bridge.checkpoint import HostModel
    from .graph.trace import Graph
    from .pruning.prune_options import PruneOptions
    from .quantization.plan import Plan, Point
    from .quantization.qparams import QuantSpec
    from .quantization.scheme import Scheme
    from .targets.base import Target
    from .training.qat.qat_options import QATOptions

logger = logging.getLogger(__name__)

__all__ = [
    "ExportResult",
    "QuantizeOptions",
    "TrainResult",
    "ValidateOptions",
    "complete",
    "export",
    "plan",
    "quantize",
    "resolve_targets",
    "train",
    "validate",
    "write_report",
]

AUTO = "auto"
REPAIR_IMAGES = 16


@dataclass(frozen=True)
class QuantizeOptions:
    """How a model is quantized.

    Attributes:
        imgsz: Input size in pixels, one number or height and width; the checkpoint's own by default.
        calibration: Which images calibrate.
        ranges: Which algorithm finds which range.
        bias_correction: Take the measured shift of each channel's mean out of the biases. Off by default: on YOLO11n it
            costs fidelity (``tools/compare_ranges.py``), but other models may gain.
        allow_unsafe: Read checkpoints that can run code.
        native_ranges: Take over the ranges of a checkpoint that Ultralytics' own QAT made; without this it is
            calibrated like any other.
        points: Representation of each point where it is to differ from the scheme's, for instance fewer bits.
    """

    imgsz: int | Sequence[int] | None = None
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    ranges: CalibrationRecipe = field(default_factory=CalibrationRecipe)
    bias_correction: bool = False
    allow_unsafe: bool = False
    native_ranges: bool = True
    points: Callable[[Graph, Point], QuantSpec] | None = None


def quantize(
    model: Any,
    *,
    data: str | os.PathLike[str],
    scheme: str | Iterable[str] = AUTO,
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Quantize a trained model after training: plan, calibrate on training images, repair.

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
    from .quantization.bias_correction import correct_bias
    from .quantization.bias_overflow import with_bias_room
    from .quantization.calibrate import Solver, observe, solve_plan
    from .quantization.importers.modelopt import take_over
    from .quantization.scheme import derive

    options = options or QuantizeOptions()
    schemes = _schemes(scheme)
    host_model = load_model(model, allow_unsafe=options.allow_unsafe)
    imgsz = check_imgsz(options.imgsz or host_model.imgsz or default_imgsz(host_model.task), host_model.stride)
    images = calibration_set(data, options.calibration)
    info = model_info(host_model, imgsz)
    artifact = Artifact(host_model, info, {})
    plans = tuple(derive(artifact.graph, s) for s in schemes)
    native: dict[str, Any] = {}
    if options.native_ranges:
        plans, native = take_over(artifact.graph, host_model, plans)
    plans, added = _with_learned(artifact.graph, host_model, schemes, plans)
    if options.points is not None:
        choose = partial(options.points, artifact.graph)
        plans = tuple(p.with_specs(choose) for p in plans)
    total = len(images)
    tick = None if progress is None else (lambda done, what: progress(done, total, what))
    seen = observe(artifact.graph, plans, images.tensors(imgsz), progress=tick)
    solver = Solver(seen, options.ranges)
    graph = artifact.graph
    solved = {p.scheme: with_bias_room(graph, solve_plan(graph, p, seen, solver=solver)) for p in plans}
    bias: dict[str, dict[str, np.ndarray]] = {}
    if options.bias_correction:
        sample = list(islice(images.tensors(imgsz), REPAIR_IMAGES))
        bias = {name: correct_bias(graph, p, sample) for name, p in solved.items()}
        solved = {name: with_bias_room(graph, p, bias[name]) for name, p in solved.items()}
    provenance = {
        "calibration": {
            "data": Path(str(data)).name,
            "split": images.split,
            "images": len(images),
            "seed": options.calibration.seed,
            "sha256": images.sha256,
            "allow_scored": options.calibration.allow_scored,
        },
        "bias_correction": options.bias_correction,
        "ranges": {k: getattr(v, "value", v) for k, v in vars(options.ranges).items()},
        "versions": versions(),
        **({"native_qat": native} if native else {}),
        **({"qat": host_model.state["provenance"].get("qat", {}), "calibrated_after_training": added} if added else {}),
    }
    quantized = replace(artifact, plans=solved, bias=bias, provenance=provenance)
    quantized.__dict__["graph"] = artifact.graph  # traced already
    return quantized


@dataclass(frozen=True)
class TrainResult:
    """What training left behind.

    Attributes:
        best: Checkpoint of the best model; of quantization-aware training the calibrated one if that was not beaten.
        folder: The run folder with plots and results.csv.
        score: Its score on the held-back images.
        score_calibrated: What it is measured against: the calibrated model's; of pruning alone the unpruned model's.
        quantized: Whether ranges were learned; False for pruning alone, whose result is a float model.
    """

    best: Path
    folder: Path
    score: float
    score_calibrated: float
    quantized: bool = True

    @property
    def improved(self) -> bool:
        """Whether training beat what it is measured against."""
        return self.score > self.score_calibrated

    @property
    def artifact(self) -> Artifact:
        """The result, to be exported."""
        return Artifact.load(self.best)


def train(
    model: Any,
    *,
    data: str | os.PathLike[str] | None = None,
    qat: QATOptions | Mapping[str, Any] | str | None = None,
    prune: PruneOptions | Mapping[str, Any] | float | None = None,
    **arguments: Any,
) -> TrainResult:
    """Train a model for its device: prune it, learn quantization ranges, or one after the other.

    Pruning comes first: the pruned model is fine-tuned for ``epochs``, taught by the unpruned one. Quantization-aware
    training then learns the ranges, and the weights that suit them; beside ``prune`` it runs only if ``qat`` is given,
    for as long as its preset says.

    Args:
        model: Path of a trained Ultralytics checkpoint, or a live ``ultralytics.YOLO``.
        data: Data yaml, or a folder of images without labels.
        qat: A preset (``fast``, ``standard``, ``long``), ``QATOptions``, or a mapping of its fields.
        prune: A share of the multiplications to remove, ``PruneOptions``, or a mapping of its fields.
        **arguments: Any argument of Ultralytics' training: ``epochs``, ``imgsz``, ``batch``, ``device`` ...; with
            ``resume=True`` the model is the last.pt of an interrupted run.

    Returns:
        Where the result is, and whether training beat what it started from.

    Raises:
        UsageError: An argument is unknown or does not fit.
        ModelError: The model cannot be read or traced.
        PruneError: So much cannot be removed; the message states the most that can.
        TrainingError: The loss is not finite.
    """
    from .bridge.checkpoint import offline
    from .training.qat.run import run

    with offline():
        pruned = None
        if prune is not None:
            from .pruning.prune_options import parse
            from .training.prune.finetune import fine_tune, quantization_arguments

            pruned = fine_tune(model, data, parse(prune), arguments)
            if qat is None:
                return TrainResult(pruned.best, pruned.folder, pruned.score, pruned.score_unpruned, quantized=False)
            model, arguments = pruned.best, quantization_arguments(pruned, arguments)
        best, folder, score, start = run(model, data, qat, arguments)
    return TrainResult(best, folder, score, start)


def _with_learned(
    graph: Graph, host_model: HostModel, schemes: Sequence[Scheme], plans: tuple[Plan, ...]
) -> tuple[tuple[Plan, ...], dict[str, list[str]]]:
    """Ranges that training learned, wherever a plan has their points; and the names of those left to calibrate."""
    from .quantization.scheme import adapt

    if not host_model.state.get("plans"):
        return plans, {}
    trained = Artifact.from_host(host_model)
    if not any(p.algorithm == "learned" for stored in trained.plans.values() for p in stored.points):
        return plans, {}
    adapted = tuple(adapt(graph, trained.source_plan(s), s) for s in schemes)
    added = {p.scheme: [q.name for q in p.points if q.params is None] for p in adapted}
    return tuple(_noted(p, added[p.scheme]) for p in adapted), added


def _noted(plan: Plan, added: list[str]) -> Plan:
    if not added:
        return plan
    few = ", ".join(added[:3]) + (" ..." if len(added) > 3 else "")
    note = f"{len(added)} points were not trained and are calibrated: {few} (all under calibrated_after_training)"
    return replace(plan, notes=(*plan.notes, note))


def plan(model: Any, *, scheme: str = "portable", imgsz: int | Sequence[int] | None = None) -> Plan:
    """The quantization plan of a scheme for a model: without ranges for a plain checkpoint, with them for an artifact.

    A checkpoint of Ultralytics' own QAT has the ranges of that training where the scheme needs them.

    Raises:
        ModelError: The model cannot be read or traced.
        UsageError: Unknown scheme, or another input size than an artifact's own.
    """
    from .quantization.importers.modelopt import take_over
    from .quantization.scheme import derive

    (rules,) = _schemes(scheme)
    host_model = load_model(model)
    if host_model.state:
        artifact = Artifact.load(model)
        if imgsz is not None and check_imgsz(imgsz, host_model.stride) != artifact.info.imgsz:
            raise UsageError(
                f"'{host_model.source}' was quantized at imgsz={artifact.info.imgsz}, got {imgsz}; leave imgsz out, or "
                "quantize the original checkpoint at that size"
            )
        return artifact.plan_for(rules)
    size = check_imgsz(imgsz or host_model.imgsz or default_imgsz(host_model.task), host_model.stride)
    artifact = Artifact(host_model, model_info(host_model, size), {})
    (derived,), _ = take_over(artifact.graph, host_model, [derive(artifact.graph, rules)])
    return derived


def export(
    model: Any,
    *,
    targets: str | Iterable[str],
    folder: str | os.PathLike[str] | None = None,
    keep_going: bool = False,
    data: str | os.PathLike[str] | None = None,
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
    chosen = resolve_targets(targets)
    artifact = model if isinstance(model, Artifact) else Artifact.load(model)
    out = output_folder(folder or _beside(artifact, "exports"))
    stem = artifact.stem
    if data is not None:
        artifact = complete(artifact, chosen, data=data)
    for target in chosen:  # everything that can be refused is refused before any work starts
        if not keep_going:
            target.require()
            target.check(artifact)
    done: list[ExportedModel] = []
    errors: dict[str, str] = {}
    try:
        for index, target in enumerate(chosen):
            if progress:
                progress(index, len(chosen), target.name)
            try:
                done.append(_build(target, artifact, out, stem))
            except YoloquantError as exc:
                if not keep_going:
                    raise
                logger.error("target '%s' could not be built: %s", target.name, exc)
                errors[target.name] = str(exc)
            if progress:
                progress(index + 1, len(chosen), target.name)
    finally:  # what was built before an error or an interruption stays usable
        if done:
            export_list.save_exports(out, done)
    return ExportResult(out, tuple(done), errors)


def complete(
    artifact: Artifact,
    targets: Iterable[Target],
    *,
    data: str | os.PathLike[str],
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Calibrate the points that targets need and an artifact lacks; ranges that it has stay as they are.

    Args:
        artifact: What was quantized or trained for other runtimes.
        targets: What it will be exported to.
        data: Data yaml or folder whose images calibrate.
        options: How; the input size is the artifact's.
        progress: Called after every calibration image.

    Returns:
        The artifact, with a plan for every scheme that needed one.
    """
    lacking = []
    for scheme in {t.scheme.name: t.scheme for t in targets}.values():
        try:
            artifact.plan_for(scheme)
        except PlanError:
            lacking.append(scheme.name)
    if not lacking:
        return artifact
    options = replace(options or QuantizeOptions(), imgsz=artifact.info.imgsz)
    source = artifact.model.source if Path(artifact.model.source).is_file() else artifact.model.module
    more = quantize(source, data=data, scheme=lacking, options=options, progress=progress)
    provenance = {**more.provenance, **artifact.provenance}
    return replace(artifact, plans={**artifact.plans, **more.plans}, provenance=provenance)


def _build(target: Target, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
    target.require()
    target.check(artifact)
    try:
        return target.export(artifact, folder, stem)
    except YoloquantError:
        raise
    except Exception as exc:  # a converter may raise anything
        raise TargetError(f"target '{target.name}' could not build {stem}: {type(exc).__name__}: {exc}") from exc


def resolve_targets(names: str | Iterable[str]) -> tuple[Target, ...]:
    """Targets by name, device or ``all`` (every installed one), each once.

    Raises:
        UsageError: A name is unknown, or nothing is named.
    """
    from . import targets

    wanted = [n.strip() for n in (names.split(",") if isinstance(names, str) else names) if n.strip()]
    if not wanted:
        raise UsageError(f"name at least one target: {', '.join(targets.names())}, or all")
    found: dict[str, Target] = {}
    for name in wanted:
        for target in targets.available() if name == "all" else (targets.get(name),):
            found.setdefault(target.name, target)
    return tuple(found.values())


def _schemes(names: str | Iterable[str]) -> tuple[Scheme, ...]:
    from . import targets
    from .quantization.scheme import PORTABLE

    known: dict[str, Scheme] = {PORTABLE.name: PORTABLE}
    for name in targets.names():
        scheme = targets.get(name).scheme
        known.setdefault(scheme.name, scheme)
    wanted = [n.strip() for n in (names.split(",") if isinstance(names, str) else names) if n.strip()]
    if wanted == [AUTO]:
        return tuple(known.values())
    unknown = [n for n in wanted if n not in known]
    if unknown or not wanted:
        raise UsageError(f"scheme '{', '.join(unknown)}' is unknown; allowed are {AUTO}, {', '.join(known)}")
    return tuple(known[n] for n in dict.fromkeys(wanted))


def default_imgsz(task: Task) -> int:
    """Input size in pixels where neither the caller nor the checkpoint tells."""
    return 224 if task is Task.CLASSIFY else DEFAULT_IMGSZ


def _beside(artifact: Artifact, what: str) -> Path:
    source = Path(artifact.model.source)
    parent = source.parent if source.suffix == ".pt" and source.is_file() else Path.cwd()
    return parent / f"{artifact.stem}_{what}"
