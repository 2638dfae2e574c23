"""Release against release: the old one takes the FP32 model's place, so every figure is a paired one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..cache import Key, Store
from ..data.dataset import ValidationSet, class_names_of, load_yaml
from ..errors import UsageError
from ..options.kinds import ImageSize
from ..predictions.first_result import further_parts
from ..predictions.prediction_set import RecordedModel
from ..runtime.core.class_order import class_labels
from ..runtime.core.runner import Runner
from ..runtime.device.processors import cpu_threads
from ..runtime.tasks import spec_of
from ..types import ModelInfo, Progress, Task
from .bootstrap import BootstrapOptions
from .conclusion import conclusion
from .entrants import ComparedImages, Entrant, entrants, pairs
from .evaluate import EvaluateOptions, Evaluation, evaluate
from .gate import Gate, check_task, load_gates
from .keep_results import keep_results
from .kept_predictions import KeptPredictions, selection_for
from .latency import measure_latency, unmeasured
from .release_options import ReleaseOptions
from .results import OLD, OLD_RELEASE, ValidationResult
from .verdict import ArtifactInfo, VerdictOptions, reach_verdict

logger = logging.getLogger(__name__)

NEW = "new"
PICTURES = 4
SHOWN = 8
"""Classes that are named among what appeared and vanished."""


@dataclass(frozen=True)
class ReleaseComparison:
    """The outcome for one pair.

    Attributes:
        name: What both are called.
        result: The verdict; its baseline is the old release and its only target the new one.
        folder: Where its report goes; None if none is written.
        conclusion: Whether they differ, in one sentence; empty where the gate names no margin for it.
    """

    name: str
    result: ValidationResult
    folder: Path | None
    conclusion: str = ""


def compare_releases(options: ReleaseOptions, *, progress: Progress | None = None) -> Iterator[ReleaseComparison]:
    """Compare two releases on the same images, pair by pair.

    Args:
        options: The releases, the images and the gate.
        progress: Called after every image.

    Yields:
        One comparison for each pair.

    Raises:
        UsageError: Neither or both of data and source are given; the releases have other tasks or classes; or nothing
            is called alike.
        YoloquantError: Something is missing or damaged, or was recorded on other images.
    """
    if options.data is not None and options.source is not None:
        raise UsageError("give either data=<data yaml> (labelled) or source=<folder of images> (agreement only)")
    # Before anything is loaded: a gate with a typing error is refused in a second.
    gates = load_gates(options.gate)
    threads = options.threads or cpu_threads()
    store = Store.of(options.cache)
    old = entrants(options.old, options.reading, threads, store)
    new = entrants(options.new, options.reading, threads, store)
    compared = pairs(old, new, options.only)
    lacking = _lacking(old, compared) if not options.only else ""
    if lacking:
        logger.warning("%s", lacking)
    for name, before, after in compared:
        folder = options.report
        if folder is not None and len(compared) > 1:
            # Names of rows hold colons, at signs and the like, which not every file system takes.
            folder = folder / "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        images = _images(_on_data(options, before, after), before, after)
        result, text = _concluded(_compare(options, gates, images, (before, after), threads, folder, progress))
        if lacking:
            result = replace(result, notes=(lacking, *result.notes))
        yield ReleaseComparison(name, result, folder, text)


def _lacking(old: Sequence[Entrant], compared: Sequence[tuple[str, Entrant, Entrant]]) -> str:
    """What the old release has and nothing of the new one was held against; empty for nothing."""
    held = {before.name for _, before, _ in compared}
    left = [each.name for each in old if each.name not in held]
    return (
        f"the new release lacks {', '.join(left)}, which the old one has; only= names what is compared" if left else ""
    )


def _on_data(options: ReleaseOptions, before: Entrant, after: Entrant) -> ReleaseOptions:
    """The options with the images that recorded results name, where nobody named others.

    Raises:
        UsageError: Nothing names any.
    """
    if options.data is not None or options.source is not None:
        return options
    made = next((e.made for e in (after, before) if e.made.get("data")), None)
    if made is None:
        raise UsageError("give data=<data yaml> (labelled) or source=<folder of images> (agreement only)")
    # As many as both hold: a report of limit=200 is no report of the whole set.
    counts = [e.count for e in (after, before) if e.count is not None]
    options = replace(options, limit=min(counts) if options.limit is None else options.limit)
    # A folder of images has no split.
    if not made.get("split"):
        return replace(options, source=str(made["data"]))
    return replace(options, data=str(made["data"]), split=str(made["split"]))


def _images(options: ReleaseOptions, before: Entrant, after: Entrant) -> ComparedImages:
    info = _common(options, before, after)
    if options.data is None:
        everything = ValidationSet.from_folder(str(options.source), info.names)
        return ComparedImages(everything, everything.take(options.limit), info)
    everything = ValidationSet.open(options.data, info, split=options.split).for_classes(info.names)
    return ComparedImages(everything, everything.take(options.limit).require_labels(), info)


def _common(options: ReleaseOptions, before: Entrant, after: Entrant) -> ModelInfo:
    """Task, classes and input size of both."""
    known = [e.info for e in (before, after) if e.info is not None]
    if len(known) == 2 and (known[0].names, known[0].task) != (known[1].names, known[1].task):
        raise UsageError(
            f"the old release is {_described(known[0])}, the new one {_described(known[1])}; compare releases of one "
            "model"
        )
    # (0, 0) is a checkpoint, which takes any size.
    sized = [info for info in known if info.imgsz != (0, 0)]
    if sized:
        return sized[0]
    if not known:
        _refuse_further(options)
    info = known[0] if known else ModelInfo(Task.DETECT, _names(options), (0, 0))
    return replace(info, imgsz=_size(options.reading.imgsz, spec_of(info.task).imgsz))


def _refuse_further(options: ReleaseOptions) -> None:
    """Refuse predictions of more than boxes where nothing says what model they are of: all but boxes would not count.

    Raises:
        UsageError: There are some.
    """
    for side in (options.old, options.new):
        if parts := further_parts(Path(side)):
            raise UsageError(
                f"predictions '{side}' also hold {' and '.join(parts)}, and nothing says of what model they are, so "
                "boxes alone would be compared; judge both with yoloquant validate <model> predictions=<old>,<new>"
            )


def _described(info: ModelInfo) -> str:
    more = " ..." if len(info.names) > 3 else ""
    return f"a {info.task.value} model of {len(info.names)} classes ({', '.join(info.names[:3])}{more})"


def _size(imgsz: ImageSize, usual: int) -> tuple[int, int]:
    if imgsz is None:
        return usual, usual
    return (imgsz, imgsz) if isinstance(imgsz, int) else (imgsz[0], imgsz[1])


def _names(options: ReleaseOptions) -> tuple[str, ...]:
    """Class names of predictions that nothing else names: the data's."""
    if options.data is None:
        raise UsageError("predictions alone do not name their classes; give data=<data yaml>, which does")
    file, content = load_yaml(options.data)
    return class_names_of(content, file)


