"""Layers left in float: which points go, which stay, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from core_models import sample_images, tiny_graph

from yoloquant.errors import PlanError
from yoloquant.graph.ops import QUANTIZATION_AGNOSTIC, WEIGHTED
from yoloquant.quantization.float_layers import layer_of, layers_of, leave_float, matched
from yoloquant.quantization.insert import insert
from yoloquant.quantization.plan import Plan, PointKind
from yoloquant.quantization.qparams import QParams
from yoloquant.quantization.scheme import PORTABLE, adapt, derive
from yoloquant.quantization.simulate import simulate
from yoloquant.targets.schemes import schemes

SCHEMES = sorted(schemes())


def coarse(plan: Plan) -> Plan:
    """The plan with one range for everything."""
    found = {}
    for point in plan.points:
        if point.kind is PointKind.WEIGHT and point.spec.axis is not None:
            weight = tiny_graph().module.get_parameter(f"{point.name.removesuffix(':weight')}.weight")
            shape: tuple[int, ...] = (weight.shape[point.spec.axis],)
        else:
            shape = ()
        if not point.fixed:
            found[point.name] = QParams(np.full(shape, 0.1, np.float32), np.zeros(shape, np.int32))
    return plan.with_params(found)


def some_layer() -> str:
    """A convolution in the middle of the network."""
    graph = tiny_graph()
    convs = [op for op in graph.body() if op.kind in WEIGHTED]
    return layer_of(convs[len(convs) // 2].name)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_layer_in_float_has_no_weight_point_and_no_operand_of_its_own(scheme: str) -> None:
    graph, plan, layer = tiny_graph(), derive(tiny_graph(), schemes()[scheme]), some_layer()
    left = leave_float(graph, plan, (layer,))
    assert left.float_layers == (layer,)
    gone = set(plan.by_name) - set(left.by_name)
    assert any(plan.by_name[name].kind is PointKind.WEIGHT for name in gone)
    floats = {op.name for op in graph.body() if layer_of(op.name) == layer and op.kind not in QUANTIZATION_AGNOSTIC}
    for point in left.activations:
        for site in point.sites:
            readers = set(site.consumers or graph.users[site.tensor])
            assert not readers & floats, f"{point.name} is still quantized for {readers & floats}"
    for name in set(plan.by_name) & set(left.by_name):
        assert left.by_name[name].spec == plan.by_name[name].spec


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_layers_but_one_leave_points_of_that_one_alone(scheme: str) -> None:
    graph, layer = tiny_graph(), some_layer()
    others = tuple(name for name in layers_of(graph) if name != layer)
    left = leave_float(graph, derive(graph, schemes()[scheme]), others)
    assert {layer_of(p.name) for p in left.weights} == {layer}
    readers = {r for p in left.activations for s in p.sites for r in (s.consumers or graph.users[s.tensor])}
    computing = {layer_of(r) for r in readers if graph.ops[r].kind not in QUANTIZATION_AGNOSTIC}
    assert computing <= {layer}
    conv = next(op for op in graph.body() if op.kind in WEIGHTED and layer_of(op.name) == layer)
    roots = {graph.root(s.tensor) for p in left.activations for s in p.sites}
    assert graph.root(conv.inputs[0]) in roots, "an int8 weight without an int8 operand"


def test_what_is_in_float_is_computed_in_float() -> None:
    graph, layer = tiny_graph(), some_layer()
    others = tuple(name for name in layers_of(graph) if name != layer)
    image = torch.from_numpy(sample_images(1)[0])
    plan = coarse(derive(graph, PORTABLE))
    modules = [simulate(graph, leave_float(graph, plan, floats)) for floats in ((), (layer,), others)]
    with torch.inference_mode():
        exact = graph.module(image)
        errors = [float((module(image) - exact).abs().mean()) for module in modules]
    assert errors[0] > errors[2] > 0 and errors[0] != errors[1]
    conv = next(op for op in graph.body() if op.kind in WEIGHTED and layer_of(op.name) == layer)
    kinds = [next(n for n in m.graph.nodes if n.name == graph.fx_name(conv.name)).args[1].op for m in modules]
    assert kinds == ["call_module", "get_attr", "call_module"]


def test_names_and_patterns() -> None:
    graph = tiny_graph()
    names = layers_of(graph)
    assert matched(graph, ("*",)) == names and matched(graph, (names[3],)) == (names[3],)
    with pytest.raises(PlanError, match=r"float_layers='model\.99' matches none of the model's \d+ layers"):
        matched(graph, ("model.99",))
    listed = rf"{names[0]}, {names[1]}, .* \.\.\. {names[-1]}$"
    for pattern, hint in (("modell.3*", r"did you mean '.*'\? They are"), ("backbone", "they are")):
        with pytest.raises(PlanError, match=rf"'{re.escape(pattern)}' matches none .*; {hint} {listed}"):
            matched(graph, (pattern,))
    with pytest.raises(PlanError, match="leaves nothing of plan 'portable' to quantize"):
        leave_float(graph, derive(graph, PORTABLE), ("*",))


def test_it_is_part_of_the_plan() -> None:
    graph, layer = tiny_graph(), some_layer()
    plan = derive(graph, PORTABLE)
    left = leave_float(graph, plan, (layer,))
    assert leave_float(graph, plan, ()) is plan and "float_layers" not in plan.to_dict()
    assert Plan.from_json(left.to_json()) == left and left.digest() != plan.digest()
    assert f"left in float: {layer}" in str(left)
    twice = leave_float(graph, left, (layers_of(graph)[0],))
    assert twice.float_layers == (layers_of(graph)[0], layer)


@pytest.mark.parametrize("scheme", ["onnxruntime", "openvino", "tensorrt"])
def test_adapting_leaves_the_same_layers_in_float(scheme: str) -> None:
    graph, layer = tiny_graph(), some_layer()
    left = leave_float(graph, coarse(derive(graph, PORTABLE)), (layer,))
    adapted = adapt(graph, left, schemes()[scheme])
    assert adapted.float_layers == (layer,)
    assert layer not in {layer_of(p.name) for p in adapted.weights}
    assert all(p.params is not None for p in adapted.points)
    insert(graph, adapted, lambda module, source, point, place: module.graph.call_function(torch.relu, (source,)))
