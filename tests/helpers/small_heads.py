"""YOLO26's heads behind a backbone of ten layers: converted in a fraction of the time that a published family takes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from conformance_models import IMGSZ, LAYERS, NAMES
from tiny_models import _enliven, tiny_images

from yoloquant.graph.traced_model import TracedModel
from yoloquant.quantization.artifact import Artifact

HEADS: dict[str, tuple[str, list[Any]]] = {
    "segment": ("Segment26", ["nc", 8, 16]),
    "pose": ("Pose26", ["nc", "kpt_shape"]),
    "obb": ("OBB26", ["nc", 1]),
}


def small_traced(task: str, *, end2end: bool, max_det: int = 40) -> TracedModel:
    """A two-level model of a task at 64 pixels, random but with outputs that depend on the image."""
    import torch
    from ultralytics.nn import tasks

    from yoloquant.bridge.checkpoint import load_model

    kinds = {"segment": tasks.SegmentationModel, "pose": tasks.PoseModel, "obb": tasks.OBBModel}
    name, arguments = HEADS[task]
    layers = {**LAYERS, "head": [*LAYERS["head"][:-1], [[9, 6], 1, name, arguments]]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        described = {"nc": len(NAMES), "kpt_shape": [4, 3], "end2end": True, "reg_max": 1, **layers}
        model = kinds[task](described, ch=3, nc=len(NAMES), verbose=False)
        _enliven(model)
    model.names, model.end2end = dict(NAMES), end2end
    model.model[-1].max_det = max_det  # fewer than anchors, or nothing would be selected
    return TracedModel.of(load_model(model), IMGSZ)


@lru_cache(maxsize=3)
def small_artifact(task: str, end2end: bool, schemes: tuple[Any, ...]) -> Artifact:
    """The same, calibrated by extremes for each scheme."""
    from yoloquant.quantization.calibrate import observe, solve_plan
    from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe
    from yoloquant.quantization.saturation import with_safe_weights
    from yoloquant.quantization.scheme import derive

    traced = small_traced(task, end2end=end2end)
    plans = [derive(traced.graph, scheme) for scheme in schemes]
    seen = observe(traced.graph, plans, tiny_images(8))
    recipe = CalibrationRecipe(*[Algorithm.MINMAX] * 5)
    solved = {plan.scheme: solve_plan(traced.graph, plan, seen, recipe) for plan in plans}
    # as calibration does it: processors without VNNI would clamp
    clamping = [solved[s.name] for s in schemes if s.sums_in_16_bits]
    solved |= {p.scheme: p for p in with_safe_weights(traced.graph, clamping, tiny_images(4))}
    return Artifact(traced, solved)