def _compare(
    options: ReleaseOptions,
    gates: Sequence[Gate],
    images: ComparedImages,
    sides: tuple[Entrant, Entrant],
    threads: int,
    folder: Path | None,
    progress: Progress | None,
) -> ValidationResult:
    told = check_task(gates, images.info.task)
    runners: dict[str, Runner] = {}
    recorded: dict[str, RecordedModel] = {}
    facts: dict[str, ArtifactInfo] = {}
    selection = selection_for(side.info for side in sides if side.runs and side.info is not None)
    settings = EvaluateOptions(baseline=OLD, selection=selection)
    known = KeptPredictions(Store.of(options.cache), images.scored, settings, threads)
    keys: dict[str, Key | None] = {}
    try:
        for name, entrant in zip((OLD, NEW), sides, strict=True):
            keys[name] = entrant.key(images)
            if found := known.read(keys[name]):
                recorded[name], facts[name] = found, entrant.facts
                continue
            opened, facts[name] = entrant.open(images)
            if isinstance(opened, RecordedModel):
                recorded[name] = opened
            else:
                runners[name] = opened
        evaluation = evaluate(runners, images.scored, settings, recorded=recorded, progress=progress)
    finally:
        for runner in runners.values():
            runner.close()
    for name, runner in runners.items():
        if name in evaluation.records:
            known.write(keys[name], runner.info, name, evaluation)
    # Once both are closed: latency is measured with the machine to itself.
    facts[NEW] = _timed(facts[NEW], sides, evaluation, threads, options)
    environment = {"task": images.info.task.value, "old": options.old, "new": options.new}
    result = reach_verdict(
        evaluation,
        gates,
        facts,
        VerdictOptions(
            bootstrap=BootstrapOptions(replicates=options.bootstrap),
            conf=options.conf,
            match=options.match,
            threads=threads,
            environment=environment,
            notes=(*told, *_sizes(*sides), *changes(evaluation)),
            same_model=bool(facts[OLD].weights) and facts[OLD].weights == facts[NEW].weights,
        ),
    )
    if folder is not None:
        keep_results(folder, evaluation, facts, images.info, result.environment)
    return result


