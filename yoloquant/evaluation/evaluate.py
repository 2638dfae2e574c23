"""One pass over the images for the FP32 model and every artifact: same pixels, same decode, same NMS, same matching.

Only a model in a process of another processor prepares its own pixels, as a device would: ``Runner.infer_picture``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..data.dataset import ValidationSet
from ..errors import DataError, TargetError, YoloquantError
from ..predictions.prediction_set import RecordedModel
from ..runtime.core.detections import Detections, Selection
from ..runtime.core.letterbox import Letterbox
from ..runtime.core.matching import Matches, Truth
from ..runtime.core.model_info import ModelInfo
from ..runtime.core.runner import Runner
from ..runtime.tasks import TaskSpec, spec_of

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
"""Called after every image with images done, images in all, and the image's name."""


@dataclass(frozen=True)
class EvaluateOptions:
    """How models are run.

    Attributes:
        baseline: Name of the FP32 model among the runners.
        selection: Thresholds of detection.
        reference_conf: The baseline's detections above this score are the ground truth of fidelity.
        warmup: Inferences of each runner before the first image, for who wants its times.
        keep_parts: Whether masks and keypoints of every result are kept, for pycocotools.
    """

    baseline: str = "fp32"
    selection: Selection = field(default_factory=Selection)
    reference_conf: float = 0.25
    warmup: int = 0
    keep_parts: bool = False


@dataclass(frozen=True)
class RunnerRecord:
    """What one runner did on every image, in the order of the images.

    Attributes:
        detections: Its detections.
        label_matches: Matched with the labels, by the main similarity of the task.
        reference_matches: Matched with the baseline's detections, likewise.
        further_label_matches: The same by every further similarity, by its prefix (masks, keypoints).
        further_reference_matches: The same.
        infer_ms: Time of each inference alone, by index of the image. Runtimes disturb each other in one process, so it
            tells how long the pass took and not how fast a model is (``latency``).
        select_ms: Time of decode and NMS over all images.
        parts: What its results have besides boxes, as plain data in original pixels; empty unless asked for.
    """

    detections: list[Detections] = field(default_factory=list)
    label_matches: list[Matches] = field(default_factory=list)
    reference_matches: list[Matches] = field(default_factory=list)
    further_label_matches: dict[str, list[Matches]] = field(default_factory=dict)
    further_reference_matches: dict[str, list[Matches]] = field(default_factory=dict)
    infer_ms: dict[int, float] = field(default_factory=dict)
    select_ms: list[float] = field(default_factory=list)
    parts: list[dict[str, list[Any]]] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """Everything measured in one pass.

    Attributes:
        data: The images.
        task: The rules of the model's task.
        names: Class names of the model.
        imgsz: Input height and width.
        options: How the models were run.
        letterboxes: Where each image lies in the input.
        labels: Labels of each image.
        references: The baseline's detections above ``reference_conf`` on each image, as ground truth.
        records: Result of every runner that got through, by name.
        errors: Why a runner did not, by name.
        seconds: Wall time.
    """

    data: ValidationSet
    task: TaskSpec
    names: tuple[str, ...]
    imgsz: tuple[int, int]
    options: EvaluateOptions
    letterboxes: list[Letterbox]
    labels: list[Truth]
    references: list[Truth]
    records: dict[str, RunnerRecord]
    errors: dict[str, str]
    seconds: float

    @property
    def baseline(self) -> RunnerRecord:
        """The FP32 model's record."""
        return self.records[self.options.baseline]


