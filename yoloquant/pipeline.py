"""The whole job in order: prune -> train or calibrate -> export -> validate -> report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bridge.input_size import square_size
from .cache import Store
from .errors import MissingExtraError, UsageError
from .evaluation.gate import check_task, load_gates
from .evaluation.results import ValidationResult
from .evaluation.validate import scored_images, validate
from .io import output_folder
from .quantization.artifact import Artifact
from .quantization.calibration_memory import CalibrationMemory
from .quantization.ptq import quantize, traced_once
from .recipe import Recipe
from .report import ReportPaths, report_or_error
from .summarized import Summarized
from .targets import preparations, resolve, with_graph
from .targets.base import Target
from .targets.export import complete, export
from .targets.exports import ExportResult
from .targets.float_models import float_model
from .targets.schemes import AUTO, needed_schemes
from .trackers import track
from .trackers.runs import of_validation
from .training.qat.qat_options import QATOptions, parse
from .types import AfterEpoch, Listener, Progress, Verdict

if TYPE_CHECKING:
    from .bridge.host_model import HostModel
    from .data.dataset import ValidationSet
    from .training.train import TrainResult

logger = logging.getLogger(__name__)

WriteReport = Callable[[ValidationResult], ReportPaths]


class Silent:
    """A listener that tells nobody."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress | None]:
        """See ``Listener``."""
        yield None

    def note(self, text: str) -> None:
        """See ``Listener``."""

    def exported(self, exports: ExportResult) -> None:
        """See ``Listener``."""


@dataclass(frozen=True, repr=False)
class RunResult(Summarized):
    """What a run made.

    Attributes:
        folder: Where everything lies.
        artifact: The quantized model.
        exports: One artifact for each target, and the targets that could not be built.
        validation: The verdict and every figure behind it.
        report: The report's files.
    """

    folder: Path
    artifact: Artifact
    exports: ExportResult
    validation: ValidationResult
    report: ReportPaths

    @property
    def verdict(self) -> Verdict:
        """The verdict on the whole run."""
        return self.validation.verdict

    def summary(self) -> str:
        """What was exported, and how it was judged."""
        return f"{self.exports.summary()}\n{self.validation.summary()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        parts = {"artifact": self.artifact.to_dict(), "exports": self.exports.to_dict()}
        return {"folder": str(self.folder), **parts, "validation": self.validation.to_dict()}

    def to_df(self) -> Any:
        """The table of the validation as a ``pandas.DataFrame``.

        Raises:
            UsageError: pandas is not installed.
        """
        return self.validation.to_df()


def run(recipe: Recipe, listener: Listener | None = None) -> RunResult:
    """Run a recipe from the trained checkpoint to the verdict.

    Args:
        recipe: What to do.
        listener: Told of every stage and its progress.

    Returns:
        Everything that was made. A target that could not be built is in it as an error, never as a pass.

    Raises:
        YoloquantError: The recipe, the model or the data cannot be used; see the single stages.
    """
    listener = listener or Silent()
    if recipe.train is not None or recipe.prune is not None:
        # training makes squares, so the result would be of another size than asked
        square_size(recipe.imgsz)
    if recipe.train is not None and (recipe.float_layers or recipe.precision):
        raise UsageError(
            "float_layers= and precision= cannot go with train=, which learns the ranges of every layer of its plan; "
            "start from a checkpoint that 'yoloquant quantize scheme=portable float_layers=...' wrote"
        )
    # what can be refused is refused before hours of work
    targets = with_graph(resolve(recipe.targets), recipe.graph.form)
    _tell_missing(targets)
    load_gates(recipe.validation.gate)
    folder = output_folder(output_of(recipe))
    # from here on a failure leaves its word in the report's place
    with report_or_error(folder / "report") as write:
        return _run(recipe, targets, folder, listener, write)