def _concluded(result: ValidationResult) -> tuple[ValidationResult, str]:
    """The same with the conclusion before the new release's other notes, and the conclusion itself."""
    (new,) = result.targets
    text = _worded(conclusion(new.checks, spec_of(Task(result.environment["task"])).metrics[0]))
    checks = tuple(replace(check, message=_worded(check.message)) for check in new.checks)
    notes = (text, *new.notes) if text else new.notes
    return replace(result, targets=(replace(new, checks=checks, notes=notes),)), text


def _worded(text: str) -> str:
    """A sentence about the old release, which takes the FP32 model's place."""
    return text.replace("FP32 model", OLD_RELEASE).replace("FP32", OLD_RELEASE)


def _timed(
    facts: ArtifactInfo, sides: tuple[Entrant, Entrant], evaluation: Evaluation, threads: int, options: ReleaseOptions
) -> ArtifactInfo:
    """Time two artifacts that run here in turn."""
    from .. import targets

    old, new = (side.exported for side in sides)
    if old is None or new is None or not options.latency or NEW not in evaluation.records:
        note = facts.latency_note or "latency is measured where both are artifacts of yoloquant, and latency=true"
        return replace(facts, latency_note=note)
    note = unmeasured(targets.get(old.target)) or unmeasured(targets.get(new.target))
    if note:
        return replace(facts, latency_note=note)
    pictures = [evaluation.data.read(i) for i in range(min(PICTURES, len(evaluation.data)))]
    timing = measure_latency(new, old, pictures, threads)
    return replace(facts, latency=timing.latency, latency_ratio=timing.ratio, latency_note=timing.note)


def _sizes(before: Entrant, after: Entrant) -> tuple[str, ...]:
    """A note where releases were recorded at different input sizes: then not the quantization alone has changed."""
    sizes = [each.info.imgsz if each.info else (0, 0) for each in (before, after)]
    if (0, 0) in sizes or sizes[0] == sizes[1]:
        return ()
    (old_height, old_width), (new_height, new_width) = sizes
    return (f"the old release's input is {old_height} x {old_width}, the new one's {new_height} x {new_width} pixels",)


def changes(evaluation: Evaluation) -> tuple[str, ...]:
    """What the new release finds that the old one did not, and the reverse, above the confidence of references."""
    if NEW not in evaluation.records or evaluation.task.class_folders:
        return ()
    record, labels = evaluation.records[NEW], class_labels(evaluation.names)
    appeared: Counter[str] = Counter()
    vanished: Counter[str] = Counter()
    threshold = evaluation.options.reference_conf
    for found, matches, reference in zip(
        record.detections, record.reference_matches, evaluation.references, strict=True
    ):
        confident = found.confidence > threshold
        appeared.update(labels[k] for k in found.class_id[confident & (matches.partner < 0)].tolist())
        # By confident ones alone: what the new release finds below the threshold is gone where it is deployed.
        kept = set(matches.partner[confident & (matches.partner >= 0)].tolist())
        vanished.update(labels[k] for i, k in enumerate(reference.classes.tolist()) if i not in kept)
    return tuple(
        f"{total} detections above {threshold:g} {word}: {_listed(count)}"
        for word, count in (("appeared", appeared), ("vanished", vanished))
        if (total := sum(count.values()))
    )


def _listed(count: Counter[str]) -> str:
    shown = ", ".join(f"{name} {n}" for name, n in count.most_common(SHOWN))
    return shown + (f" and {len(count) - SHOWN} more classes" if len(count) > SHOWN else "")
