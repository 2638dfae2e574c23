"""Validation of exports: load every artifact beside the FP32 model, score them in one pass, measure them, and judge."""

from __future__ import annotations

import logging
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bridge.checkpoint import load_model
from ..bridge.host_model import HostModel, head_note, model_info
from ..errors import UsageError, YoloquantError
from ..graph.traced_model import TracedModel
from ..quantization.artifact import Artifact, versions
from ..runtime.device.processors import cpu_threads
from ..targets.exports import ExportResult, content_sha256, load_exports
from ..types import ExportedModel, ModelInfo, Progress
from .lineage import Baseline, check_calibration, check_exports, find_baseline
from .memory import peak_memory
from .processors import NATIVE, launch
from .processors import parse as parse_processors
from .validate_options import ValidateOptions

if TYPE_CHECKING:
    import numpy as np

    from ..data.dataset import ValidationSet
    from ..runtime.core.runner import Runner
    from ..targets.base import Target
    from .evaluate import Evaluation
    from .results import ValidationResult
    from .verdict import ArtifactFacts

logger = logging.getLogger(__name__)

BASELINE = "fp32"
PICTURES = 4  # scored images that latency is measured on
FloatModel = Callable[[Artifact, ExportedModel], "ExportedModel | None"]
"""Gives the float model, whose artifact is the first argument, in the runtime of another artifact."""


def validate(
    model: Any,
    exports: ExportResult | Iterable[ExportedModel] | str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | ValidationSet | None = None,
    source: str | os.PathLike[str] | None = None,
    options: ValidateOptions | None = None,
    float_model: FloatModel | None = None,
    progress: Progress | None = None,
) -> ValidationResult:
    """Score every artifact beside the FP32 model on the same images, and judge it by a gate.

    Args:
        model: The FP32 model: a checkpoint (quantized or not), a live YOLO, or an Artifact.
        exports: What ``export`` returned, an export folder, or one artifact in it.
        data: Data yaml with labels, or what ``scored_images`` returned.
        source: Folder of images without labels, instead of ``data``; fidelity alone is judged.
        options: Gate, images, threads; ``report`` is left to the caller.
        float_model: Gives the float model in the runtime of an artifact, whose latency is compared with it; without it
            no ratio is measured.
        progress: Called after every image, and before every artifact is timed.

    Returns:
        The result; a target that failed is in it as an error, never as a pass.

    Raises:
        UsageError: Neither or both of data and source are given, or the gate is unknown.
        DataError: The images or labels are not usable, or calibrated an artifact.
        ArtifactError: An artifact is missing, has changed, or was made from another model.
    """
    from .evaluate import EvaluateOptions, evaluate
    from .gate import load_gate
    from .verdict import ArtifactFacts, JudgeOptions, judge

    options = options or ValidateOptions()
    if (data is None) == (source is None):
        raise UsageError("give either data=<data yaml> (labelled) or source=<folder of images> (fidelity only)")
    gate = load_gate(options.gate)
    processors = parse_processors(options.cpu)
    outcome = _outcome(exports)
    named = model.model if isinstance(model, Artifact) else load_model(model)
    baseline = _baseline(named, options, outcome)
    artifact = _float_artifact(model, baseline.model, outcome)
    _same_task(artifact, outcome)
    notes = check_exports(outcome.exports, named, artifact.model, allow_stale=options.allow_stale)
    images = _images(data, source, artifact.model, artifact.info, options)
    notes += check_calibration(outcome.exports, images, allow_scored=options.allow_scored)
    threads = options.threads or cpu_threads()
    opened = _Opened(artifact, threads, options, float_model)
    try:
        for name, exported in named_rows(outcome.exports):
            for processor in processors:
                opened.load(name if processor == NATIVE else f"{name}@{processor}", exported, processor)
        for name, error in outcome.errors.items():
            opened.facts[name] = ArtifactFacts(error=error, target=name.partition(":")[0])
        evaluation = evaluate(opened.runners, images, EvaluateOptions(baseline=BASELINE, warmup=0), progress=progress)
    finally:
        opened.close()
    opened.measure(evaluation, progress)
    return judge(
        evaluation,
        gate,
        opened.facts,
        JudgeOptions(
            bootstrap=_bootstrap(options.bootstrap),
            threads=threads,
            environment={
                **_environment(named),
                "task": artifact.info.task.value,
                "latency": options.latency,
            },
            notes=tuple(note for note in (baseline.note, head_note(named)) if note) + notes,
        ),
    )


