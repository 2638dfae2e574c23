"""Validation of exports: load every artifact beside the FP32 model, score them in one pass, measure them, and judge."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bridge.checkpoint import load_model
from ..bridge.host_model import HostModel, head_note, model_info
from ..cache import Store
from ..cluster import connecting
from ..errors import OutputError, UsageError
from ..graph.traced_model import TracedModel
from ..options.where import Where
from ..predictions.prediction_options import PredictionOptions
from ..quantization.artifact import Artifact, versions
from ..runtime.device.processors import cpu_threads
from ..runtime.tasks import spec_of
from ..targets.exports import ExportResult, note_in_listing
from ..types import ExportedModel, ModelInfo, Progress
from .contenders import (
    Contenders,
    check_classes,
    contenders,
    named_rows,
    path_names,
)
from .judged_models import BASELINE, FloatModel, JudgedModels
from .keep_results import keep_results
from .kept_predictions import KeptPredictions, selection_for
from .lineage import Baseline, check_calibration, check_exports, find_baseline
from .matched_notes import matched_notes
from .processors import NATIVE
from .processors import parse as parse_processors
from .recorded_files import prediction_info, read_files
from .stored_baseline import stored_baseline, stored_model
from .validate_options import ValidateOptions

if TYPE_CHECKING:
    from ..data.dataset import ValidationSet
    from ..predictions.prediction_set import RecordedModel
    from .pass_job import PassJob, PassResult
    from .results import ValidationResult

logger = logging.getLogger(__name__)


def validate(
    model: Any,
    exports: ExportResult | Iterable[ExportedModel] | str | os.PathLike[str] | None = None,
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
        exports: What ``export`` returned; or export folders, artifacts in them, exports that Ultralytics made and other
            checkpoints, in a list or separated by commas. May be left out where ``options.recorded`` names files of
            predictions.
        data: Data yaml with labels, or what ``scored_images`` returned.
        source: Folder of images without labels, instead of ``data``; fidelity alone is judged.
        options: Gate, images, threads; ``report`` is left to the caller.
        float_model: Gives the float model in the runtime of an artifact, whose latency is compared with it; without it
            no ratio is measured.
        progress: Called after every image, and before every artifact is timed.

    Returns:
        The result; a target that failed is in it as an error, never as a pass.

    Raises:
        UsageError: Neither or both of data and source are given, there is nothing to judge, or the gate is unknown.
        DataError: The images or labels are not usable, or calibrated an artifact; or predictions are about others.
        ArtifactError: An artifact is missing, has changed, or was made from another model.
    """
    from .coco_eval import beside, coco_figures, require_coco_eval
    from .evaluate import EvaluateOptions
    from .gate import check_task, load_gates
    from .pass_job import PassJob
    from .verdict import ArtifactInfo, VerdictOptions, reach_verdict

    options = options or ValidateOptions()
    if (data is None) == (source is None):
        raise UsageError("give either data=<data yaml> (labelled) or source=<folder of images> (fidelity only)")
    # before any model is loaded: a gate with a typo is refused in a second
    gates = load_gates(options.gate)
    processors = parse_processors(options.cpu)
    judged = _judged(exports, options.recorded)
    outcome = judged.exports
    threads = options.threads or cpu_threads()
    # before any model is loaded: a cluster that does not answer is told first
    with _passes(options, threads) as run_pass:
        named = model.model if isinstance(model, Artifact) else load_model(model)
        gate_notes = check_task(gates, named.task)
        # Before a model is traced: an address that does not answer is told first.
        stored = stored_baseline(options.baseline)
        baseline = _baseline(named, None if stored else options.baseline, outcome)
        artifact = _float_artifact(model, baseline.model, judged, options.recorded.imgsz)
        _same_task(artifact, judged)
        for foreign in judged.foreign:
            check_classes(foreign, artifact.info.names)
        # before images are read and hashed: stale artifacts need none of that
        notes = gate_notes + check_exports(outcome.exports, named, artifact.model, allow_stale=options.allow_stale)
        everything = _images(data, source, artifact.model, artifact.info, options)
        # files of predictions may name any image of the set, so they are read against all of them
        images = everything.take(options.limit)
        if data is not None:
            images = images.require_labels()
        if options.coco_eval:
            require_coco_eval(spec_of(artifact.info.task), images.labelled)
        files = read_files(options.recorded, everything, len(images), artifact.info)
        notes += check_calibration(outcome.exports, images, allow_scored=options.allow_scored)
        recorded: dict[str, RecordedModel] = {name: file.model for name, file in files.items()}
        selection = selection_for((artifact.info, *(info for _, info in judged.infos)))
        settings = EvaluateOptions(baseline=BASELINE, selection=selection, keep_parts=options.coco_eval)
        # what other checkpoints select is known once they are opened, and all select alike; workers of a cluster have
        # processors of their own
        keeps = options.on is Where.LOCAL and not judged.checkpoints
        known = KeptPredictions(Store.of(options.cache) if keeps else None, images, settings, threads)
        models = JudgedModels(artifact, threads, options, float_model, known)
        if stored is None:
            models.add_baseline()
        else:
            sha256 = models.facts[BASELINE].sha256
            recorded[BASELINE], told = stored_model(
                stored, images, artifact.info, sha256, allow_stale=options.allow_stale
            )
            notes += told
        for name, exported in named_rows(outcome.exports):
            for processor in processors:
                models.add(name if processor == NATIVE else f"{name}@{processor}", exported, processor)
        _add_foreign(models, judged)
        for name, error in outcome.errors.items():
            models.facts[name] = ArtifactInfo(error=error, target=name)
        models.facts.update((name, prediction_info(file)) for name, file in files.items())
        recorded |= models.recorded
        found = run_pass(PassJob(models.openings, recorded, images, settings), progress)
        evaluation = found.evaluation
        models.note(found.unopened)
        models.keep(evaluation)
        # after the pass: latency is measured with the machine to itself
        models.measure(evaluation, progress)
        result = reach_verdict(
            evaluation,
            gates,
            models.facts,
            VerdictOptions(
                bootstrap=_bootstrap(options.bootstrap),
                conf=options.conf,
                match=options.match,
                threads=threads,
                environment={
                    **_environment(named),
                    "task": artifact.info.task.value,
                    "latency": options.latency,
                },
                notes=tuple(note for note in (baseline.note, head_note(named)) if note) + notes,
            ),
        )
        # Behind the verdict: pycocotools' figures stand beside ours and decide nothing.
        if options.coco_eval:
            result = beside(result, coco_figures(evaluation))
        _note_matched(models, result)
        if options.report is not None:
            keep_results(options.report, evaluation, models.facts, artifact.info, result.environment)
    return result


