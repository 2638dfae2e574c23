"""The one walk that puts points into a graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from core_models import sample_images, tiny_artifact, tiny_graph, tiny_host
from torch import fx

from yoloquant.bridge.exportable import exportable
from yoloquant.bridge.host_model import model_info
from yoloquant.errors import PlanError
from yoloquant.graph.trace import trace
from yoloquant.quantization.insert import add_bias, check_fits, copy_module, insert
from yoloquant.quantization.plan import Plan, Point, PointKind, Site
from yoloquant.quantization.scheme import PORTABLE, derive
from yoloquant.targets import names

SCHEMES = ["portable", *(n for n in names() if n in tiny_artifact().plans)]


def identity(value: torch.Tensor) -> torch.Tensor:
    """Stands where a pair would."""
    return value * 1


class Recorder:
    """A factory that inserts identities and remembers where."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []
        self.nodes: dict[str, fx.Node] = {}

    def __call__(self, module: fx.GraphModule, source: fx.Node, point: Point, place: str) -> fx.Node:
        self.made.append((point.name, place))
        node = module.graph.call_function(identity, (source,))
        self.nodes[place] = node
        return node


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_place_per_weight_and_site(scheme: str) -> None:
    plan, record = tiny_artifact().plans[scheme], Recorder()
    module = insert(tiny_graph(), plan, record)
    expected = [(p.name, p.name) for p in plan.weights] + [
        (p.name, s.tensor) for p in plan.activations for s in p.sites
    ]
    assert sorted(record.made) == sorted(expected) and len(set(record.made)) == len(record.made)
    (image,) = sample_images(1, seed=3)
    with torch.inference_mode():
        x = torch.from_numpy(image)
        assert torch.equal(module(x), tiny_graph().module(x)), "identities change nothing"


def test_the_graph_itself_is_left_alone() -> None:
    graph = tiny_graph()
    before = graph.module.code, {k: v.clone() for k, v in graph.module.state_dict().items()}
    insert(graph, tiny_artifact().plans["portable"], Recorder(), bias={"model.0.conv": np.ones(8, np.float32)})
    assert graph.module.code == before[0]
    assert all(torch.equal(v, before[1][k]) for k, v in graph.module.state_dict().items())
    twin = copy_module(graph)
    with torch.no_grad():
        next(twin.parameters()).add_(1)
    assert all(torch.equal(v, before[1][k]) for k, v in graph.module.state_dict().items())


def test_only_the_named_consumers_read_the_quantized_value() -> None:
    graph, plan = tiny_graph(), tiny_artifact().plans["portable"]
    tensor = next(n for n, users in graph.users.items() if len(users) > 1 and n in plan.by_name)
    chosen, *others = graph.users[tensor]
    point = replace(plan.by_name[tensor], sites=(Site(tensor, (chosen,)),))
    record = Recorder()
    module = insert(graph, Plan("x", plan.imgsz, (point,)), record)
    nodes = {n.name: n for n in module.graph.nodes}
    quantized = record.nodes[tensor]
    assert set(quantized.users) == {nodes[graph.fx_name(chosen)]}
    for other in others:
        assert nodes[graph.fx_name(tensor)] in nodes[graph.fx_name(other)].all_input_nodes


def test_bias_corrections_are_added() -> None:
    graph, plan = tiny_graph(), tiny_artifact().plans["portable"]
    delta = np.linspace(-1, 1, 8, dtype=np.float32)
    module = insert(graph, plan, Recorder(), bias={"model.0.conv": delta})
    before, after = (m.get_parameter("model.0.conv.bias").detach().numpy() for m in (graph.module, module))
    np.testing.assert_array_equal(after, before + delta)


@pytest.mark.parametrize(
    "bias",
    [{"model.99.conv": np.zeros(8, np.float32)}, {"model.0.conv": np.zeros(5, np.float32)}, {"model.0": np.zeros(8)}],
)
def test_bias_corrections_that_do_not_fit(bias: dict[str, np.ndarray]) -> None:
    with pytest.raises(PlanError, match="bias"):
        add_bias(copy_module(tiny_graph()), bias)


def test_plans_that_do_not_fit() -> None:
    graph, plan = tiny_graph(), tiny_artifact().plans["portable"]
    point = plan.activations[0]
    with pytest.raises(PlanError, match="have no range"):
        insert(graph, derive(graph, PORTABLE), Recorder())
    with pytest.raises(PlanError, match="imgsz"):
        check_fits(graph, replace(plan, imgsz=(64, 96)))
    for wrong in (
        replace(point, name="model.9.elsewhere:conv2d:0"),
        replace(point, sites=(Site("model.9.elsewhere:conv2d:0"),)),
        replace(point, sites=(Site(point.sites[0].tensor, ("nobody",)),)),
        replace(point, kind=PointKind.WEIGHT, name="model.9.elsewhere:weight", sites=()),
    ):
        with pytest.raises(PlanError, match="made for another model"):
            check_fits(graph, Plan("x", plan.imgsz, (wrong,)))


def test_a_plan_of_another_size_is_refused() -> None:
    info = model_info(tiny_host(), (96, 64))
    other = trace(exportable(tiny_host(), info), info)
    with pytest.raises(PlanError, match=r"imgsz \(64, 64\)"):
        insert(other, tiny_artifact().plans["portable"], Recorder())
