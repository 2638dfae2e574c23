"""Post-training quantization: plan a model, calibrate it on images, and keep what training has learned already."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..bridge.checkpoint import load_model
from ..bridge.host_model import HostModel
from ..data.calibration import CalibrationOptions, CalibrationSet, calibration_set
from ..errors import YoloquantError
from ..graph.trace import Graph
from ..graph.traced_model import TracedModel
from ..types import Progress
from .artifact import Artifact, versions
from .bias_overflow import without_bias_overflow
from .calibrate import GRADIENT_IMAGES, Observations, Solver, observe, observed, solve_plan
from .calibration_audit import CalibrationAudit, ImageStatistics, audit
from .calibration_memory import CalibrationMemory
from .image_statistics import describe
from .importers.modelopt import take_over
from .kept_calibration import KeptCalibration
from .layer_precision import give_precision, widen_layers
from .layer_shift import IMAGES as LAYER_SHIFT_IMAGES
from .layer_shift import is_shifted, layer_shifts
from .plan import Plan
from .quantize_options import QuantizeOptions
from .saturation import IMAGES, with_safe_weights
from .scheme import Scheme, adapt, derive
from .score_shift import IMAGES as SHIFT_IMAGES
from .score_shift import Shifts, score_shifts, with_note
from .seen_scores import SeenScores

logger = logging.getLogger(__name__)

SeenByImage = Sequence[Sequence[SeenScores]]
SCORED_IMAGES = 16
"""So many of the images that exports will be scored on are held against the calibration's."""


def quantize(
    model: Any,
    *,
    data: str | os.PathLike[str],
    schemes: Sequence[Scheme],
    options: QuantizeOptions | None = None,
    progress: Progress | None = None,
    memory: CalibrationMemory | None = None,
    accept: Callable[[Graph], None] | None = None,
) -> Artifact:
    """Quantize a trained model: one plan for each scheme, all calibrated in one pass over the images.

    Args:
        model: Path of an Ultralytics checkpoint, or a live ``ultralytics.YOLO``.
        data: Data yaml whose train split calibrates, or a folder of images.
        schemes: Where each runtime wants quantization placed.
        options: Input size, images and algorithms.
        progress: Called after every calibration image.
        memory: What earlier calls with the same memory have computed is not computed again; the result is the same.
        accept: Called with the traced network before anything is calibrated; raises where that would be in vain.

    Returns:
        The artifact, to be saved, exported or trained further.

    Raises:
        ModelError: The model cannot be read or traced.
        DataError: The data are missing, or are the ones that will be scored.
        CalibrationError: There are too few images, or NaN activations.
        UsageError: The model does not take this input size.
    """
    options, memory = options or QuantizeOptions(), memory or CalibrationMemory()
    # traced before the images are read and hashed: an input size that the model does not take is refused at once
    traced = traced_once(model, options, memory)
    if accept:
        accept(traced.graph)
    imgsz = traced.info.imgsz
    images = calibration_set(data, options.calibration)
    scored = _scored_images(data, options)
    kept = KeptCalibration(traced, schemes, images, scored, options)
    if found := kept.read():
        if progress:
            progress(len(images), len(images), "known from an earlier run")
        _warn(found.provenance["calibration_audit"]["warnings"], memory)
        return found
    plans, known = _plans(traced, schemes, options)
    # one pass for all schemes, whose points are mostly the same tensors
    calibrated, audited, scores = _calibrated(traced.graph, plans, images, scored, options, progress, memory)
    clamping = [calibrated[scheme.name] for scheme in schemes if scheme.sums_in_16_bits]
    if clamping:
        few = islice(images.tensors(imgsz, traced.info.task), IMAGES)
        calibrated |= {plan.scheme: plan for plan in with_safe_weights(traced.graph, clamping, few)}
    calibrated = {name: without_bias_overflow(traced.graph, plan) for name, plan in calibrated.items()}
    calibrated = {name: widen_layers(traced.graph, plan) for name, plan in calibrated.items()}
    # Last of all: it makes up for what every range of the finished plan does to the scores.
    shifts = _shifts(traced.graph, calibrated, images, scores, options, progress, memory)
    calibrated = {name: with_note(plan, shifts.get(name, {})) for name, plan in calibrated.items()}
    provenance = {**_provenance(data, images, options), **known, "calibration_audit": audited.to_dict()}
    artifact = Artifact(traced, calibrated, shifts, provenance)
    kept.write(artifact)
    return artifact


