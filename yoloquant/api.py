"""The public verbs: quantize, export, validate, and the whole job from one recipe."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import exports as export_list
from .artifact import Artifact, versions
from .calibration import CalibrationOptions, calibration_set
from .errors import TargetError, UsageError, YoloquantError
from .host import check_imgsz, load_model, model_info
from .memory import peak_memory
from .quant.observers import CalibrationRecipe
from .types import ExportedModel, Task
from .writing import output_folder

if TYPE_CHECKING:
    import numpy as np

    from .quant.plan import Plan
    from .quant.scheme import Scheme
    from .report import ReportPaths
    from .targets.base import Runner, Target
    from .validation.gate import Gate
    from .validation.judge import ArtifactFacts
    from .validation.results import ValidationResult

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is being done."""

AUTO = "auto"
BASELINE = "fp32"
DEFAULT_IMGSZ = 640
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
    """

    imgsz: int | Sequence[int] | None = None
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    ranges: CalibrationRecipe = field(default_factory=CalibrationRecipe)
    bias_correction: bool = False
    allow_unsafe: bool = False


@dataclass(frozen=True)
class ExportResult:
    """Outcome of an export to several targets.

    Attributes:
        folder: Where the artifacts lie.
        exports: What was written, in the order asked.
        errors: Why a target could not be built, by target name.
    """

    folder: Path
    exports: tuple[ExportedModel, ...]
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ValidateOptions:
    """How artifacts are judged.

    Attributes:
        gate: Name of a gate in ``configs/gates``, a path, or the limits themselves.
        split: Split of the data yaml that is scored.
        limit: Score only so many images; all by default.
        threads: Threads of every runtime; all cores by default.
        latency: Compare latency with a float model in the same runtime, which has to be built for that.
        memory: Measure peak memory of every artifact in a process of its own.
        bootstrap: Replicates of the paired bootstrap.
        manifest: Manifest that the images are held against.
        report: Folder for the report; none is written if None.
    """

    gate: str | Path | Mapping[str, Any] | Gate = "default"
    split: str = "val"
    limit: int | None = None
    threads: int | None = None
    latency: bool = True
    memory: bool = True
    bootstrap: int = 1000
    manifest: str | Path | None = None
    report: Path | None = None


def quantize(
    model: Any,
    *,
    data: str | os.PathLike[str],
    scheme: str | Iterable[str] = AUTO,
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Quantize a trained model after training: plan, calibrate on training images, repair.

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
    from .quant.bias_room import with_bias_room
    from .quant.calibrate import Solver, observe, solve_plan
    from .quant.repair import correct_bias
    from .quant.scheme import derive

    options = options or QuantizeOptions()
    schemes = _schemes(scheme)
    host_model = load_model(model, allow_unsafe=options.allow_unsafe)
    imgsz = check_imgsz(options.imgsz or host_model.imgsz or _default_imgsz(host_model.task), host_model.stride)
    images = calibration_set(data, options.calibration)
    info = model_info(host_model, imgsz)
    artifact = Artifact(host_model, info, {})
    plans = [derive(artifact.graph, s) for s in schemes]
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
    }
    quantized = replace(artifact, plans=solved, bias=bias, provenance=provenance)
    quantized.__dict__["graph"] = artifact.graph  # traced already
    return quantized


def plan(model: Any, *, scheme: str = "portable", imgsz: int | Sequence[int] | None = None) -> Plan:
    """The quantization plan of a scheme for a model: without ranges for a plain checkpoint, with them for an artifact.

    Raises:
        ModelError: The model cannot be read or traced.
        UsageError: Unknown scheme.
    """
    from .quant.scheme import derive

    (rules,) = _schemes(scheme)
    host_model = load_model(model)
    if host_model.state:
        return Artifact.load(model).plan_for(rules)
    size = check_imgsz(imgsz or host_model.imgsz or _default_imgsz(host_model.task), host_model.stride)
    artifact = Artifact(host_model, model_info(host_model, size), {})
    return derive(artifact.graph, rules)


def export(
    model: Any,
    *,
    targets: str | Iterable[str],
    folder: str | os.PathLike[str] | None = None,
    keep_going: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Export a quantized model.

    Args:
        model: An Artifact, or the path of a checkpoint that ``Artifact.save`` wrote.
        targets: Target or device names; ``all`` for every one that is installed.
        folder: Where to write; ``<checkpoint>_exports`` beside the checkpoint by default.
        keep_going: Report a target that cannot be built in the result instead of raising.
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
    stem = _stem(artifact)
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


def _build(target: Target, artifact: Artifact, folder: Path, stem: str) -> ExportedModel:
    target.require()
    target.check(artifact)
    try:
        return target.export(artifact, folder, stem)
    except YoloquantError:
        raise
    except Exception as exc:  # a converter may raise anything
        raise TargetError(f"target '{target.name}' could not build {stem}: {type(exc).__name__}: {exc}") from exc


def validate(
    model: Any,
    exports: ExportResult | Iterable[ExportedModel] | str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    options: ValidateOptions | None = None,
    progress: Progress | None = None,
) -> ValidationResult:
    """Score every artifact beside the FP32 model on the same images, and judge it by a gate.

    Args:
        model: The FP32 model: a checkpoint (quantized or not), a live YOLO, or an Artifact.
        exports: What ``export`` returned, an export folder, or one artifact in it.
        data: Data yaml with labels.
        source: Folder of images without labels, instead of ``data``; fidelity alone is judged.
        options: Gate, images, threads, report.
        progress: Called after every image.

    Returns:
        The result; a target that failed is in it as an error, never as a pass.

    Raises:
        UsageError: Neither or both of data and source are given, or the gate is unknown.
        DataError: The images or labels are not usable.
        ArtifactError: An artifact is missing or has changed.
    """
    from .float_runner import TorchRunner
    from .validation.data import ValidationSet
    from .validation.engine import EvaluateOptions, evaluate
    from .validation.gate import load_gate
    from .validation.judge import ArtifactFacts, JudgeOptions, judge

    options = options or ValidateOptions()
    if (data is None) == (source is None):
        raise UsageError("give either data=<data yaml> (labelled) or source=<folder of images> (fidelity only)")
    gate = load_gate(options.gate)
    outcome = _outcome(exports)
    artifact = _float_artifact(model, outcome)
    if artifact.info.task is not Task.DETECT:
        raise UsageError(f"validation scores detect models; this one is a {artifact.info.task.value} model")
    if options.report is not None:
        output_folder(options.report)
    images = (
        ValidationSet.from_yaml(str(data), split=options.split, manifest=options.manifest)
        if data is not None
        else ValidationSet.from_folder(str(source), artifact.info.names)
    ).take(options.limit)
    threads = options.threads or os.cpu_count() or 1
    facts: dict[str, ArtifactFacts] = {
        BASELINE: ArtifactFacts(path=Path(artifact.model.source).name, size_bytes=_float_bytes(artifact))
    }
    runners: dict[str, Runner] = {BASELINE: TorchRunner(artifact.graph.module, artifact.info, threads)}
    timing: dict[str, int] = {}
    try:
        for exported in outcome.exports:
            facts[exported.target] = _open(exported, artifact, outcome.folder, threads, runners, timing, options)
        for name, error in outcome.errors.items():
            facts[name] = ArtifactFacts(error=error)
        evaluation = evaluate(
            runners, images, EvaluateOptions(baseline=BASELINE, timing_only=timing), progress=progress
        )
    finally:
        for runner in runners.values():
            runner.close()
    result = judge(
        evaluation,
        gate,
        facts,
        JudgeOptions(
            bootstrap=_bootstrap(options.bootstrap),
            threads=threads,
            environment={**_environment(artifact), "latency": options.latency},
        ),
    )
    if options.report is not None:
        write_report(result, options.report)
    return result


def write_report(result: ValidationResult, folder: str | os.PathLike[str]) -> ReportPaths:
    """Write the JSON, JUnit, Markdown and HTML reports of a validation into a folder."""
    from . import report

    return report.write_report(result, output_folder(folder))


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
    from .quant.scheme import PORTABLE

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


def _default_imgsz(task: Task) -> int:
    return 224 if task is Task.CLASSIFY else DEFAULT_IMGSZ


def _stem(artifact: Artifact) -> str:
    stem = Path(artifact.model.source).stem if artifact.model.source.endswith(".pt") else "model"
    return stem.removesuffix("_int8")


def _beside(artifact: Artifact, what: str) -> Path:
    source = Path(artifact.model.source)
    parent = source.parent if source.suffix == ".pt" and source.is_file() else Path.cwd()
    return parent / f"{_stem(artifact)}_{what}"


def _outcome(exports: ExportResult | Iterable[ExportedModel] | str | os.PathLike[str]) -> ExportResult:
    if isinstance(exports, ExportResult):
        return exports
    found: tuple[ExportedModel, ...]
    found = export_list.load_exports(exports) if isinstance(exports, (str, os.PathLike)) else tuple(exports)
    if not found:
        raise UsageError("there is no artifact to validate")
    return ExportResult(found[0].path.parent, found)


def _float_artifact(model: Any, outcome: ExportResult) -> Artifact:
    """The FP32 model at the artifacts' input size."""
    if isinstance(model, Artifact):
        return model
    host_model = load_model(model)
    sizes = {e.info.imgsz for e in outcome.exports}
    if len(sizes) > 1:
        raise UsageError(f"the artifacts have different input sizes ({sorted(sizes)}); validate them separately")
    size = next(iter(sizes)) if sizes else check_imgsz(host_model.imgsz or DEFAULT_IMGSZ, host_model.stride)
    return Artifact(host_model, model_info(host_model, size), {})


