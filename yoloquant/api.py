"""The public verbs, each a thin layer over the part that does the work: names become objects, options are gathered."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from . import targets as registry
from .errors import UsageError
from .types import Progress

if TYPE_CHECKING:
    from .evaluation.release_options import ReleaseOptions
    from .evaluation.releases import ReleaseComparison
    from .evaluation.results import ValidationResult
    from .evaluation.sensitivity import Sensitivity
    from .evaluation.validate_options import ValidateOptions
    from .pipeline import RunResult
    from .pruning.prune import PruneResult
    from .pruning.prune_options import PruneOptions
    from .quantization.artifact import Artifact
    from .quantization.plan import Plan
    from .quantization.quantize_options import QuantizeOptions
    from .recipe import Recipe
    from .report import ReportPaths
    from .report.history import ReleaseHistory
    from .runtime.apps.bench_report import Report
    from .runtime.apps.predict_summary import Summary
    from .sensitivity.analyze_options import AnalyzeOptions
    from .sensitivity.float_search_options import FloatSearchOptions
    from .sensitivity.float_search_results import FloatSearch
    from .sensitivity.slow_layers import LatencySearch
    from .targets.exports import ExportResult
    from .training.qat.qat_options import QATOptions
    from .training.train import TrainResult
    from .tuning.results import TuneResult
    from .tuning.tune_options import TuneOptions
    from .types import ExportedModel, Listener

PathLike = str | os.PathLike[str]


def quantize(
    model: Any,
    *,
    data: PathLike,
    scheme: str | Iterable[str] = "auto",
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> Artifact:
    """Quantize a trained model after training: plan, then calibrate on training images.

    The ranges of a checkpoint that Ultralytics' own QAT made (``train(quantize=8)``) are taken over instead of
    calibrated, wherever a scheme quantizes what that training did.

    Args:
        model: Path of an Ultralytics checkpoint, or a live ``ultralytics.YOLO``.
        data: Data yaml whose train split calibrates, or a folder of images.
        scheme: Scheme names; ``auto`` makes a plan for every known runtime, from one pass over the images. ``portable``
            makes one symmetric plan that serves all of them with the same ranges.
        options: Input size, images and algorithms, as one object.
        progress: Called after every calibration image.
        **keywords: The same options one by one, called as in the command: ``imgsz=640, images=64, seed=1`` ...

    Returns:
        The artifact, to be saved, exported or trained further.

    Raises:
        ModelError: The model cannot be read or traced.
        DataError: The data are missing, or are the ones that will be scored.
        CalibrationError: There are too few images, or NaN activations.
        UsageError: Unknown scheme or keyword, or unsupported input size.
    """
    from .options import gather
    from .quantization.ptq import quantize as calibrated
    from .quantization.quantize_options import QuantizeOptions
    from .targets.schemes import resolve_schemes

    options = gather(QuantizeOptions, options, keywords, "quantize", ("data", "scheme", "options", "progress"))
    return calibrated(model, data=data, schemes=resolve_schemes(scheme), options=options, progress=progress)


def plan(model: Any, *, scheme: str = "portable", imgsz: int | Sequence[int] | None = None) -> Plan:
    """Return the quantization plan of a scheme: without ranges for a plain checkpoint, with them for an artifact.

    Raises:
        ModelError: The model cannot be read or traced.
        UsageError: Unknown scheme, or another input size than an artifact's own.
    """
    from .quantization.ptq import derive_plan
    from .targets.schemes import resolve_schemes

    # one scheme, one plan: several, and "auto", are of quantize
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

    Args:
        model: Path of a trained Ultralytics checkpoint, or a live ``ultralytics.YOLO``.
        data: Data yaml, or a folder of images without labels.
        qat: A preset (``fast``, ``standard``, ``long``), ``QATOptions``, or a mapping of its fields.
        prune: A share of the multiplications to remove, ``PruneOptions``, or a mapping of its fields.
        **arguments: Options of ``QATOptions`` one by one (``preset="fast"``), of ``PruneOptions`` as ``prune_<name>``,
            and any argument of Ultralytics' training: ``epochs``, ``imgsz``, ``batch``, ``device`` ...

    Raises:
        UsageError: An argument is unknown or does not fit.
        YoloquantError: See ``yoloquant.training.train.train``.
    """
    from .training.arguments import split_arguments
    from .training.train import train as trained

    qat, prune, rest = split_arguments(qat, prune, arguments)
    return trained(model, data=data, qat=qat, prune=prune, **rest)