def traced_once(model: Any, options: QuantizeOptions, memory: CalibrationMemory) -> TracedModel:
    """The float model that ``quantize`` calibrates, of an earlier call with the same memory where there was one."""
    return memory.once(_model_key(model, options), lambda: _traced(model, options))


def _traced(model: Any, options: QuantizeOptions) -> TracedModel:
    host_model = load_model(model, allow_unsafe=options.allow_unsafe)
    if options.max_det is not None:
        host_model.allow_detections(options.max_det)
    return TracedModel.of(host_model, options.imgsz)


def _model_key(model: Any, options: QuantizeOptions) -> tuple[Hashable, ...]:
    """What makes a model the same: of a file its place and time, of a live one the object."""
    path = Path(model) if isinstance(model, (str, os.PathLike)) else None
    name: Hashable = id(model)
    if path is not None and path.is_file():
        # not a hash: reading the file to know whether it was read before would cost what it saves
        stat = path.stat()
        name = (str(path.resolve()), stat.st_mtime_ns, stat.st_size)
    return ("traced", name, repr(options.imgsz), options.max_det, options.allow_unsafe)


def derive_plan(model: Any, scheme: Scheme, imgsz: int | Sequence[int] | None = None) -> Plan:
    """Make the plan of one scheme: without ranges for a plain checkpoint, with them for a quantized one.

    A checkpoint of Ultralytics' own QAT has the ranges of that training where the scheme needs them.

    Raises:
        ModelError: The model cannot be read or traced.
        UsageError: Another input size is asked for than a quantized checkpoint's own.
    """
    host_model = load_model(model)
    if host_model.state:
        return Artifact.from_host(host_model, imgsz).plan_for(scheme)
    graph = TracedModel.of(host_model, imgsz).graph
    # a checkpoint of Ultralytics' own QAT has ranges beside the model, and a plan that ignored them would surprise
    (derived,), _ = take_over(graph, host_model, [derive(graph, scheme)])
    return derived


def _plans(
    traced: TracedModel, schemes: Sequence[Scheme], options: QuantizeOptions
) -> tuple[tuple[Plan, ...], dict[str, Any]]:
    """Every scheme's plan with the ranges that some training left, and what provenance says of those."""
    graph, model = traced.graph, traced.model
    plans = tuple(derive(graph, s) for s in schemes)
    known: dict[str, Any] = {}
    if options.native_ranges:
        plans, native = take_over(graph, model, plans)
        known |= {"native_qat": native} if native else {}
    # after native ranges: what our own training learned counts more than what was imported
    plans, added = _with_learned(graph, model, schemes, plans)
    if added:
        known |= {"qat": model.state["provenance"].get("qat", {}), "calibrated_after_training": added}
    # after ranges were taken over, so that a layer left in float does not come back with a stored one
    plans = tuple(give_precision(graph, p, options.float_layers, options.precision) for p in plans)
    if options.points is not None:
        choose = partial(options.points, graph)
        plans = tuple(p.with_specs(choose) for p in plans)
    return plans, known


def _calibrated(
    graph: Graph,
    plans: Sequence[Plan],
    images: CalibrationSet,
    scored: CalibrationSet | None,
    options: QuantizeOptions,
    progress: Progress | None,
    memory: CalibrationMemory,
) -> tuple[dict[str, Plan], CalibrationAudit, SeenByImage]:
    total = len(images)
    tick = None if progress is None else (lambda done, what: progress(done, total, what))
    gradients = GRADIENT_IMAGES if options.ranges.needs_gradients else 0
    points = frozenset(observed(plans))

    def look() -> tuple[Graph, Observations]:  # the graph lives as long as its id is a key
        tensors = images.tensors(graph.info.imgsz, graph.info.task)
        return graph, observe(graph, plans, tensors, gradients=gradients, progress=tick)

    _, observations = memory.once(("seen", id(graph), images.sha256, points, gradients), look)
    solver = Solver(observations, options.ranges)
    solved = {p.scheme: solve_plan(graph, p, observations, solver=solver) for p in plans}
    assert observations.statistics is not None
    key = ("scored", id(graph), scored.sha256 if scored else "", points)
    _, described = memory.once(key, lambda: (graph, _described(graph, plans, scored)))
    found = audit(observations.statistics, graph.info.names, described)
    _warn(found.warnings, memory)
    return solved, found, observations.scores


