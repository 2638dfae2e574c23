"""An average over a whole map has a range of its own, in the plan, in the file and in both kinds of kernels."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_models import tiny_images  # noqa: E402

from yoloquant.bridge.checkpoint import load_model  # noqa: E402
from yoloquant.graph.trace import Graph  # noqa: E402
from yoloquant.graph.traced_model import TracedModel  # noqa: E402
from yoloquant.quantization.artifact import Artifact  # noqa: E402
from yoloquant.quantization.calibrate import observe, solve_plan  # noqa: E402
from yoloquant.quantization.insert import copy_module  # noqa: E402
from yoloquant.quantization.plan import Plan, Point  # noqa: E402
from yoloquant.quantization.qparams import QParams  # noqa: E402
from yoloquant.quantization.scheme import derive  # noqa: E402
from yoloquant.quantization.simulate import simulate  # noqa: E402
from yoloquant.targets.litert.global_pools import is_average, is_global, write_as_means  # noqa: E402
from yoloquant.targets.litert.scheme import SCHEME  # noqa: E402

LAYERS = {
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "nn.AvgPool2d", [2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "nn.AvgPool2d", [3, 1, 1]],
    ],
    "head": [[-1, 1, "Classify", ["nc"]]],
}
SMALL, _, WHOLE = range(3)


@lru_cache(maxsize=1)
def traced() -> TracedModel:
    """A classifier with two average pools of small windows and one of the whole map."""
    from ultralytics.nn.tasks import ClassificationModel

    torch.manual_seed(0)
    model = ClassificationModel({"nc": 3, **LAYERS}, ch=3, nc=3, verbose=False)
    model.names = {i: f"thing {i}" for i in range(3)}
    model.args = {"imgsz": 64, "task": "classify"}
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = 0.5  # or activations would be a thousandth of what later layers expect
    model.train()
    with torch.no_grad():
        for image in tiny_images(8, seed=2):
            model(torch.from_numpy(np.repeat(image, 2, 0)))
    return TracedModel.of(load_model(model.eval()), (64, 64))


def pools(graph: Graph) -> list[str]:
    return [op.name for op in graph.body() if is_average(op)]


@lru_cache(maxsize=1)
def artifact() -> Artifact:
    graph = traced().graph
    plan = derive(graph, SCHEME)
    plan = solve_plan(graph, plan, observe(graph, [plan], tiny_images(8)))
    return Artifact(traced(), {plan.scheme: plan}, provenance={"calibration": {"sha256": "0" * 64}})


def test_only_the_mean_of_a_whole_map_is_free_of_what_it_reads() -> None:
    graph = traced().graph
    names = pools(graph)
    assert [is_global(graph, graph.ops[name]) for name in names] == [False, False, True]
    plan = derive(graph, SCHEME)
    for name in names:
        (source,) = graph.ops[name].inputs
        shared = bool(plan.by_name[name].tie) and plan.by_name[name].tie == plan.by_name[graph.root(source)].tie
        assert shared == (name != names[WHOLE]), name


def test_a_window_that_leaves_one_pixel_is_no_mean_of_the_whole() -> None:
    graph = traced().graph
    op = graph.ops[pools(graph)[WHOLE]]
    node = graph.node(op.name)
    before = node.args
    try:
        source = graph.ops[op.inputs[0]].shape
        assert source is not None
        node.args = (before[0], [source[2] - 1, source[3]])
        assert not is_global(graph, op)
        node.args = (before[0], [source[2]])  # one number for both sides
        assert is_global(graph, op)
    finally:
        node.args = before


def test_means_compute_the_same() -> None:
    graph = traced().graph
    module = copy_module(graph)
    names = [n.name for n in module.graph.nodes]
    write_as_means(module, graph)
    assert [n.name for n in module.graph.nodes] == names
    targets = [str(n.target) for n in module.graph.nodes]
    assert sum("mean" in t for t in targets) == 1 and sum("avg_pool2d" in t for t in targets) == 2
    image = torch.from_numpy(tiny_images(1, seed=4)[0])
    with torch.inference_mode():
        torch.testing.assert_close(module(image), graph.module(image), rtol=1e-5, atol=1e-6)


def test_the_pooled_vectors_range_is_found_by_what_is_read_from_it() -> None:
    graph, plan = traced().graph, next(iter(artifact().plans.values()))
    pooled, window = (plan.by_name[pools(graph)[i]] for i in (WHOLE, SMALL))
    source = plan.by_name[graph.ops[pooled.name].inputs[0]]
    assert pooled.algorithm == "mse_readout" and pooled.params != source.params
    assert window.params == plan.by_name[graph.root(graph.ops[window.name].inputs[0])].params


def shifted(plan: Plan, name: str) -> Plan:
    """The plan with another, odd range of one point."""

    def other(point: Point) -> Point:
        assert point.params is not None
        params = QParams(point.params.scale * np.float32(1.37), point.params.zero_point - 3)
        return replace(point, params=params)

    return replace(plan, points=tuple(other(p) if p.name == name else p for p in plan.points))


@pytest.mark.slow
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("precision", ["", ":w8a16"])
def test_the_file_has_the_plans_ranges_and_results(tmp_path: Path, precision: str, odd: bool) -> None:
    pytest.importorskip("litert_torch", reason="the litert extra is not installed")
    from yoloquant import targets

    graph, art = traced().graph, artifact()
    name = pools(graph)[WHOLE]
    if odd:
        art = replace(art, plans={k: shifted(p, name) for k, p in art.plans.items()})
    target = targets.get(f"litert{precision}")
    exported = target.export(art, tmp_path, "tiny")
    counts = exported.metadata["operators"]
    assert counts["MEAN"] == 1 and counts["AVERAGE_POOL_2D"] == 2 and exported.metadata["requantize"] == 0
    plan = art.plan_for(target.scheme)
    if not precision:
        scale, zero_point = target.read_scales(exported)[name]
        params = plan.by_name[name].params
        assert params is not None
        assert scale.tobytes() == params.scale.tobytes() and int(zero_point) == int(params.zero_point)
    runner, simulated = target.load(exported, threads=1), simulate(graph, plan)
    far = coarse = 0.0
    for image in tiny_images(6, seed=7):
        with torch.inference_mode():
            exact, wanted = (m(torch.from_numpy(image)) for m in (graph.module, simulated))
            exact, wanted = ((v[0] if isinstance(v, tuple) else v).numpy() for v in (exact, wanted))
        far += float(np.abs(runner(image)[0] - (exact if precision else wanted)).mean())
        coarse += float(np.abs(wanted - exact).mean())
    # kernels round sums of integers where the simulation rounds sums of floats; 16 bits are the float model's, almost
    assert coarse > 0 and far < (0.25 if precision else 0.75) * coarse