def _note_matched(models: JudgedModels, result: ValidationResult) -> None:
    """Write matched confidences beside the artifacts, where ``predict conf=matched`` finds them."""
    notes: dict[Path, dict[str, Any]] = {}
    for target in result.targets:
        exported, found = models.exports.get(target.target), matched_notes(result.names, target.comparison)
        if exported is not None and found:
            notes.setdefault(exported.path, found)
    try:
        note_in_listing(models.exports.values(), notes)
    except OutputError as exc:  # the verdict does not hang on a folder that is read-only
        logger.warning("the matched confidence was not written: %s", exc)


@contextmanager
def _passes(options: ValidateOptions, threads: int) -> Iterator[Callable[[PassJob, Progress | None], PassResult]]:
    """What makes the pass: this process, or a cluster, which it is connected to as long as this context lasts."""
    from .pass_job import PassJob
    from .ray_pass import RayPass

    if options.on is Where.LOCAL:
        yield PassJob.run
        return

    def get_ready(ray: Any) -> RayPass:
        on_cluster = RayPass(ray, threads, options.shards)
        on_cluster.get_ready()
        return on_cluster

    with connecting(options.address, get_ready) as on_cluster:

        def run_pass(job: PassJob, progress: Progress | None) -> PassResult:
            found = on_cluster().run(job, progress)
            leaving = on_cluster.leave()
            # what is measured has the machine to itself; a verdict alone need not wait for seconds of Ray's end
            if options.latency or options.memory:
                leaving.result()
            return found

        yield run_pass


def _add_foreign(models: JudgedModels, judged: Contenders) -> None:
    """Add what others made; it is named by its file."""
    names = path_names([*(f.path for f in judged.foreign), *judged.checkpoints], models.facts)
    for name, foreign in zip(names, judged.foreign, strict=False):
        models.add_foreign(name, foreign)
    for name, path in zip(names[len(judged.foreign) :], judged.checkpoints, strict=True):
        models.add_checkpoint(name, path)


def _same_task(artifact: Artifact, judged: Contenders) -> None:
    """Refuse artifacts of another task."""
    task = artifact.info.task
    other = next(((name, info) for name, info in judged.infos if info.task is not task), None)
    if other is not None:
        raise UsageError(
            f"artifact '{other[0]}' holds a {other[1].task.value} model and this one is a {task.value} model; "
            "export again from this model"
        )


def _baseline(model: HostModel, asked: str | Path | None, outcome: ExportResult) -> Baseline:
    if asked is None:
        return find_baseline(model, (outcome.folder,))
    return Baseline(load_model(asked), f"the baseline is '{Path(asked).name}', as asked")


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
    options = options or ValidateOptions()
    images = _images(data, source, model, model_info(model, model.resolve_imgsz()), options).take(options.limit)
    return images if data is None else images.require_labels()


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
        return ValidationSet.from_folder(str(source), info.names)
    images = ValidationSet.open(
        str(data),
        info,
        split=options.split,
        manifest=options.manifest,
        trained=TrainedClasses.of(model.trained),
    )
    return images.for_classes(info.names)


def _judged(exports: Any, recorded: PredictionOptions) -> Contenders:
    if exports is None and not recorded.predictions:
        raise UsageError("there is nothing to judge; give exports=<folder or artifact>, or predictions=<file>")
    near = Path(recorded.predictions[0]).resolve().parent if recorded.predictions else None
    return contenders(exports, near)


def _float_artifact(model: Any, baseline: HostModel, judged: Contenders, imgsz: Any = None) -> Artifact:
    """The FP32 model at the artifacts' input size; at ``imgsz``, or its own, where predictions alone are judged."""
    # it is traced at the artifacts' size already, and a trace takes seconds
    if isinstance(model, Artifact) and model.model is baseline:
        return model
    sizes = {info.imgsz for _, info in judged.infos}
    if len(sizes) > 1:
        raise UsageError(f"the artifacts have different input sizes ({sorted(sizes)}); validate them separately")
    if most := max((info.max_det for _, info in judged.infos), default=0):
        baseline.allow_detections(most)  # of an end-to-end head: as many as the artifacts return
    # An export has one input size, and another one would silently be ignored.
    if sizes and imgsz is not None:
        raise UsageError(f"imgsz={imgsz} cannot be used here: artifacts are judged at their own input size")
    return Artifact(TracedModel.of(baseline, next(iter(sizes)) if sizes else imgsz))


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