def _same_task(artifact: Artifact, outcome: ExportResult) -> None:
    """Refuse artifacts of another task."""
    task = artifact.info.task
    other = next((e for e in outcome.exports if e.info.task is not task), None)
    if other is not None:
        raise UsageError(
            f"artifact '{other.path.name}' holds a {other.info.task.value} model and this one is a {task.value} model; "
            "export again from this model"
        )


def _baseline(model: HostModel, options: ValidateOptions, outcome: ExportResult) -> Baseline:
    if options.baseline is None:
        return find_baseline(model, (outcome.folder,))
    return Baseline(load_model(options.baseline), f"the baseline is '{Path(options.baseline).name}', as asked")


def scored_images(
    model: HostModel,
    *,
    data: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    options: ValidateOptions | None = None,
) -> ValidationSet:
    """The images that a model's artifacts will be scored on, checked before hours of work are spent on those.

    Args:
        model: The FP32 model.
        data: Data yaml with labels.
        source: Folder of images without labels, instead of ``data``.
        options: Which images.

    Raises:
        DataError: An image or a label is not usable, or the classes are not the model's.
    """
    return _images(data, source, model, model_info(model, model.resolve_imgsz()), options or ValidateOptions())


def _images(
    data: str | os.PathLike[str] | ValidationSet | None,
    source: str | os.PathLike[str] | None,
    model: HostModel,
    info: ModelInfo,
    options: ValidateOptions,
) -> ValidationSet:
    from ..data.dataset import ValidationSet
    from ..data.trained_classes import TrainedClasses

    if isinstance(data, ValidationSet):
        return data.for_classes(info.names)
    if data is None:
        return ValidationSet.from_folder(str(source), info.names).take(options.limit)
    images = ValidationSet.open(
        str(data),
        info,
        split=options.split,
        manifest=options.manifest,
        trained=TrainedClasses.of(model.trained),
    )
    return images.take(options.limit).require_labels().for_classes(info.names)


def _outcome(exports: ExportResult | Iterable[ExportedModel] | str | os.PathLike[str]) -> ExportResult:
    if isinstance(exports, ExportResult):
        return exports
    found: tuple[ExportedModel, ...]
    found = load_exports(exports) if isinstance(exports, (str, os.PathLike)) else tuple(exports)
    if not found:
        raise UsageError("there is no artifact to validate")
    return ExportResult(found[0].path.parent, found)


def named_rows(exports: Iterable[ExportedModel]) -> list[tuple[str, ExportedModel]]:
    """Every artifact under a name of its own: its target's, its file's behind it where several share that, or a number.

    A name that two shared would hide one of them.

    Args:
        exports: The artifacts.
    """
    exports = tuple(exports)
    count = Counter(export.name for export in exports)
    names = [e.name if count[e.name] == 1 else f"{e.name}:{e.path.name}" for e in exports]
    count, seen = Counter(names), Counter[str]()
    for index, name in enumerate(names):
        seen[name] += 1
        names[index] = name if count[name] == 1 else f"{name}:{seen[name]}"
    return list(zip(names, exports, strict=True))


def _float_artifact(model: Any, baseline: HostModel, outcome: ExportResult) -> Artifact:
    """The FP32 model at the artifacts' input size."""
    if isinstance(model, Artifact) and model.model is baseline:
        return model
    sizes = {e.info.imgsz for e in outcome.exports}
    if len(sizes) > 1:
        raise UsageError(f"the artifacts have different input sizes ({sorted(sizes)}); validate them separately")
    if most := max((e.info.max_det for e in outcome.exports), default=0):
        baseline.allow_detections(most)  # of an end-to-end head: as many as the artifacts return
    return Artifact(TracedModel.of(baseline, next(iter(sizes)) if sizes else None))