def _open(
    exported: ExportedModel,
    artifact: Artifact,
    folder: Path,
    threads: int,
    runners: dict[str, Runner],
    timing: dict[str, int],
    options: ValidateOptions,
) -> ArtifactFacts:
    """Load one artifact, and a float model in the same runtime to time it against."""
    from . import targets
    from .validation.judge import ArtifactFacts

    target = targets.get(exported.target)
    facts = ArtifactFacts(
        path=exported.path.name,
        scheme=exported.scheme,
        size_bytes=exported.size_bytes,
        notes=exported.notes,
        simulated=not target.capabilities.runs_here,
    )
    try:
        target.require()
        runners[exported.target] = target.load(exported, threads)
    except YoloquantError as exc:
        return replace(facts, error=str(exc))
    except Exception as exc:  # a runtime may raise anything for a file that it does not like
        logger.exception("target '%s' could not load %s", target.name, exported.path)
        return replace(facts, error=f"{type(exc).__name__}: {exc}")
    if not target.capabilities.runs_here:
        return facts
    if options.memory:
        facts = replace(facts, peak_memory_bytes=peak_memory(exported, threads))
    if not options.latency:
        return facts
    name = f"{exported.target}_{BASELINE}"
    try:
        reference = target.export_float(artifact, folder / ".fp32", f"{_stem(artifact)}_{artifact.model.sha256[:12]}")
        runners[name] = target.load(reference, threads)
        timing[name] = 64
    except Exception as exc:  # the ratio is a luxury; the gate reports that it is missing
        logger.warning("no float model to time %s against: %s", target.name, exc)
        return facts
    return replace(facts, timing_baseline=name)


def _float_bytes(artifact: Artifact) -> int:
    """Size of the weights in float32, whatever the checkpoint stores."""
    return sum(4 * p.numel() for p in artifact.model.module.parameters())


def _bootstrap(replicates: int) -> Any:
    from .validation.bootstrap import BootstrapOptions

    return BootstrapOptions(replicates=replicates)


def _environment(artifact: Artifact) -> dict[str, Any]:
    return {
        "model": Path(artifact.model.source).name,
        "model_sha256": artifact.model.sha256,
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count() or 1,
        **{f"version_{k}": v for k, v in versions().items()},
    }