def prune(
    model: Any,
    *,
    data: PathLike | None = None,
    options: PruneOptions | dict[str, Any] | float | None = None,
    imgsz: int | Sequence[int] | None = None,
    output: PathLike | None = None,
    dry_run: bool = False,
    latency: bool = False,
    **keywords: Any,
) -> PruneResult:
    """Prune a trained model in one shot, without training.

    See ``yoloquant.pruning.prune.prune`` for the arguments and the errors raised; ``**keywords`` are the fields of
    ``PruneOptions`` one by one: ``amount=0.5, criterion="l2"`` ...
    """
    from .options import gather
    from .pruning.prune import prune as pruned
    from .pruning.prune_options import PruneOptions, parse
    from .trackers import track
    from .trackers.runs import of_pruning
    from .training.prune.start import standalone_products

    given = None if options is None else parse(options)
    also = ("data", "imgsz", "output", "dry_run", "latency", "options")
    result = pruned(
        model,
        data=data,
        options=gather(PruneOptions, given, keywords, "prune", also),
        imgsz=imgsz,
        output=output,
        dry_run=dry_run,
        latency=latency,
        # handed in: pruning must not import training, which subclasses Ultralytics' trainers
        gradients=standalone_products,
    )
    # a dry run is nothing to keep
    if result.path is not None:
        track(of_pruning(result, str(model)))
    return result


