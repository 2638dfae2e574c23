"""Plans are plain data: printed, compared, saved and read back without losing a bit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from core_models import tiny_artifact, tiny_graph
from hypothesis import given
from hypothesis import strategies as st

from yoloquant.errors import PlanError
from yoloquant.quantization.plan import Plan, Point, PointKind, Role, Site, ties
from yoloquant.quantization.qparams import QParams, QuantSpec
from yoloquant.quantization.scheme import PORTABLE, derive

FLOAT32 = st.floats(width=32, min_value=2.0**-126, allow_infinity=False, allow_nan=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
SPECS = st.builds(QuantSpec, st.integers(2, 16), st.booleans(), st.booleans(), st.sampled_from([None, 0, 1]))


@st.composite
def parameters(draw: st.DrawFn) -> QParams:
    scales = draw(st.lists(FLOAT32, min_size=1, max_size=4))
    zeros = draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=len(scales), max_size=len(scales)))
    if draw(st.booleans()):
        return QParams(np.float32(scales[0]), np.int32(zeros[0]))  # type: ignore[arg-type]
    return QParams(np.array(scales, np.float32), np.array(zeros, np.int32))


POINTS = st.builds(
    Point,
    name=TEXT,
    kind=st.sampled_from(PointKind),
    role=st.sampled_from(Role),
    spec=SPECS,
    sites=st.lists(st.builds(Site, TEXT, st.lists(TEXT, max_size=2).map(tuple)), max_size=2).map(tuple),
    tie=st.one_of(st.just(""), TEXT),
    fixed=st.booleans(),
    reason=TEXT,
    params=st.one_of(st.none(), parameters()),
    algorithm=TEXT,
)
PLANS = st.builds(
    Plan,
    TEXT,
    st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
    st.lists(POINTS, max_size=4, unique_by=lambda p: p.name).map(tuple),
    st.lists(TEXT, max_size=2).map(tuple),
)


@given(PLANS)
def test_json_round_trip_is_exact(plan: Plan) -> None:
    back = Plan.from_json(plan.to_json())
    assert back == plan and back.to_json() == plan.to_json() and back.digest() == plan.digest()
    for a, b in zip(plan.points, back.points, strict=True):
        assert (a.params is None) == (b.params is None)
        if a.params is not None and b.params is not None:
            assert a.params.scale.tobytes() == b.params.scale.tobytes() and a.params.scale.shape == b.params.scale.shape
            assert b.params.scale.dtype == np.float32 and b.params.zero_point.dtype == np.int32
    str(back)


@pytest.mark.parametrize("scheme", ["portable", "litert", "tensorrt", "openvino", "onnxruntime"])
def test_real_plans_round_trip(scheme: str) -> None:
    plan = tiny_artifact().plans[scheme]
    assert Plan.from_json(plan.to_json()) == plan and plan.calibrated


def test_the_digest_tells_plans_apart() -> None:
    plan = tiny_artifact().plans["portable"]
    point = plan.activations[0]
    assert point.params is not None
    next_scale = np.nextafter(point.params.scale, np.float32(np.inf))
    changed = plan.with_params({point.name: QParams(next_scale, point.params.zero_point)}, point.algorithm)
    assert changed != plan and changed.digest() != plan.digest()
    assert replace(plan, imgsz=(64, 96)).digest() != plan.digest()


def _edit(**changes: Any) -> str:
    return json.dumps({**json.loads(tiny_artifact().plans["portable"].to_json()), **changes})


def _point(**changes: Any) -> str:
    data = json.loads(tiny_artifact().plans["portable"].to_json())
    data["points"][0] = {k: v for k, v in {**data["points"][0], **changes}.items() if v is not ...}
    return json.dumps(data)


DAMAGED = {
    "empty": lambda: "",
    "cut": lambda: tiny_artifact().plans["portable"].to_json()[:-20],
    "null": lambda: "null",
    "number": lambda: "5",
    "list": lambda: "[]",
    "object": lambda: "{}",
    "version": lambda: _edit(version=2),
    "no points": lambda: _edit(points=None),
    "imgsz": lambda: _edit(imgsz=[64]),
    "imgsz text": lambda: _edit(imgsz=["a", "b"]),
    "kind": lambda: _point(kind="bias"),
    "role": lambda: _point(role="star"),
    "bits": lambda: _point(spec={"bits": 40}),
    "bits text": lambda: _point(spec={"bits": "8"}),
    "spec": lambda: _point(spec={"bit": 8}),
    "spec list": lambda: _point(spec=[8]),
    "sites": lambda: _point(sites=[{"tensor": "a"}]),
    "missing name": lambda: _point(name=...),
    "extra": lambda: _point(colour="red"),
    "scale zero": lambda: _point(params={"scale": 0.0, "zero_point": 0}),
    "scale text": lambda: _point(params={"scale": "x", "zero_point": 0}),
    "scale huge": lambda: _point(params={"scale": 1e60, "zero_point": 0}),
    "zero point": lambda: _point(params={"scale": 1.0, "zero_point": 2**40}),
    "ragged": lambda: _point(params={"scale": [[1.0], [1.0, 2.0]], "zero_point": 0}),
    "shapes": lambda: _point(params={"scale": [1.0, 2.0], "zero_point": [0]}),
    "params list": lambda: _point(params=[1]),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.filterwarnings("ignore:overflow")
def test_damaged_plans(damage: str) -> None:
    with pytest.raises(PlanError):
        Plan.from_json(DAMAGED[damage]())


def test_a_name_twice() -> None:
    point = tiny_artifact().plans["portable"].points[0]
    with pytest.raises(PlanError, match="twice"):
        Plan("x", (64, 64), (point, point))


def test_unknown_names_and_missing_ranges() -> None:
    plan = derive(tiny_graph(), PORTABLE)
    params = QParams(np.float32(1), np.int32(0))  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="has no point nothing"):
        plan.with_params({"nothing": params})
    assert not plan.calibrated
    with pytest.raises(PlanError, match=r"have no range, first images"):
        plan.require_calibrated()
    tiny_artifact().plans["portable"].require_calibrated()


def test_with_params_names_the_algorithm() -> None:
    plan, params = derive(tiny_graph(), PORTABLE), QParams(np.float32(1), np.int32(0))  # type: ignore[arg-type]
    a, b = (p.name for p in plan.activations[:2])
    assert plan.with_params({a: params}, "learned").by_name[a].algorithm == "learned"
    both = plan.with_params({a: params, b: params}, {a: "mse", b: "minmax"})
    assert (both.by_name[a].algorithm, both.by_name[b].algorithm) == ("mse", "minmax")
    assert plan.by_name[a].params is None, "the plan itself is frozen"


def test_a_plan_prints() -> None:
    plan = tiny_artifact().plans["portable"]
    lines = str(plan).splitlines()
    assert lines[0] == (
        f"plan 'portable' at 64x64: {len(plan.weights)} weight and {len(plan.activations)} activation points"
    )
    for point, line in zip(plan.points, lines[1:], strict=False):
        assert point.name in line and point.reason in line
        assert ("per channel" in line) == (point.spec.axis is not None)
    assert "not calibrated" in str(derive(tiny_graph(), PORTABLE)) and "not calibrated" not in str(plan)


@given(st.lists(st.tuples(st.integers(0, 9).map(str), st.integers(0, 9).map(str)), max_size=12))
def test_ties_are_the_connected_groups(pairs: list[tuple[str, str]]) -> None:
    found = ties(pairs)
    assert set(found) == {x for pair in pairs for x in pair}
    groups = [{x} for x in found]
    for a, b in pairs:
        joined = next(g for g in groups if a in g) | next(g for g in groups if b in g)
        groups = [g for g in groups if not g & joined] + [joined]
    for group in groups:
        assert {found[x] for x in group} == {min(group)}
    assert found == ties(reversed(pairs)) == ties((b, a) for a, b in pairs)
