"""Validation of exports: load every artifact beside the FP32 model, score them in one pass, judge and report."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bridge.checkpoint import load_model
from ..errors import UsageError, YoloquantError
from ..graph.traced_model import TracedModel
from ..io import output_folder
from ..quantization.artifact import Artifact, versions
from ..runtime.device.processors import cpu_threads
from ..targets.exports import ExportResult, load_exports
from ..types import ExportedModel, Progress
from .memory import peak_memory
from .processors import NATIVE, launch
from .processors import parse as parse_processors
from .validate_options import ValidateOptions

if TYPE_CHECKING:
    from ..runtime.core.runner import Runner
    from .results import ValidationResult
    from .verdict import ArtifactFacts

logger = logging.getLogger(__name__)

BASELINE = "fp32"
TIMED_IMAGES = 64  # inferences of the float model that a target's latency is compared with


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
    from ..data.dataset import ValidationSet
    from ..data.trained_classes import TrainedClasses
    from .evaluate import EvaluateOptions, evaluate
    from .gate import load_gate
    from .torch_runner import TorchRunner
    from .verdict import ArtifactFacts, JudgeOptions, judge

    options = options or ValidateOptions()
    if (data is None) == (source is None):
        raise UsageError("give either data=<data yaml> (labelled) or source=<folder of images> (fidelity only)")
    gate = load_gate(options.gate)
    processors = parse_processors(options.cpu)
    outcome = _outcome(exports)
    artifact = _float_artifact(model, outcome)
    if options.report is not None:
        output_folder(options.report)
    images = (
        ValidationSet.open(
            str(data),
            artifact.info,
            split=options.split,
            manifest=options.manifest,
            trained=TrainedClasses.of(artifact.model.trained),
        )
        if data is not None
        else ValidationSet.from_folder(str(source), artifact.info.names)
    ).take(options.limit)
    threads = options.threads or cpu_threads()
    facts: dict[str, ArtifactFacts] = {
        BASELINE: ArtifactFacts(path=Path(artifact.model.source).name, size_bytes=_float_bytes(artifact))
    }
    runners: dict[str, Runner] = {BASELINE: TorchRunner(artifact.graph.module, artifact.info, threads)}
    timing: dict[str, int] = {}
    try:
        for exported in outcome.exports:
            if NATIVE in processors:
                facts[exported.name] = _open(exported, artifact, outcome.folder, threads, runners, timing, options)
            for processor in processors:
                if processor != NATIVE:
                    name = f"{exported.name}@{processor}"
                    facts[name] = _open_elsewhere(name, processor, exported, runners, options)
        for name, error in outcome.errors.items():
            facts[name] = ArtifactFacts(error=error)
        evaluation = evaluate(
            runners,
            images,
            EvaluateOptions(
                baseline=BASELINE, timing_only=timing, untimed=frozenset(n for n, f in facts.items() if f.elsewhere)
            ),
            progress=progress,
        )
    finally:
        for runner in runners.values():
            runner.close()
    return judge(
        evaluation,
        gate,
        facts,
        JudgeOptions(
            bootstrap=_bootstrap(options.bootstrap),
            threads=threads,
            environment={**_environment(artifact), "latency": options.latency},
        ),
    )


def _outcome(exports: ExportResult | Iterable[ExportedModel] | str | os.PathLike[str]) -> ExportResult:
    if isinstance(exports, ExportResult):
        return exports
    found: tuple[ExportedModel, ...]
    found = load_exports(exports) if isinstance(exports, (str, os.PathLike)) else tuple(exports)
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
    size = next(iter(sizes)) if sizes else None
    return Artifact(TracedModel.of(host_model, size))


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
    from .. import targets
    from .verdict import ArtifactFacts

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
        runners[exported.name] = target.load(exported, threads)
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
        reference = target.export_float(artifact, folder / ".fp32", f"{artifact.stem}_{artifact.model.sha256[:12]}")
        runners[name] = target.load(reference, threads)
        timing[name] = TIMED_IMAGES
    except Exception as exc:  # the ratio is a luxury; the gate reports that it is missing
        logger.warning("no float model to time %s against: %s", target.name, exc)
        return facts
    return replace(facts, timing_baseline=name)


def _open_elsewhere(
    name: str, processor: str, exported: ExportedModel, runners: dict[str, Runner], options: ValidateOptions
) -> ArtifactFacts:
    """Start one artifact on another processor; one that does not come up is an error, never a pass."""
    from .. import targets
    from .emulated_runner import EmulatedRunner
    from .verdict import ArtifactFacts

    facts = ArtifactFacts(
        path=exported.path.name,
        scheme=exported.scheme,
        size_bytes=exported.size_bytes,
        notes=exported.notes,
        elsewhere=processor,
    )
    try:
        target = targets.get(exported.target)
        start = launch(processor, target.backend, root=options.cpu_root or "")
        runners[name] = EmulatedRunner(exported, target.backend, start, options.threads or cpu_threads())
    except (YoloquantError, OSError) as exc:
        return replace(facts, error=str(exc))
    return facts


def _float_bytes(artifact: Artifact) -> int:
    """Size of the weights in float32, whatever the checkpoint stores."""
    return sum(4 * p.numel() for p in artifact.model.module.parameters())


def _bootstrap(replicates: int) -> Any:
    from .bootstrap import BootstrapOptions

    return BootstrapOptions(replicates=replicates)


def _environment(artifact: Artifact) -> dict[str, Any]:
    return {
        "model": Path(artifact.model.source).name,
        "model_sha256": artifact.model.sha256,
        "task": artifact.info.task.value,
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": cpu_threads(),
        **{f"version_{k}": v for k, v in versions().items()},
    }
