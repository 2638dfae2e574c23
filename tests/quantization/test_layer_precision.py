"""Layers with a precision of their own: which points get 16 bits, which stay, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_models import tiny_artifact, tiny_graph

from yoloquant import targets
from yoloquant.errors import PlanError, UsageError
from yoloquant.graph.ops import QUANTIZATION_AGNOSTIC
from yoloquant.quantization.float_layers import layer_of, layers_of
from yoloquant.quantization.layer_precision import give_precision, widen_layers
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.quantization.scheme import adapt
from yoloquant.targets.schemes import schemes

SCHEMES = sorted(schemes())


def calibrated(scheme: str) -> Plan:
    return tiny_artifact().plans[scheme]


def some_layer() -> str:
    """A convolution in the middle of the network."""
    weights = calibrated("portable").weights
    return layer_of(weights[len(weights) // 2].name)


def given(plan: Plan, *precision: tuple[str, str]) -> Plan:
    return give_precision(tiny_graph(), plan, (), precision)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_what_such_layers_alone_read_has_16_bits(scheme: str) -> None:
    graph, plan, widened = tiny_graph(), calibrated(scheme), set()
    for layer in layers_of(graph):
        noted = given(plan, (layer, "w8a16"))
        # noted first and widened once ranges are known
        assert noted.points == plan.points and noted.wide_layers == (layer,)
        wide = widen_layers(graph, noted)
        assert widen_layers(graph, wide) == wide
        changed = {p.name for p, q in zip(plan.points, wide.points, strict=True) if p != q}
        assert not changed & {p.name for p in plan.weights}
        assert all(point.spec.bits == (16 if point.name in changed else 8) for point in wide.points)
        for point in (wide.by_name[name] for name in changed):
            readers = {r for site in point.sites for r in (site.consumers or graph.users[site.tensor])}
            others = [graph.ops[r] for r in readers if layer_of(r) != layer]
            # what is only moved is read by whoever reads the result
            assert all(op.tail or op.kind in QUANTIZATION_AGNOSTIC for op in others), point.name
        widened |= changed
    assert len(widened) > len(plan.activations) / 3, "hardly anything is read by one layer alone"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_layers_are_a_plan_of_16_bits(scheme: str) -> None:
    graph = tiny_graph()
    wide = widen_layers(graph, given(calibrated(scheme), ("*", "w8a16")))
    assert {p.spec.bits for p in wide.activations} == {16} and {p.spec.bits for p in wide.weights} == {8}


def test_ranges_that_are_shared_stay_shared() -> None:
    graph = tiny_graph()
    plan = calibrated("portable")
    for layer in {layer_of(p.name) for p in plan.activations if p.tie}:
        wide = widen_layers(graph, given(plan, (layer, "w8a16")))
        for members in wide.groups().values():
            assert len({p.spec.bits for p in members}) == 1


def test_it_is_part_of_the_plan() -> None:
    graph, layer = tiny_graph(), some_layer()
    other = next(name for name in layers_of(graph) if name != layer)
    plan = calibrated("portable")
    assert given(plan) is plan and not {"half_layers", "wide_layers"} & set(plan.to_dict())
    left = widen_layers(graph, given(plan, (layer, "w8a16"), (other, "fp16")))
    assert (left.float_layers, left.half_layers, left.wide_layers) == ((other,), (other,), (layer,))
    assert Plan.from_json(left.to_json()) == left and left.digest() != plan.digest()
    assert f"of these in float16: {other}\nactivations of 16 bits: {layer}" in str(left)
    adapted = adapt(graph, left, schemes()["qnn"])
    assert (adapted.half_layers, adapted.wide_layers) == ((other,), (layer,))
    assert {p.name for p in adapted.points if p.spec.bits == 16} == {p.name for p in left.points if p.spec.bits == 16}
    # a layer in float has no activations any more
    assert give_precision(graph, left, (layer,)).wide_layers == ()


def test_what_is_refused() -> None:
    graph, layer = tiny_graph(), some_layer()
    plan = calibrated("portable")
    with pytest.raises(PlanError, match=r"precision='model\.99' matches none of the model's \d+ layers"):
        given(plan, ("model.99", "fp16"))
    with pytest.raises(PlanError, match=f"layer {layer} is given two precisions, float and w8a16"):
        give_precision(graph, plan, (layer,), [(layer, "w8a16")])


@pytest.mark.parametrize("name", targets.names())
def test_a_target_that_cannot_says_so_by_the_layers_names(name: str) -> None:
    target, plan = targets.get(name), calibrated("portable")
    for precision, asked in (("fp16", {"half_layers": ("model.1",)}), ("w8a16", {"wide_layers": ("model.1",)})):
        wanted = replace(plan, **asked)
        if precision in target.capabilities.layer_precisions:
            target.check_layers(wanted)
            continue
        with pytest.raises(PlanError, match=rf"'{name}' computes no single layer in {precision}, .* for model\.1 \("):
            target.check_layers(wanted)


def test_how_it_is_given() -> None:
    wanted = (("model.23.cv3*", "fp16"), ("model.4.cv1", "w8a16"))
    for value in ("model.23.cv3*:fp16, model.4.cv1:w8a16", dict(wanted), [list(pair) for pair in wanted]):
        assert QuantizeOptions(precision=value).precision == wanted
    with pytest.raises(UsageError, match=r"precision.*int4.*float, fp16, w8a16"):
        QuantizeOptions(precision="model.4.cv1:int4")
