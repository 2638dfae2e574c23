"""Shifts of the class scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from core_models import family_graph, sample_images, tiny_artifact, tiny_graph

from yoloquant.quantization import score_shift
from yoloquant.quantization.calibrate import observe
from yoloquant.quantization.insert import copy_module
from yoloquant.quantization.plan import Plan, Role
from yoloquant.quantization.raw_heads import end_at_heads
from yoloquant.quantization.readout import FOREGROUND
from yoloquant.quantization.score_shift import IMAGES as MOST
from yoloquant.quantization.score_shift import LARGEST, Shifts, _Logits, score_shifts, with_note
from yoloquant.quantization.seen_scores import SeenScores
from yoloquant.quantization.simulate import simulate

IMAGES = sample_images(3, seed=5)


def coarse() -> Plan:
    """A plan with steps so wide that logits move; they are not rounded themselves, so a shift can be exact."""
    plan = tiny_artifact().plans["tensorrt"]
    points = []
    for p in plan.points:
        if p.role is Role.ACTIVATION:
            assert p.params is not None
            p = replace(p, params=replace(p.params, scale=np.asarray(p.params.scale * 1.5, np.float32)))
        points.append(p)
    return replace(plan, points=tuple(points))


def scores(plan: Plan, bias: Shifts | None) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Class logits of the float model and of the plan, (anchors, classes) per image and level."""
    graph = tiny_graph()
    places = [i for i, op in enumerate(graph.heads) if op.branch == "score"]
    exact, quantized = end_at_heads(graph, copy_module(graph)), end_at_heads(graph, simulate(graph, plan, bias=bias))
    found: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    with torch.inference_mode():
        for image in IMAGES:
            for values, module in zip(found, (exact, quantized), strict=True):
                raw = module(torch.from_numpy(image))
                values.extend(raw[i][0].flatten(1).T for i in places)
    return found


def test_probabilities_sum_to_the_float_models() -> None:
    plan = coarse()
    shifts = score_shifts(tiny_graph(), [plan], IMAGES)["tensorrt"]
    levels = [op.module for op in tiny_graph().heads if op.branch == "score"]
    assert sorted(shifts) == sorted(levels)
    assert all(np.ptp(value) == 0 and value.dtype == np.float32 for value in shifts.values())
    exact, plain = scores(plan, None)
    _, moved = scores(plan, shifts)
    for level in range(len(levels)):
        sees = [a.sigmoid() > FOREGROUND for a in exact[level :: len(levels)]]

        def total(values: list[torch.Tensor], level: int = level, sees: list[torch.Tensor] = sees) -> float:
            return float(sum(v[s].sigmoid().sum() for v, s in zip(values[level :: len(levels)], sees, strict=True)))

        before, after = abs(total(plain) - total(exact)), abs(total(moved) - total(exact))
        assert before > 0.01 and after < 0.001 * before + 1e-4, (level, before, after)


def test_plans_that_compute_the_same_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [tiny_artifact().plans[name] for name in ("litert", "qnn", "tensorrt")]
    alone = {plan.scheme: score_shifts(tiny_graph(), [plan], IMAGES)[plan.scheme] for plan in plans}
    made: list[str] = []

    def noted(graph: Any, plan: Plan) -> Any:
        made.append(plan.scheme)
        return simulate(graph, plan)

    monkeypatch.setattr(score_shift, "simulate", noted)
    together = score_shifts(tiny_graph(), plans, IMAGES)
    assert len(made) == 2
    for scheme, shifts in alone.items():
        assert {k: v.tolist() for k, v in together[scheme].items()} == {k: v.tolist() for k, v in shifts.items()}
    assert together["litert"] is not together["qnn"]


@pytest.mark.parametrize("gradients", [0, 8])
def test_what_calibration_saw_of_the_float_model_is_not_computed_again(gradients: int) -> None:
    images, plan = sample_images(MOST + 1, seed=5), coarse()
    known = observe(tiny_graph(), [plan], images, gradients=gradients).scores
    levels = [op.module for op in tiny_graph().heads if op.branch == "score"]
    seeing = [k for i, k in enumerate(levels) if sum(image[i].values.numel() for image in known) > 100]
    assert len(known) == MOST and seeing
    fresh, again = (score_shifts(tiny_graph(), [plan], images, known=k)["tensorrt"] for k in ((), known))
    assert {k: v.tolist() for k, v in again.items()} == {k: v.tolist() for k, v in fresh.items()}
    # that it is these that count
    other = [[SeenScores(each.values + 0.25, each.places) for each in image] for image in known]
    moved = score_shifts(tiny_graph(), [plan], images[:MOST], known=other)["tensorrt"]
    assert all((moved[k] > fresh[k] + 0.1).all() for k in seeing)


def test_the_plan_says_what_its_scores_are_moved_by() -> None:
    plan = tiny_artifact().plans["litert"]
    noted = with_note(plan, {"a": np.full(3, 0.25, np.float32), "b": np.full(3, -0.125, np.float32)})
    assert noted.notes == (*plan.notes, "class scores are moved by +0.250, -0.125 logits, in the last biases")
    assert with_note(plan, {}) is plan


def test_false_alarms_of_noise_do_not_lower_what_is_there() -> None:
    generator = torch.Generator().manual_seed(0)
    exact = torch.full((1, 1, 64, 64), -6.0)  # nothing, just below what counts
    exact[..., :8, :8] = 2.0
    noise = torch.randn(exact.shape, generator=generator)
    noise[..., :8, :8] = 0.0
    logits = _Logits()
    logits.add(exact, exact + noise)
    assert logits.shift() == pytest.approx(0.0, abs=1e-5)


def test_a_known_shift_is_found() -> None:
    exact = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = _Logits()
    logits.add(exact, exact - 0.37)
    assert logits.shift() == pytest.approx(0.37, abs=1e-5)


@pytest.mark.parametrize(("off", "expected"), [(-5.0, LARGEST), (5.0, -LARGEST)])
def test_no_shift_is_larger_than_rounding_explains(off: float, expected: float) -> None:
    exact = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = _Logits()
    logits.add(exact, exact + off)
    assert logits.shift() == pytest.approx(expected, abs=1e-5)


def test_nothing_is_moved_where_nothing_is_seen() -> None:
    logits = _Logits()
    logits.add(torch.full((1, 3, 4, 4), -20.0), torch.full((1, 3, 4, 4), -19.0))
    assert logits.shift() == 0.0


def test_a_classifier_has_no_sigmoid_to_shift() -> None:
    assert score_shifts(family_graph("yolo11", "classify"), [], IMAGES) == {}