class _Opened:
    """The FP32 model and every artifact that could be loaded, with what is known of them.

    Args:
        artifact: The FP32 model.
        threads: Threads of every runtime.
        options: What is measured.
        float_model: See ``validate``.
    """

    def __init__(
        self, artifact: Artifact, threads: int, options: ValidateOptions, float_model: FloatModel | None
    ) -> None:
        from .torch_runner import TorchRunner
        from .verdict import ArtifactFacts

        self.artifact, self.threads, self.options, self.float_model = artifact, threads, options, float_model
        host = artifact.model
        self.facts: dict[str, ArtifactFacts] = {
            BASELINE: ArtifactFacts(
                path=Path(host.source).name if host.derived else host.origin.name,
                sha256=host.sha256 if host.derived else host.origin.sha256,
                size_bytes=_float_bytes(artifact),
                latency_note="not measured: targets are timed against FP32 in their own runtime",
            )
        }
        self.runners: dict[str, Runner] = {BASELINE: TorchRunner(artifact.graph.module, artifact.info, threads)}
        self.exports: dict[str, ExportedModel] = {}

    def load(self, name: str, exported: ExportedModel, processor: str = NATIVE) -> None:
        """Load one artifact, here or on another processor; one that cannot be is noted as an error, never a pass."""
        from .. import targets
        from .verdict import ArtifactFacts

        target = targets.get(exported.target)
        facts = ArtifactFacts(
            path=exported.path.name,
            scheme=exported.scheme,
            size_bytes=exported.size_bytes,
            notes=exported.notes,
            simulated=not target.capabilities.runs_here,
            elsewhere="" if processor == NATIVE else processor,
            target=exported.target,
            sha256=content_sha256(exported.path),
        )
        self.exports[name], self.facts[name] = exported, facts
        try:
            target.require()
            self.runners[name] = (
                target.load(exported, self.threads)
                if processor == NATIVE
                else self._elsewhere(target, exported, processor)
            )
        except YoloquantError as exc:
            self.facts[name] = replace(facts, error=str(exc))
        except Exception as exc:  # a runtime may raise anything for a file that it does not like
            logger.exception("target '%s' could not load %s", target.name, exported.path)
            self.facts[name] = replace(facts, error=f"{type(exc).__name__}: {exc}")

    def _elsewhere(self, target: Target, exported: ExportedModel, processor: str) -> Runner:
        """Start an artifact on another processor."""
        from .emulated_runner import EmulatedRunner

        start = launch(processor, target.backend, root=self.options.cpu_root or "")
        return EmulatedRunner(exported, target.backend, start, self.threads)

    def close(self) -> None:
        """Free what the runtimes hold."""
        for runner in self.runners.values():
            runner.close()

    def measure(self, evaluation: Evaluation, progress: Progress | None) -> None:
        """Measure memory and latency of everything that got through, once nothing else is loaded."""
        count = min(PICTURES, len(evaluation.data))
        pictures = [evaluation.data.read(index) for index in range(count)]
        measured = [name for name in self.exports if name in evaluation.records]
        for index, name in enumerate(measured):
            if progress is not None:  # a float model may have to be converted first, which can take minutes
                progress(index, len(measured), f"timing {name}")
            self.facts[name] = self._measured(self.facts[name], self.exports[name], pictures)

    def _measured(self, facts: ArtifactFacts, exported: ExportedModel, pictures: list[np.ndarray]) -> ArtifactFacts:
        from .. import targets
        from .latency import measure_latency, unmeasured

        target = targets.get(exported.target)
        if self.options.memory and target.capabilities.runs_here and not facts.elsewhere:
            facts = replace(facts, peak_memory_bytes=peak_memory(exported, self.threads))
        note = f"not measured here: it is for {facts.elsewhere}" if facts.elsewhere else unmeasured(target)
        if not note and not self.options.latency:
            note = (
                "it was switched off (latency=false); measure it, or take latency_ratio out of the gate with "
                "'latency_ratio: null'"
            )
        if note:
            return replace(facts, latency_note=note)
        reference = None if self.float_model is None else self.float_model(self.artifact, exported)
        timing = measure_latency(exported, reference, pictures, self.threads)
        return replace(facts, latency=timing.latency, latency_ratio=timing.ratio, latency_note=timing.note)


def _float_bytes(artifact: Artifact) -> int:
    """Size of the weights in float32, whatever the checkpoint stores."""
    return sum(4 * p.numel() for p in artifact.model.module.parameters())


def _bootstrap(replicates: int) -> Any:
    from .bootstrap import BootstrapOptions

    return BootstrapOptions(replicates=replicates)


def _environment(model: HostModel) -> dict[str, Any]:
    return {
        "model": Path(model.source).name,
        "model_sha256": model.sha256,
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": cpu_threads(),
        **{f"version_{k}": v for k, v in versions().items()},
    }
