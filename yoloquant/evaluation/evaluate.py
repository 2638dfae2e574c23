"""One pass over the images for the FP32 model and every artifact: same pixels, same decode, same NMS, same matching."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..data.dataset import ValidationSet
from ..errors import DataError, TargetError, YoloquantError
from ..runtime.core.detections import Detections, Selection, select
from ..runtime.core.letterbox import Letterbox, letterbox
from ..runtime.core.matching import Matches, Truth, match, size_index
from ..targets.base import Runner

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
        warmup: Untimed inferences of each runner before the first image.
        timing_only: Runners that are only timed, on so many images each (a float model in the runtime of a target).
    """

    baseline: str = "fp32"
    selection: Selection = field(default_factory=Selection)
    reference_conf: float = 0.25
    warmup: int = 2
    timing_only: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RunnerRecord:
    """What one runner did on every image, in the order of the images.

    Attributes:
        detections: Its detections.
        label_matches: Matched with the labels.
        reference_matches: Matched with the baseline's detections.
        infer_ms: Time of each inference alone, by index of the image.
        select_ms: Time of decode and NMS over all images.
    """

    detections: list[Detections] = field(default_factory=list)
    label_matches: list[Matches] = field(default_factory=list)
    reference_matches: list[Matches] = field(default_factory=list)
    infer_ms: dict[int, float] = field(default_factory=dict)
    select_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """Everything measured in one pass.

    Attributes:
        data: The images.
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
    progress: Progress | None = None,
) -> Evaluation:
    """Run every model on every image, and match its detections with the labels and with the FP32 model's.

    A runner that fails is recorded in ``errors`` and left out from there on; the others go on. Memory is bounded by the
    detections: one image is held at a time.

    Args:
        runners: Loaded models by name, the FP32 baseline among them.
        data: The images.
        options: How to run them.
        progress: Called after every image.

    Raises:
        TargetError: The baseline is missing or fails.
        DataError: There are no images, one cannot be decoded, or the classes do not fit the model.
    """
    options = options or EvaluateOptions()
    if options.baseline not in runners:
        raise TargetError(f"no runner is named '{options.baseline}', the baseline; there are {', '.join(runners)}")
    _check_classes(runners[options.baseline], data)
    return _Pass(runners, data, options).run(progress)


def _check_classes(baseline: Runner, data: ValidationSet) -> None:
    if not data.images:
        raise DataError(f"'{data.source}' holds no images to score")
    names = baseline.info.names
    if data.labelled and len(data.names) != len(names):
        raise DataError(
            f"the model has {len(names)} classes and data '{data.source}' has {len(data.names)}; "
            "score a model on the data set it was trained for"
        )
    if data.labelled and data.names != names:
        logger.warning("class names of the model and of data '%s' differ; classes are compared by index", data.source)


class _Pass:
    """State of one pass over the images."""

    def __init__(self, runners: Mapping[str, Runner], data: ValidationSet, options: EvaluateOptions) -> None:
        self.runners, self.data, self.options = dict(runners), data, options
        self.info = runners[options.baseline].info
        self.records = {name: RunnerRecord() for name in runners}
        self.errors: dict[str, str] = {}
        self.letterboxes: list[Letterbox] = []
        self.labels: list[Truth] = []
        self.references: list[Truth] = []

    def run(self, progress: Progress | None) -> Evaluation:
        start = time.perf_counter()
        for name, runner in list(self.runners.items()):
            if runner.info.imgsz != self.info.imgsz:
                got, want = runner.info.imgsz, self.info.imgsz
                self._drop(name, TargetError(f"its input is {got}, the baseline's {want}; export both with one imgsz"))
        for index in range(len(self.data)):
            image, where = letterbox(self.data.read(index), self.info.imgsz)
            self._one_image(index, image, where)
            if progress is not None:
                progress(index + 1, len(self.data), self.data.images[index].path.name)
        return Evaluation(
            data=self.data,
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

    def _one_image(self, index: int, image: np.ndarray, where: Letterbox) -> None:
        if index == 0:
            for name in list(self.runners):
                self._guarded(name, index, lambda n=name: self._warm_up(n, image))  # type: ignore[misc]
        for name in self._order(index):
            self._guarded(name, index, lambda n=name: self._infer(n, index, image))  # type: ignore[misc]
        item = self.data.images[index]
        boxes = where.to_input(item.boxes)
        truth = Truth(boxes, item.classes, size_index(boxes, where.area_scale))
        sure = self.records[self.options.baseline].detections[index].above(self.options.reference_conf)
        reference = Truth(sure.xyxy, sure.class_id, size_index(sure.xyxy, where.area_scale))
        self.letterboxes.append(where)
        self.labels.append(truth)
        self.references.append(reference)
        for name in self.runners:
            if name in self.options.timing_only:
                continue
            record = self.records[name]
            if self.data.labelled:
                record.label_matches.append(match(record.detections[index], truth, where.area_scale))
            if name != self.options.baseline:
                record.reference_matches.append(match(record.detections[index], reference, where.area_scale))

    def _order(self, index: int) -> Iterator[str]:
        """Runners in an order that rotates from image to image, so that none always follows the same other."""
        names = list(self.runners)
        for i in range(len(names)):
            name = names[(i + index) % len(names)]
            if index < self.options.timing_only.get(name, len(self.data)):
                yield name

    def _warm_up(self, name: str, image: np.ndarray) -> None:
        for _ in range(self.options.warmup):
            self.runners[name].infer(image)

    def _infer(self, name: str, index: int, image: np.ndarray) -> None:
        runner, record = self.runners[name], self.records[name]
        start = time.perf_counter()
        outputs = runner.infer(image)
        done = time.perf_counter()
        if name not in self.options.timing_only:
            classes = len(self.info.names)
            found = select(runner.decode(outputs), runner.layout, classes, self.options.selection)
            record.detections.append(found)
            record.select_ms.append((time.perf_counter() - done) * 1e3)
        record.infer_ms[index] = (done - start) * 1e3

    def _guarded(self, name: str, index: int, action: Callable[[], None]) -> None:
        if name not in self.runners:
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
        logger.error("target '%s' failed and is left out: %s", name, text, exc_info=exc)
        self.errors[name] = text
        del self.runners[name], self.records[name]
