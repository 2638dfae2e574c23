"""The sweep: one part after another, resumable, with the time that is left."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..cluster import connected
from ..errors import UsageError
from ..evaluation.sensitivity import Sensitivity, SensitivityMeasurement
from ..options.where import Where
from .analyze_options import AnalysisKind, AnalysisMetric, AnalyzeOptions
from .eta import Eta
from .journal import Journal, JournalEntry
from .parts import Part, Subject

if TYPE_CHECKING:
    from ..quantization.artifact import Artifact
    from .images import Images

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
"""Called with parts done, parts in all, and what was done with the time that is left."""
Measure = Callable[[Subject, Callable[[], Subject], Sequence[Part]], Iterator[tuple[Part, tuple[float, str]]]]
"""Measures parts of a subject, or of one that is made anew elsewhere, in any order."""


def analyze(
    model: Any,
    *,
    data: str | os.PathLike[str] | None,
    options: AnalyzeOptions | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Change one part of a model at a time, and measure what that costs.

    Args:
        model: Path of an Ultralytics checkpoint, or a live ``ultralytics.YOLO``; for ``kind=quant`` a checkpoint with
            plans gives its own ranges.
        data: Data yaml; or a folder of images, unless the metric is ``map``.
        options: What is changed and how it is measured.
        progress: Called after every part.

    Returns:
        The drop of every part; an interrupted run has kept all that was finished, if the options name a folder.

    Raises:
        UsageError: An option, the metric or the results file does not fit.
        DataError: The data are not usable.
        ModelError: The model cannot be read or traced.
        PruneError: Nothing can be pruned as asked.
    """
    options = options or AnalyzeOptions()
    # before the model: a cluster that does not answer is told first
    with _measuring(options) as measure:
        return _analyzed(model, data, options, measure, progress)


@contextmanager
def _measuring(options: AnalyzeOptions) -> Iterator[Measure]:
    """What measures parts: this process, or a cluster, which it is connected to as long as this context lasts."""
    if options.on is Where.LOCAL:
        yield _measured_here
        return
    with connected(options.address) as ray:
        from .ray_sweep import measured_on

        yield partial(measured_on, ray)


def _analyzed(
    model: Any,
    data: str | os.PathLike[str] | None,
    options: AnalyzeOptions,
    measure: Measure,
    progress: Progress | None,
) -> Sensitivity:
    artifact = _artifact(model, options)
    # after the model, whose errors need no data to be read
    from .images import open_images

    images = open_images(data, options, artifact.info)
    # open_images has refused that
    assert data is not None
    make, more = (_prune if options.kind is AnalysisKind.PRUNE else _quant)(artifact, images, data, options)
    what = {
        "model": artifact.model.sha256,
        "data": images.data.data_hash,
        "imgsz": list(artifact.info.imgsz),
        # everything that a measurement depends on: with anything else changed the journal starts anew
        "options": options.settings(),
        **more,
    }
    baseline, points = _sweep(make, Journal(options.folder, what), options.metric, measure, progress)
    return Sensitivity(options.kind.value, options.metric.value, baseline, points, what)


def _artifact(model: Any, options: AnalyzeOptions) -> Artifact:
    from ..bridge.checkpoint import load_model
    from ..graph.traced_model import TracedModel
    from ..quantization.artifact import Artifact

    host = load_model(model, allow_unsafe=options.allow_unsafe)
    # of a quantized checkpoint the ranges that it will be exported with are what counts
    if options.kind is AnalysisKind.QUANT and host.state.get("plans"):
        return Artifact.from_host(host, options.imgsz)
    return Artifact(TracedModel.of(host, options.imgsz))


def _prune(
    artifact: Artifact, images: Images, data: str | os.PathLike[str], options: AnalyzeOptions
) -> tuple[Callable[[], Subject], dict[str, Any]]:
    from ..pruning.recalibrate_bn import stacked
    from .images import training_images
    from .pruning_groups import PruneSubject

    # training images are read and hashed only where something is taken from them
    if not options.recalibrates:
        return partial(PruneSubject, artifact, images, (), options), {}
    sample = training_images(data, options)
    # BatchNorm statistics of a single image are that image's
    batches = tuple(b for b in stacked(sample.tensors(artifact.info.imgsz, artifact.info.task)) if len(b) > 1)
    return partial(PruneSubject, artifact, images, batches, options), {"training": sample.sha256}


def _quant(
    artifact: Artifact, images: Images, data: str | os.PathLike[str], options: AnalyzeOptions
) -> tuple[Callable[[], Subject], dict[str, Any]]:
    from ..targets.schemes import resolve_schemes
    from .images import training_images
    from .quantization_points import QuantSubject, calibrated

    schemes = resolve_schemes(options.scheme)
    # points of two schemes have the same names, and results are kept by names
    if len(schemes) != 1:
        raise UsageError(f"scheme='{options.scheme}' names {len(schemes)} schemes; analyse one at a time")
    if artifact.plans:
        plan, more = artifact.plan_for(schemes[0]), {}
    else:
        sample = training_images(data, options)
        plan = calibrated(artifact, schemes[0], sample.tensors(artifact.info.imgsz, artifact.info.task), options)
        more = {"training": sample.sha256}
    # the plan's digest too: the same options may come to another plan in a later release
    return partial(QuantSubject, artifact, plan, images, options), {**more, "plan": plan.digest()}


def _sweep(
    make: Callable[[], Subject], journal: Journal, metric: AnalysisMetric, measure: Measure, progress: Progress | None
) -> tuple[float, tuple[SensitivityMeasurement, ...]]:
    subject = make()
    if len(journal):
        logger.info("%d measurements are in %s already", len(journal), journal.path)
    base = journal.get("", None)
    if base is None:
        # kept as well: on many images it takes as long as a part
        base = JournalEntry("", None, _number(subject.baseline()), "")
        if base.score is None:
            raise UsageError("the model's own outputs are NaN or infinite on these images; nothing can be compared")
        journal.add(base)
    assert base.score is not None
    eta = Eta()
    known: dict[Part, JournalEntry] = {}

    def tell(part: Part) -> None:
        if progress is not None:
            left = eta.text(len(subject.parts) - len(known))
            progress(len(known), len(subject.parts), f"{part.label}, {left}" if left else part.label)

    for part in subject.parts:
        if (entry := journal.get(part.name, part.ratio)) is not None:
            known[part] = entry
            tell(part)
    start = time.perf_counter()
    waiting = [part for part in subject.parts if part not in known]
    for part, (score, how) in measure(subject, make, waiting):
        # NaN is kept as nothing: JSON has no word for it, and the part is not measured again
        known[part] = JournalEntry(part.name, part.ratio, _number(score), how)
        journal.add(known[part])
        # from one to the next: of several workers each has a share of that time
        eta.add(time.perf_counter() - start)
        start = time.perf_counter()
        tell(part)
    return base.score, tuple(_measured(part, known[part], base.score, metric) for part in subject.parts)


def _measured_here(
    subject: Subject, make: Callable[[], Subject], parts: Sequence[Part]
) -> Iterator[tuple[Part, tuple[float, str]]]:
    """One part after another."""
    return ((part, subject.measure(part)) for part in parts)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _measured(part: Part, entry: JournalEntry, baseline: float, metric: AnalysisMetric) -> SensitivityMeasurement:
    drop = None
    if entry.score is not None:
        drop = entry.score - baseline if metric is AnalysisMetric.DISTILL else baseline - entry.score
    return SensitivityMeasurement(part.name, part.ratio, part.asked, entry.score, drop, entry.how)