def evaluate(
    runners: Mapping[str, Runner],
    data: ValidationSet,
    options: EvaluateOptions | None = None,
    *,
    recorded: Mapping[str, RecordedModel] | None = None,
    progress: Progress | None = None,
    only: range | None = None,
) -> Evaluation:
    """Run every model on every image, and match its detections with the labels and with the FP32 model's.

    A runner that fails is recorded in ``errors`` and left out from there on; the others go on. Memory is bounded by the
    detections: one image is held at a time.

    Args:
        runners: Loaded models by name, the FP32 baseline among them unless it was recorded.
        data: The images.
        options: How to run them.
        recorded: Results that models gave elsewhere, by name.
        progress: Called after every image.
        only: Places of the images that are run, for a part of a pass (``merge.merged``); all of them if None.

    Raises:
        TargetError: The baseline is missing or fails.
        DataError: There are no images, one cannot be decoded, or the classes do not fit the model.
    """
    options, recorded = options or EvaluateOptions(), recorded or {}
    models: dict[str, Runner | RecordedModel] = {**runners, **recorded}
    if options.baseline not in models:
        raise TargetError(f"no runner is named '{options.baseline}', the baseline; there are {', '.join(models)}")
    if not data.images:
        raise DataError(f"'{data.source}' holds no images to score")
    info = models[options.baseline].info
    span = range(len(data)) if only is None else only
    return _Pass(runners, recorded, data.for_classes(info.names), options, info).run(span, progress)


