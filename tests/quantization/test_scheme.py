"""Schemes: the placement of points, verified by walking the graph."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from core_models import tiny_artifact, tiny_graph
from torch import nn

from yoloquant.errors import PlanError
from yoloquant.graph.trace import QUANTIZATION_AGNOSTIC, WEIGHTED, OpKind, trace
from yoloquant.quantization.plan import PointKind, Role
from yoloquant.quantization.qparams import UNIT_QPARAMS, QParams
from yoloquant.quantization.scheme import PORTABLE, Placement, Scheme, adapt, complete, derive
from yoloquant.targets import get, names
from yoloquant.types import ModelInfo, Task

SCHEMES = {PORTABLE.name: PORTABLE, **{get(n).scheme.name: get(n).scheme for n in names()}}
COMPLETE = ["portable", "litert"]
INFO = ModelInfo(Task.DETECT, ("a",), (32, 32))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_deriving_twice_gives_the_same(scheme: str) -> None:
    first, second = derive(tiny_graph(), SCHEMES[scheme]), derive(tiny_graph(), SCHEMES[scheme])
    assert first == second and first.digest() == second.digest() and first.imgsz == (64, 64)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_holds_for_every_scheme(scheme: str) -> None:
    graph, plan = tiny_graph(), derive(tiny_graph(), SCHEMES[scheme])
    by_tensor = {s.tensor: p for p in plan.activations for s in p.sites}
    assert len(by_tensor) == sum(len(p.sites) for p in plan.activations), "no tensor is quantized twice"
    for point in plan.activations:
        op = graph.ops[point.name]
        assert op.kind not in QUANTIZATION_AGNOSTIC, "what only moves values has no point of its own"
        assert point.reason and point.sites and not op.tail
        assert {graph.root(s.tensor) for s in point.sites} == {point.name}
        for site in point.sites:
            assert set(site.consumers) <= set(graph.users[site.tensor])
        assert point.fixed == (point.params is not None)
        assert not (point.fixed and point.tie)
    for members in plan.groups().values():
        assert len({m.spec for m in members}) == 1
    scores = [p for p in plan.activations if p.role is Role.SCORE]
    boxes = [p for p in plan.activations if p.role is Role.HEAD]
    assert not {p.tie or p.name for p in scores} & {p.tie or p.name for p in boxes}, "boxes and scores never share"


@pytest.mark.parametrize("scheme", COMPLETE)
def test_complete_covers_every_float_tensor(scheme: str) -> None:
    graph, plan = tiny_graph(), derive(tiny_graph(), SCHEMES[scheme])
    sited = {s.tensor for p in plan.activations for s in p.sites if not s.consumers}
    for op in graph.body():
        assert graph.root(op.name) in sited, op.name
    assert {p.name for p in plan.weights} == {f"{o.module}:weight" for o in graph.body() if o.kind in WEIGHTED}
    assert all(h.name in sited for h in graph.heads)


@pytest.mark.parametrize("scheme", COMPLETE)
def test_concats_share_one_range(scheme: str) -> None:
    graph, plan = tiny_graph(), derive(tiny_graph(), SCHEMES[scheme])
    concats = [o for o in graph.body() if o.kind is OpKind.CONCAT]
    assert concats
    for concat in concats:
        members = [plan.by_name[graph.root(n)] for n in (concat.name, *concat.inputs)]
        assert len({m.tie for m in members}) == 1 and members[0].tie
    for concat in (o for o in tiny_artifact().graph.body() if o.kind is OpKind.CONCAT):
        solved = tiny_artifact().plans[scheme].by_name
        assert len({solved[graph.root(n)].params.scale.tobytes() for n in (concat.name, *concat.inputs)}) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_sigmoids_have_the_prescribed_range_where_that_is_the_rule(scheme: str) -> None:
    plan = tiny_artifact().plans[scheme]
    units = [p for p in plan.activations if tiny_graph().ops[p.name].kind is OpKind.UNIT]
    for point in units:
        assert point.fixed == SCHEMES[scheme].unit_fixed
        if point.fixed:
            assert point.params == UNIT_QPARAMS and not point.spec.symmetric
    if scheme in COMPLETE:
        assert units


def test_roles() -> None:
    plan, graph = derive(tiny_graph(), PORTABLE), tiny_graph()
    expected = {OpKind.INPUT: Role.INPUT, OpKind.UNIT: Role.UNIT, OpKind.ADD: Role.ADD, OpKind.CONCAT: Role.CONCAT,
                OpKind.MUL: Role.ACTIVATION}  # fmt: skip
    for point in plan.activations:
        op = graph.ops[point.name]
        if op.kind in expected:
            assert point.role is expected[op.kind]
        elif op in graph.heads:
            assert point.role is (Role.SCORE if op.branch == "score" else Role.HEAD)
        else:
            assert point.role is Role.PRE_ACTIVATION
    assert {p.role for p in plan.weights} == {Role.WEIGHT}


def test_weight_granularity() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.conv, self.fc = nn.ConvTranspose2d(3, 4, 2, 2), nn.Conv2d(4, 5, 1), nn.Linear(64, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv(self.up(x)))

    graph = trace(Net().eval(), INFO)
    axes = {p.name: p.spec.axis for p in derive(graph, PORTABLE).weights}
    assert axes == {"up:weight": None, "conv:weight": 0, "fc:weight": 0}
    axes = {p.name: p.spec.axis for p in derive(graph, replace(PORTABLE, per_tensor_kinds=frozenset())).weights}
    assert axes["up:weight"] == 1, "output channels of a transposed convolution are its second axis"


def test_a_relu_is_clamped_by_its_convolution() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval(), INFO)
    points = [p.name for p in derive(graph, PORTABLE).activations]
    assert points == ["images", "1:relu:0", "2:conv2d:0"]


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "portable"])
def test_adapting_keeps_the_ranges(scheme: str) -> None:
    portable = tiny_artifact().plans["portable"]
    adapted = adapt(tiny_graph(), portable, SCHEMES[scheme])
    placed = derive(tiny_graph(), SCHEMES[scheme])
    assert adapted.scheme == scheme and [p.name for p in adapted.points] == [p.name for p in placed.points]
    for point, rule in zip(adapted.points, placed.points, strict=True):
        known = portable.by_name[point.name]
        assert point.params == known.params and point.spec == known.spec
        assert point.sites == rule.sites and point.tie == rule.tie, "placement is the runtime's own"
    assert adapt(tiny_graph(), adapted, SCHEMES[scheme]) is adapted


def test_adapting_leaves_open_what_the_source_lacks() -> None:
    source = tiny_artifact().plans["tensorrt"]
    adapted = adapt(tiny_graph(), source, PORTABLE)
    missing = {p.name for p in adapted.points if p.params is None}
    assert missing and missing.isdisjoint(source.by_name)
    assert {p.name for p in adapted.points} - missing >= {p.name for p in source.weights}


def test_a_scheme_that_finds_nothing() -> None:
    with pytest.raises(PlanError, match="finds nothing to quantize"):
        derive(tiny_graph(), Scheme("none", lambda g: Placement((), (), ())))


def test_float_layers_are_noted() -> None:
    first = tiny_graph().heads[0].name
    scheme = Scheme("part", lambda g: replace(complete(g), weighted=tuple(
        w for w in complete(g).weighted if w != first)))  # fmt: skip
    (note,) = derive(tiny_graph(), scheme).notes
    assert first in note and "float" in note


def test_weights_come_before_the_result_of_their_operation() -> None:
    order = [p.name for p in derive(tiny_graph(), PORTABLE).points]
    for point in derive(tiny_graph(), PORTABLE).points:
        if point.kind is PointKind.WEIGHT:
            result = f"{point.name.removesuffix(':weight')}:conv2d:0"
            assert order.index(point.name) < order.index(result)
    assert order[0] == "images"


def test_one_weight_in_two_operations() -> None:
    """A convolution that runs twice has one weight, so one weight point."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x))

    from yoloquant.quantization.simulate import FixedFakeQuantize, simulate

    graph = trace(Twice().eval(), INFO)
    plan = derive(graph, PORTABLE)
    assert [p.name for p in plan.weights] == ["conv:weight"]
    plan = plan.with_params(
        {p.name: QParams(*((v,) * 3 for v in (0.5, 0)) if p.spec.axis is not None else (0.5, 0)) for p in plan.points}  # type: ignore[arg-type]
    )
    module = simulate(graph, plan)
    convs = [n for n in module.graph.nodes if n.op == "call_function" and "conv2d" in str(n.target)]
    assert len(convs) == 2
    assert all(isinstance(module.get_submodule(str(n.args[1].target)), FixedFakeQuantize) for n in convs)