def _run(recipe: Recipe, targets: Sequence[Target], folder: Path, listener: Listener, write: WriteReport) -> RunResult:
    options = recipe.validate_options(folder / "report")
    memory = CalibrationMemory()
    # the model that is calibrated, unless it is pruned or trained before: a checkpoint is read once
    given = traced_once(recipe.model, recipe.quantize_options, memory).model
    # first of all: broken images and missing labels are found before hours of training, not after
    scored, told = judged_on(recipe, given)
    for note in told:
        listener.note(note)
    model, artifact = make_artifact(recipe, targets, folder, listener, memory=memory)
    del memory  # histograms, which nothing asks for any more
    # a trained model lies in its run's folder already
    saved = None if recipe.train else folder / f"{model.stem}_int8.pt"
    if saved:
        artifact.save(saved)
    with listener.stage("exporting") as progress:
        # one target that cannot be built must not take the others' results with it; it is an error in the report
        exports = export(
            artifact, targets, folder=folder, saved=saved, keep_going=True, progress=progress, cache=recipe.cache
        )
    listener.exported(exports)
    # what was trained, pruned or rebuilt is held against the model that the user gave
    baseline: Any = artifact if model == Path(recipe.model) and not recipe.train else recipe.model
    with listener.stage("validating") as progress:
        result = validate(
            baseline,
            exports,
            data=scored,
            options=options,
            float_model=partial(float_model, store=Store.of(recipe.cache)),
            progress=progress,
        )
    written = write(result)
    # after the report is written: a tracker may fail
    track(of_validation(result, folder / "report", "run"))
    return RunResult(folder, artifact, exports, result, written)


def _tell_missing(targets: Sequence[Target]) -> None:
    """Say before hours of work which targets will not be built for want of a package; refuse if none will be.

    Raises:
        MissingExtraError: No target can be built.
    """
    lacking = [target for target in targets if target.missing()]
    if lacking and len(lacking) == len(targets):
        lacking[0].require()
    for target in lacking:
        try:
            target.require()
        except MissingExtraError as exc:
            logger.warning("%s; the others are built without it", exc)


def judged_on(recipe: Recipe, model: HostModel) -> tuple[ValidationSet, tuple[str, ...]]:
    """The images that a recipe's artifacts will be scored on, checked before hours of work, and notes on its gates.

    Args:
        recipe: The recipe.
        model: Its model.

    Raises:
        DataError: An image or a label is not usable, or the classes are not the model's.
        UsageError: A gate limits nothing that models of the task have.
    """
    notes = check_task(load_gates(recipe.validation.gate), model.task)
    judged, options = recipe.validation, recipe.validate_options(output_of(recipe) / "report")
    data = None if judged.source else judged.data or recipe.data
    return scored_images(model, data=data, source=judged.source, options=options), notes


def output_of(recipe: Recipe) -> Path:
    """Folder that a recipe writes to: the one it names, or one beside the checkpoint."""
    model = Path(recipe.model)
    return Path(recipe.output) if recipe.output else model.parent / f"{model.stem}_exports"


def make_artifact(
    recipe: Recipe,
    targets: Sequence[Target],
    folder: Path,
    listener: Listener | None = None,
    *,
    after_epoch: AfterEpoch | None = None,
    memory: CalibrationMemory | None = None,
) -> tuple[Path, Artifact]:
    """Prune, train and calibrate as a recipe says: everything before exporting.

    Args:
        recipe: What to do.
        targets: What it will be exported to.
        folder: Where checkpoints and runs go.
        listener: Told of every stage and its progress.
        after_epoch: Told of every epoch of the last training and its score; what it raises ends the training.
        memory: What calibrations of the same model share.

    Returns:
        The float checkpoint that was quantized (the user's own, unless it was pruned or rebuilt), and the artifact.

    Raises:
        YoloquantError: See ``run``.
    """
    listener = listener or Silent()
    # a search stops trials by the scores of their last training
    model = _prepared(recipe, folder, listener, None if recipe.train else after_epoch)
    # what was pruned or rebuilt takes the place of the user's own
    work = recipe.model_copy(update={"model": str(model)})
    if recipe.train:
        return model, _trained(work, folder, targets, listener, after_epoch)
    return model, _calibrated(work, targets, listener, memory)