def analyze(
    model: Any,
    *,
    data: PathLike | None,
    options: AnalyzeOptions | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> Sensitivity:
    """Measure which layers a model can least do without.

    See ``yoloquant.sensitivity.analyze.analyze`` for the arguments and the errors raised; ``**keywords`` are the fields
    of ``AnalyzeOptions`` one by one: ``kind="quant", images=16`` ..., and ``output`` for its folder.
    """
    from .options import gather
    from .sensitivity.analyze import analyze as analyzed
    from .sensitivity.analyze_options import AnalyzeOptions

    options = gather(AnalyzeOptions, options, keywords, "analyze", ("data", "options", "progress"))
    return analyzed(model, data=data, options=options, progress=progress)


def search(
    model: Any,
    *,
    data: PathLike,
    options: FloatSearchOptions | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> FloatSearch | LatencySearch:
    """Find the smallest set of layers that must stay in float, or those that are faster there (``goal="latency"``).

    See ``search_float_layers`` and ``search_slow_layers`` in ``yoloquant.sensitivity`` for the arguments and the errors
    raised; ``**keywords`` are the fields of ``FloatSearchOptions`` one by one: ``scheme="tensorrt", fidelity=0.97`` ...
    """
    from .options import gather
    from .sensitivity.float_search import search_float_layers
    from .sensitivity.float_search_options import FloatSearchOptions, SearchGoal
    from .sensitivity.slow_layers import search_slow_layers

    options = gather(FloatSearchOptions, options, keywords, "search", ("data", "options", "progress"))
    search = search_slow_layers if options.goal is SearchGoal.LATENCY else search_float_layers
    return search(model, data=data, options=options, progress=progress)


def export(
    model: Any,
    *,
    targets: str | Iterable[str] = "all",
    output: PathLike | None = None,
    keep_going: bool = False,
    data: PathLike | None = None,
    scheme: str | Iterable[str] = "auto",
    progress: Progress | None = None,
    **keywords: Any,
) -> ExportResult:
    """Export a model; a plain checkpoint is quantized first.

    Args:
        model: An Artifact, a checkpoint that ``Artifact.save`` or training wrote, or with ``data`` a plain one.
        targets: Target or device names; ``all`` for every one that is installed.
        output: Folder to write to; ``<checkpoint>_exports`` beside the checkpoint by default.
        keep_going: Report a target that cannot be built in the result instead of raising.
        data: Data yaml or folder whose images calibrate a plain checkpoint, or what a target needs and another lacks.
        scheme: Schemes of a plain checkpoint.
        progress: Called before every target, and at the end.
        **keywords: Options of ``quantize`` for a plain checkpoint, and of the exported graph (``nms=True, iou=0.6``);
            ``format`` is another word for ``targets``.

    Returns:
        The exported models; their list is also written to ``exports.json`` in the folder.

    Raises:
        UsageError: Unknown target or keyword, or one that does not apply to a quantized model.
        PlanError: The artifact lacks ranges that a target needs.
        TargetError: A target cannot be built.
        OutputError: The folder cannot be written.
    """
    from .options import build, flatten
    from .quantization.quantize_options import QuantizeOptions
    from .targets.export import export as exported
    from .targets.onnx.graph_options import GraphOptions
    from .targets.prepare import prepare

    # Ultralytics' word for an argument of this function; below it would be taken for an option
    if "format" in keywords:
        targets = keywords.pop("format")
    # max_det is an option of both: an end-to-end model's own, and that of NMS in the graph
    of_graph = {name: value for name, value in keywords.items() if name in flatten(GraphOptions)}
    graph = build(GraphOptions, of_graph, "export").form
    keywords = {
        k: v for k, v in keywords.items() if k not in of_graph or (k in flatten(QuantizeOptions) and not graph.nms)
    }
    options = build(QuantizeOptions, keywords, "export", ("targets", "output", "data", "scheme", "keep_going"))
    chosen = registry.with_graph(registry.resolve(targets), graph)
    # what was said, and not what holds by default: only the former can be a mistake on a quantized checkpoint
    named = [*keywords, *(["scheme"] if scheme != "auto" else [])]
    named = [name for name in named if name == "scheme" or name in flatten(QuantizeOptions)]
    artifact = prepare(model, chosen, data=data, scheme=scheme, options=options, named=named, keep_going=keep_going)
    return exported(artifact, chosen, folder=output, keep_going=keep_going, progress=progress, cache=options.cache)


def validate(
    model: Any,
    exports: ExportResult | Iterable[ExportedModel] | PathLike | None = None,
    *,
    data: PathLike | None = None,
    source: PathLike | None = None,
    options: ValidateOptions | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> ValidationResult:
    """Score every artifact beside the FP32 model on the same images, judge it by a gate, and report.

    Reports of an earlier run in the same folder go first; where this one ends in an error, ``junit.xml`` says so. See
    ``yoloquant.evaluation.validate.validate`` for the arguments and the errors raised; ``**keywords`` are the fields of
    ``ValidateOptions`` one by one: ``limit=100, gate="strict"`` ..., and ``output`` for the report's folder.
    """
    from .cache import Store
    from .evaluation.validate import validate as validated
    from .evaluation.validate_options import ValidateOptions
    from .options import gather
    from .report import report_or_error
    from .targets.float_models import float_model
    from .trackers import track
    from .trackers.runs import of_validation

    options = gather(ValidateOptions, options, keywords, "validate", ("data", "source", "options", "progress"))
    folder = options.report
    # the old report goes before work starts: yesterday's verdict must not stand for a run that fails
    with (
        report_or_error(folder, (options.baseline,)) if folder is not None else nullcontext(lambda result: None)
    ) as write:
        result = validated(
            model,
            exports,
            data=data,
            source=source,
            options=options,
            float_model=partial(float_model, store=Store.of(options.cache)),
            progress=progress,
        )
        write(result)
    if folder is not None:
        # after the report: trackers may take long, or hang
        track(of_validation(result, folder))
    return result


def compare(
    old: PathLike | None = None,
    new: PathLike | None = None,
    *,
    options: ReleaseOptions | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> tuple[ReleaseComparison, ...]:
    """Hold a new release against the old one on the same images, judge it by a gate, and report.

    Args:
        old: The last release: an artifact, an export folder, a checkpoint, a report's folder, or predictions.
        new: The new one, likewise.
        options: Releases, images, gate, as one object.
        progress: Called after every image.
        **keywords: The fields of ``ReleaseOptions`` one by one: ``data="mydata.yaml", gate="release"`` ..., and
            ``output`` for the report's folder.

    Returns:
        One comparison for every pair of artifacts; its baseline is the old release.

    Raises:
        UsageError: The releases have other tasks or classes, nothing is called alike, or a keyword is unknown.
        YoloquantError: Something is missing, damaged, or was recorded on other images.
    """
    from .evaluation.release_options import ReleaseOptions
    from .evaluation.releases import compare_releases
    from .options import gather
    from .report import report_or_error, write_overview
    from .report import write_report as written
    from .trackers import track
    from .trackers.runs import of_validation

    # by position or by keyword; gather refuses them beside options=
    named = {key: value for key, value in (("old", old), ("new", new)) if value is not None}
    options = gather(ReleaseOptions, options, {**named, **keywords}, "compare", ("old", "new", "options", "progress"))
    comparisons = []
    read = (options.old, options.new)
    with report_or_error(options.report, read) if options.report is not None else nullcontext(None):
        for each in compare_releases(options, progress=progress):
            if each.folder is not None:
                # as each is done: a later pair that fails takes nothing away
                written(each.result, each.folder)
                track(of_validation(each.result, each.folder, "compare"))
            comparisons.append(each)
        if options.report is not None and len(comparisons) > 1:
            # beside the pairs' own folders: a pipeline looks where it always does, however many pairs there are
            write_overview({each.name: each.result for each in comparisons}, options.report)
    return tuple(comparisons)


def write_report(result: ValidationResult, folder: PathLike) -> ReportPaths:
    """Write the JSON, JUnit, Markdown and HTML reports of a validation into a folder."""
    from . import report
    from .io import output_folder

    return report.write_report(result, output_folder(folder))


def history(reports: PathLike | Iterable[PathLike], *, output: PathLike | None = None) -> ReleaseHistory:
    """Read what releases were worth from their reports, and plot it.

    Args:
        reports: Reports or folders that hold them, in order; see ``yoloquant.report.history.read_history``.
        output: Folder for ``history.html`` and ``history.csv``; nothing is written without one.

    Raises:
        DataError: A place holds no report, or one is damaged.
        OutputError: The folder cannot be written.
    """
    from pathlib import Path

    from .report.history import read_history, write_history

    named = [reports] if isinstance(reports, (str, os.PathLike)) else list(reports)
    found = read_history([Path(place) for place in named])
    return found if output is None else write_history(found, Path(output))


def run(recipe: Recipe | PathLike | None = None, *, listener: Listener | None = None, **keys: Any) -> RunResult:
    """Do the whole job: prune, train or calibrate, export, validate and report.

    Args:
        recipe: A recipe, or the path of one.
        listener: Told of every stage and its progress; nothing is printed without one.
        **keys: Keys of a recipe on top of its own (``model``, ``data``, ``calibration={"images": 64}``), or the
            command's (``images=64``).

    Returns:
        Everything that was made, and the verdict.

    Raises:
        UsageError: The recipe holds unknown keys or bad values.
        YoloquantError: See the single verbs.
    """
    from .pipeline import run as whole_job
    from .recipe import as_recipe

    return whole_job(as_recipe(recipe, keys), listener)


def tune(
    recipe: Recipe | PathLike | None = None,
    *,
    options: TuneOptions | None = None,
    listener: Listener | None = None,
    **keys: Any,
) -> TuneResult:
    """Search the values of a recipe under a budget, and run what was found to be best.

    A value may be a range (``"0.2..0.6"``, ``"log:1e-5..1e-3"``, ``"32..512:32"``) or choices (``"mse|percentile"``).

    Args:
        recipe: A recipe, or the path of one, whose values may be such texts.
        options: Objectives, sampler and budget, as one object.
        listener: Told of every stage and its progress; nothing is printed without one.
        **keys: Keys of a recipe by the command's names (``model="best.pt", images="32|64|128"``) or by their places
            (``**{"train.qat.loss": "distill|both"}``), and options of the study: ``space="ptq", trials=20``.

    Returns:
        Every trial, the front of several objectives, and the chosen recipe with its validation.

    Raises:
        UsageError: A key is unknown, a range is empty, an objective cannot be measured here, or another study
            has the name.
        YoloquantError: See ``yoloquant.tuning.tune.tune``.
    """
    from .options import build, flatten
    from .trackers import track
    from .trackers.runs import of_study
    from .tuning.tune import tune as tuned
    from .tuning.tune_options import TuneOptions

    # the study's own options first: the rest are keys of the recipe, which a study may vary
    own = {key: value for key, value in keys.items() if key in flatten(TuneOptions)}
    given = {key: value for key, value in keys.items() if key not in own}
    if options is not None and own:
        raise UsageError(f"give {', '.join(f'{key}=' for key in own)} or options=, not both, to tune")
    result = tuned(recipe, given, options or build(TuneOptions, own, "tune"), listener)
    track(of_study(result))
    return result


def predict(model: PathLike, source: str | int | PathLike, **keywords: Any) -> Summary:
    """Detect in a camera, stream, video, folder or image with an exported model.

    Args:
        model: A bundle, or an artifact in its export folder.
        source: Camera number, stream address, video, folder or image.
        **keywords: Arguments of the command: ``output="found.jsonl", conf=0.25, workers=2`` ...

    Returns:
        How it went; nothing is printed.

    Raises:
        UsageError: A keyword is unknown or its value not supported.
        YoloquantError: The model cannot run, or the source failed.
    """
    from .inference.run_exports import predict_with

    return predict_with({"model": model, "source": source, **keywords})


def bench(models: PathLike | Iterable[PathLike], **keywords: Any) -> Report:
    """Measure exports that take turns: latency, throughput, processor time, memory, temperature and power.

    Args:
        models: Bundles, artifacts or export folders.
        **keywords: Arguments of the command: ``source="images/", rounds=10, threads=2`` ...

    Returns:
        The measurements.

    Raises:
        UsageError: A keyword is unknown or its value not supported.
        YoloquantError: A model cannot run.
    """
    from .inference.run_exports import bench_with

    named = [models] if isinstance(models, (str, os.PathLike)) else list(models)
    # as the command has it
    return bench_with({"model": ",".join(os.fspath(m) for m in named), **keywords})