class _Pass:
    """State of one pass over the images."""

    def __init__(
        self,
        runners: Mapping[str, Runner],
        recorded: Mapping[str, RecordedModel],
        data: ValidationSet,
        options: EvaluateOptions,
        info: ModelInfo,
    ) -> None:
        self.runners, self.recorded, self.data, self.options, self.info = (
            dict(runners),
            dict(recorded),
            data,
            options,
            info,
        )
        self.task = spec_of(self.info.task)
        self.found: dict[str, Detections] = {}
        # An end-to-end head that was exported for more detections must not be cut to fewer.
        most = max((runner.info.max_det for runner in runners.values()), default=0)
        self.selection = replace(options.selection, max_det=max(options.selection.max_det, most))
        self.records = {name: RunnerRecord() for name in (*runners, *recorded)}
        self.errors: dict[str, str] = {}
        self.letterboxes: list[Letterbox] = []
        self.labels: list[Truth] = []
        self.references: list[Truth] = []

    def run(self, span: range, progress: Progress | None) -> Evaluation:
        start = time.perf_counter()
        # A copy, as for the recorded ones below: `_drop` takes out what fails.
        for name, runner in list(self.runners.items()):
            if runner.info.imgsz != self.info.imgsz:
                got, want = runner.info.imgsz, self.info.imgsz
                self._drop(name, TargetError(f"its input is {got}, the baseline's {want}; export both with one imgsz"))
        for done, index in enumerate(span, start=1):
            picture, image, where = self._prepared(index)
            if done == 1:
                self._warm_up_all(index, image)
            self._one_image(index, picture, image, where)
            if progress is not None:
                progress(done, len(span), self.data.images[index].path.name)
        return Evaluation(
            data=self.data,
            task=self.task,
            names=self.info.names,
            imgsz=self.info.imgsz,
            options=self.options,
            letterboxes=self.letterboxes,
            labels=self.labels,
            references=self.references,
            records=self.records,
            errors=self.errors,
            seconds=time.perf_counter() - start,
        )

    def _prepared(self, index: int) -> tuple[np.ndarray, np.ndarray, Letterbox]:
        """An image as it was read and as models take it, and where it lies in that.

        Without pixels where nobody runs and its size is known.
        """
        sizes = (model.size(index) for model in self.recorded.values())
        size = None if self.runners else next((size for size in sizes if size is not None), None)
        if size is None:
            picture = self.data.read(index)
            return picture, *self.task.prepare(picture, self.info.imgsz)
        nothing = np.zeros(0, np.float32)
        return nothing, nothing, self.task.canvas(size, self.info.imgsz).where

    def _one_image(self, index: int, picture: np.ndarray, image: np.ndarray, where: Letterbox) -> None:
        # Decoded one after the other on the same pixels, which are prepared once (and again on another processor).
        for name in self._order(index):
            self._guarded(name, index, lambda n=name: self._infer(n, index, picture, image))  # type: ignore[misc]
        for name in list(self.recorded):
            self._guarded(name, index, lambda n=name: self._recall(n, index, where))  # type: ignore[misc]
        truth = self.task.truth(self.data.images[index].labels, where, self.info)
        # Behind all models: the baseline may be one whose results were recorded.
        reference = self.task.reference(self.found[self.options.baseline], self.options.reference_conf, where)
        self.letterboxes.append(where)
        self.labels.append(self.task.kept(truth))
        self.references.append(self.task.kept(reference))
        for name in self.records:
            self._match(name, truth, reference, where)

    def _match(self, name: str, truth: Truth, reference: Truth, where: Letterbox) -> None:
        """Match a runner's detections with labels and with the baseline's, and keep what is needed of them."""
        # Taken out: only one image's results are held in full (masks are large).
        record, found = self.records[name], self.found.pop(name)
        if self.data.labelled:
            _keep(self.task.match(found, truth, where.area_scale), record.label_matches, record.further_label_matches)
        # The baseline agrees with itself, which says nothing.
        if name != self.options.baseline:
            matches = self.task.match(found, reference, where.area_scale)
            _keep(matches, record.reference_matches, record.further_reference_matches)
        if self.options.keep_parts:
            record.parts.append(self.task.record(self.task.to_original(found, where), where.original))
        record.detections.append(self.task.compact(found, self.options.reference_conf))

    def _order(self, index: int) -> Iterator[str]:
        """Runners in an order that rotates from image to image, so that none always follows the same other."""
        names = list(self.runners)
        for i in range(len(names)):
            yield names[(i + index) % len(names)]

    def _warm_up_all(self, index: int, image: np.ndarray) -> None:
        for name in list(self.runners):
            self._guarded(name, index, lambda n=name: self._warm_up(n, image))  # type: ignore[misc]

    def _warm_up(self, name: str, image: np.ndarray) -> None:
        for _ in range(self.options.warmup):
            self.runners[name].infer(image)

    def _infer(self, name: str, index: int, picture: np.ndarray, image: np.ndarray) -> None:
        runner, record = self.runners[name], self.records[name]
        start = time.perf_counter()
        outputs = runner.infer_picture(picture, image)
        done = time.perf_counter()
        decoded = runner.decode(outputs)
        # By the runner's own layout: drop-ins decode and suppress, end-to-end heads have chosen already.
        self.found[name] = self.task.select(decoded, runner.layout, self.info, self.selection)
        record.select_ms.append((time.perf_counter() - done) * 1e3)
        record.infer_ms[index] = (done - start) * 1e3

    def _recall(self, name: str, index: int, where: Letterbox) -> None:
        """Take what a model found elsewhere, as many results as a model that runs here may give."""
        found = self.recorded[name].on(index, where)
        # every class of a classifier counts, however improbable; only what has a place is cut
        if not self.task.class_folders:
            found = found.above(self.selection.conf).take(slice(0, self.selection.max_det))
        self.found[name] = found

    def _guarded(self, name: str, index: int, action: Callable[[], None]) -> None:
        if name not in self.records:
            return
        try:
            action()
        except Exception as exc:  # a runtime may raise anything; one broken artifact must not cost the others
            self._drop(name, exc, self.data.images[index].path.name)

    def _drop(self, name: str, exc: Exception, image: str = "") -> None:
        text = str(exc) if isinstance(exc, YoloquantError) else f"{type(exc).__name__}: {exc}"
        text += f" (on image {image})" if image else ""
        if name == self.options.baseline:
            raise TargetError(f"the FP32 baseline '{name}' failed, so nothing can be compared: {text}") from exc
        logger.error("target '%s' failed and is left out: %s", name, text)
        logger.debug("target '%s' failed", name, exc_info=exc)
        self.errors[name] = text
        self.found.pop(name, None)
        del self.records[name]
        self.runners.pop(name, None)
        self.recorded.pop(name, None)


def _keep(matches: Mapping[str, Matches], main: list[Matches], further: dict[str, list[Matches]]) -> None:
    """File matches by their similarity; the first is the main one."""
    first, *others = matches.items()
    main.append(first[1])
    for prefix, found in others:
        further.setdefault(prefix, []).append(found)