def _shifts(
    graph: Graph,
    plans: Mapping[str, Plan],
    images: CalibrationSet,
    scores: SeenByImage,
    options: QuantizeOptions,
    progress: Progress | None,
    memory: CalibrationMemory,
) -> dict[str, Shifts]:
    """What class scores, or a classifier's layers, are moved by; a trained plan's are where training left them."""
    if not options.ranges.score_shift:
        return {}
    untrained = [plan for plan in plans.values() if not any(p.algorithm == "learned" for p in plan.points)]
    if is_shifted(graph):
        return _layer_shifts(graph, untrained, images, progress, memory)
    few = islice(images.tensors(graph.info.imgsz, graph.info.task), SHIFT_IMAGES)
    total = min(SHIFT_IMAGES, len(images))
    tick = (
        None if progress is None else (lambda done: progress(done, total, "holding scores against the float model's"))
    )
    key = ("shifts", id(graph), images.sha256, *(plan.digest() for plan in untrained))
    return memory.once(key, lambda: score_shifts(graph, untrained, few, known=scores, progress=tick))


def _layer_shifts(
    graph: Graph,
    plans: Sequence[Plan],
    images: CalibrationSet,
    progress: Progress | None,
    memory: CalibrationMemory,
) -> dict[str, Shifts]:
    few = islice(images.tensors(graph.info.imgsz, graph.info.task), LAYER_SHIFT_IMAGES)
    what = "holding layers against the float model's"
    tick = None if progress is None else (lambda done, total: progress(done, total, what))
    key = ("shifts", id(graph), images.sha256, *(plan.digest() for plan in plans))
    return memory.once(key, lambda: layer_shifts(graph, plans, few, progress=tick))


def _scored_images(data: str | os.PathLike[str], options: QuantizeOptions) -> CalibrationSet | None:
    """A few of the images that exports will be scored on; None if nothing is scored there."""
    split = options.calibration.scored_split
    try:
        few = calibration_set(data, CalibrationOptions(images=SCORED_IMAGES, split=split, allow_scored=True))
    except YoloquantError:
        return None
    return few if few.split else None


def _described(graph: Graph, plans: Sequence[Plan], scored: CalibrationSet | None) -> ImageStatistics | None:
    """What scored images do inside the network; no range learns of them."""
    if scored is None:
        return None
    return describe(graph, observed(plans), scored.tensors(graph.info.imgsz, graph.info.task))


def _warn(sentences: Sequence[str], memory: CalibrationMemory) -> None:
    """Say what is wrong with the calibration's images, once."""
    for sentence in filter(memory.is_news, sentences):
        logger.warning("%s", sentence)


def _provenance(data: str | os.PathLike[str], images: CalibrationSet, options: QuantizeOptions) -> dict[str, Any]:
    return {
        "calibration": {
            "data": Path(str(data)).name,
            "split": images.split,
            "images": len(images),
            "seed": options.calibration.seed,
            "sha256": images.sha256,
            "hashes": list(images.hashes),
            "allow_scored": options.calibration.allow_scored,
        },
        "ranges": {k: getattr(v, "value", v) for k, v in vars(options.ranges).items()},
        "versions": versions(),
    }


def _with_learned(
    graph: Graph, host_model: HostModel, schemes: Sequence[Scheme], plans: tuple[Plan, ...]
) -> tuple[tuple[Plan, ...], dict[str, list[str]]]:
    """Ranges that training learned, wherever a plan has their points; and the names of those left to calibrate."""
    if not host_model.state.get("plans"):
        return plans, {}
    trained = Artifact.from_host(host_model)
    if not any(p.algorithm == "learned" for stored in trained.plans.values() for p in stored.points):
        return plans, {}
    adapted = tuple(adapt(graph, trained.source_plan(s), s) for s in schemes)
    added = {p.scheme: [q.name for q in p.points if q.params is None] for p in adapted}
    return tuple(_noted(p, added[p.scheme]) for p in adapted), added


def _noted(plan: Plan, added: list[str]) -> Plan:
    if not added:
        return plan
    few = ", ".join(added[:3]) + (" ..." if len(added) > 3 else "")
    note = f"{len(added)} points were not trained and are calibrated: {few} (all under calibrated_after_training)"
    return replace(plan, notes=(*plan.notes, note))