def _prepared(recipe: Recipe, folder: Path, listener: Listener, after_epoch: AfterEpoch | None) -> Path:
    """The checkpoint to quantize: the user's own, pruned or with its attention replaced if the recipe says so."""
    model = Path(recipe.model)
    if recipe.prune is not None:
        from .training.train import train

        arguments = _training_arguments(recipe, folder, "prune", recipe.prune.arguments)
        result = train(model, data=recipe.data, prune=recipe.prune.options, after_epoch=after_epoch, **arguments)
        listener.note(
            f"pruned and fine-tuned {result.best}: fitness {result.score:.4f}, unpruned {result.score_calibrated:.4f}"
        )
        model = result.best
    # after pruning: what is fitted must fit the network that stays
    if recipe.attention != "keep":
        path = folder / f"{model.stem}_fitted.pt"
        fitted = preparations()["attention"](
            model, path, data=recipe.data, imgsz=recipe.imgsz, calibration=recipe.calibration_options
        )
        listener.note("\n".join((*fitted.summary(), f"wrote {path}")))
        model = path
    return model


def _calibrated(
    recipe: Recipe, targets: Sequence[Target], listener: Listener, memory: CalibrationMemory | None
) -> Artifact:
    with listener.stage("calibrating") as progress:
        return quantize(
            recipe.model,
            data=recipe.data,
            # the checkpoint stays beside the exports, and somebody may want it for another runtime
            schemes=needed_schemes(recipe.scheme, targets, keeps=True),
            options=recipe.quantize_options,
            progress=progress,
            memory=memory,
        )


def _trained(
    recipe: Recipe, folder: Path, targets: Sequence[Target], listener: Listener, after_epoch: AfterEpoch | None
) -> Artifact:
    from .training.train import train

    assert recipe.train is not None
    arguments = _training_arguments(recipe, folder, "train", recipe.train.arguments)
    qat = _with_scheme(recipe.train.qat, targets)
    result = train(recipe.model, data=recipe.data, qat=qat, after_epoch=after_epoch, **arguments)
    word = "trained" if result.improved else "training did not help; kept the calibrated ranges in"
    advice = result.advice
    if advice and after_epoch is None and not qat.missing_bits:  # trials of a search are compared with each other
        advice = _advice(recipe, result, targets, listener)
    listener.note(f"{word} {result.best}" + (f"; {advice}" if advice else ""))
    with listener.stage("calibrating what targets need and training left open") as progress:
        # a portable plan lacks points that single runtimes need besides
        return complete(result.artifact, targets, data=recipe.data, options=recipe.quantize_options, progress=progress)


def _advice(recipe: Recipe, result: TrainResult, targets: Sequence[Target], listener: Listener) -> str:
    """Advice about the targets of a recipe."""
    from .training.own_plans import measured_advice

    # several targets share schemes, and each is calibrated once
    own = {target.scheme.name: target.scheme for target in targets}
    with listener.stage("calibrating the targets' own plans to compare with") as progress:
        return measured_advice(
            result,
            recipe.model,
            data=str(recipe.data),
            schemes=tuple(own.values()),
            options=recipe.quantize_options,
            progress=progress,
        )


def _with_scheme(qat: Any, targets: Sequence[Target]) -> QATOptions:
    """Options that train the targets' own plan where all have the same: it fits them better than a plan for all.

    Args:
        qat: What a recipe may say: a preset's name, fields of ``QATOptions``, or options.
        targets: What is exported after training.
    """
    # a preset's name, fields or options, as a recipe may hold
    options = parse(qat)
    own = {target.scheme.name for target in targets}
    return replace(options, scheme=own.pop()) if options.scheme == AUTO and len(own) == 1 else options


def _training_arguments(recipe: Recipe, folder: Path, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Ultralytics' arguments: a run folder inside ours unless they name one; the recipe's input size before theirs."""
    # last, since everything else in the recipe is of this size, too
    size = {} if recipe.imgsz is None else {"imgsz": recipe.imgsz}
    return {"project": str(folder), "name": name, "exist_ok": True, **arguments, **size}
