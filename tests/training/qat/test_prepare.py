"""A live model with a plan computes what the simulated graph computes, and becomes the plain one again."""

from __future__ import annotations

import copy
import io
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from core_models import family_graph, family_model
from tiny_models import tiny_images
from torch import fx, nn
from train_runs import calibrated_plans, live, planned, raw_outputs

from yoloquant.errors import PlanError
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.insert import add_bias, copy_module
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.simulate import FixedFakeQuantize, simulate
from yoloquant.training.qat.function_hooks import Quantizers, disabled
from yoloquant.training.qat.lsq import LSQQuantizer
from yoloquant.training.qat.prepare import (
    corrected,
    current_plan,
    detach,
    live_corrections,
    prepare_qat,
    quantizers_of,
    ranges_of,
)

MODELS = [
    ("yolo11", "detect"),
    ("yolov8", "detect"),
    ("yolov9t", "detect"),
    ("yolov10n", "detect"),
    ("yolo12", "detect"),
    ("yolo26", "detect"),
    ("yolo11", "segment"),
    ("yolov8", "pose"),
    ("yolo11", "obb"),
    ("yolo11", "classify"),
]
STEP_SHARE = 2e-3  # of values that may fall one step aside: folded convolutions differ in their last bit


class Values(fx.Interpreter):
    """Runs a graph and keeps the named values."""

    def __init__(self, module: fx.GraphModule, names: dict[str, str]) -> None:
        super().__init__(module)
        self.names, self.values = names, {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.names:
            self.values[self.names[n.name]] = result
        return result


def simulated_heads(artifact: Artifact, plan: Plan, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Raw head outputs of the simulation, quantized where the plan quantizes them."""
    graph = artifact.graph
    values = Values(simulate(graph, plan), {graph.fx_name(o.name): o.name for o in graph.heads})
    with torch.no_grad():
        values.run(images)
    for name, value in values.values.items():
        if name in plan.by_name and graph.end(name) == name:  # else the live model quantizes together with the SiLU
            point = plan.by_name[name]
            values.values[name] = FixedFakeQuantize(name, point.params, point.spec)(value)
    return values.values


def live_heads(artifact: Artifact, model: Any, quantizers: Quantizers, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same of the live model."""
    found: dict[str, torch.Tensor] = {}
    back = {traced: name for name, traced in quantizers._prefix.items() if traced}

    def keep(name: str, module: nn.Module, args: Any, result: torch.Tensor) -> None:
        found[name] = result

    handles = []
    for op in artifact.graph.heads:
        path = op.module
        for traced, name in back.items():
            if path.startswith(f"{traced}."):
                path = name + path[len(traced) :]
        handles.append(model.get_submodule(path).register_forward_hook(partial(keep, op.name)))
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), MODELS)
def test_heads_are_those_of_the_simulation_for_every_scheme(family: str, task: str) -> None:
    artifact, plans = calibrated_plans(family, task)
    images = torch.from_numpy(tiny_images(1, seed=5)[0])
    for plan in plans.values():
        model = live(artifact)
        quantizers = prepare_qat(model, artifact.graph, plan)
        wanted, found = simulated_heads(artifact, plan, images), live_heads(artifact, model, quantizers, images)
        assert set(found) == set(wanted) and wanted
        for name, value in wanted.items():
            spread = float(value.abs().max())
            aside = ((found[name] - value).abs() > 1e-5 * spread).float().mean()
            assert float(aside) <= STEP_SHARE, (plan.scheme, name)
            assert torch.allclose(found[name], value, atol=0.1 * spread), (plan.scheme, name)


@pytest.fixture(scope="module")
def attached() -> tuple[Artifact, Plan, Any]:
    """Read-only."""
    artifact, plan = planned()
    model = live(artifact)
    prepare_qat(model, artifact.graph, plan)
    return artifact, plan, model


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.from_numpy(tiny_images(1, seed=6)[0])


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_every_activation_and_weight_point_has_its_place(attached: tuple[Artifact, Plan, Any]) -> None:
    _, plan, model = attached
    wiring = quantizers_of(model).wiring
    used = {*wiring.results.values(), *wiring.operands.values(), *wiring.weights.values()}
    for gate in wiring.gates.values():
        used |= {p for p in (gate.pre, gate.unit, gate.product) if p is not None}
    groups = {plan.by_name[n].tie or n for n in used}
    assert {p.tie or p.name for p in plan.points} == groups
    assert wiring.gates and any("sigmoid" in n for n in wiring.gates)


def test_quantizing_changes_the_outputs_and_disabling_gives_the_float_ones(
    attached: tuple[Artifact, Plan, Any], images: torch.Tensor
) -> None:
    artifact, _, model = attached
    with torch.no_grad():
        plain, quantized = raw_outputs(live(artifact), images), raw_outputs(model, images)
        with disabled(model):
            inside = raw_outputs(model, images)
        after = raw_outputs(model, images)
    assert same(plain, inside) and same(quantized, after) and not same(plain, quantized)


def test_detaching_gives_the_plain_model_back(images: torch.Tensor) -> None:
    artifact, plan = planned()
    model, plain = live(artifact), live(artifact)
    prepare_qat(model, artifact.graph, plan)
    detach(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with torch.no_grad():
        assert same(raw_outputs(model, images), raw_outputs(plain, images))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    assert b"cyoloquant" not in buffer.getvalue()  # no class of the package: pickle names one behind a "c"
    buffer.seek(0)
    with torch.no_grad():
        assert same(raw_outputs(torch.load(buffer, weights_only=False), images), raw_outputs(plain, images))
    detach(model)  # nothing to do
    with pytest.raises(PlanError, match="prepare_qat"):
        quantizers_of(model)


@pytest.mark.parametrize("end2end", [False, True])
def test_corrections_reach_the_branch_that_is_exported(images: torch.Tensor, end2end: bool) -> None:
    """An end-to-end head's branch has another name in the graph than in the live model."""
    graph, module = family_graph("yolo26", "detect", end2end), family_model("yolo26", "detect", end2end).module
    student: Any = copy.deepcopy(module).eval()
    wanted = {op.module: np.full(3, 0.5, np.float32) for op in graph.heads if op.branch == "score"}
    moved = copy_module(graph)
    add_bias(moved, wanted)

    def scores(model: Any) -> torch.Tensor:
        with torch.no_grad():
            found = model(images[:1])
        table = found[0] if isinstance(found, (tuple, list)) else found
        return table[:, :, 4] if end2end else table[:, 4:7]

    plain, found = scores(student), live_corrections(student, graph, wanted)
    assert len(found) == len(wanted)
    with corrected(student, found):
        assert torch.allclose(scores(student), scores(moved), atol=1e-4)
        assert not torch.allclose(scores(student), plain, atol=1e-2)
    assert torch.equal(scores(student), plain)


def test_corrections_of_every_layer_reach_its_batch_norm(images: torch.Tensor) -> None:
    """A graph's convolution has its BatchNorm folded in, a live model's has it behind."""
    graph, module = family_graph("yolo11", "classify"), family_model("yolo11", "classify").module
    student: Any = copy.deepcopy(module).eval()
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in student.modules())
    generator = np.random.default_rng(0)
    biases = {name.removesuffix(".bias"): p for name, p in graph.module.named_parameters() if name.endswith(".bias")}
    wanted = {path: generator.normal(0, 0.2, p.shape).astype(np.float32) for path, p in biases.items()}
    moved = copy_module(graph)
    add_bias(moved, wanted)

    def scores(model: Any) -> torch.Tensor:
        with torch.no_grad():
            found = model(torch.nn.functional.interpolate(images[:1], graph.info.imgsz))
        return (found[0] if isinstance(found, (tuple, list)) else found).log()

    plain, found = scores(student), live_corrections(student, graph, wanted)
    assert len(found) == len(wanted) > 10
    with corrected(student, found):
        assert torch.allclose(scores(student), scores(moved), atol=1e-4)
        assert not torch.allclose(scores(student), plain, atol=1e-2)
    assert torch.equal(scores(student), plain)


def test_attaching_twice_replaces(images: torch.Tensor) -> None:
    artifact, plan = planned()
    once, twice = live(artifact), live(artifact)
    prepare_qat(once, artifact.graph, plan)
    prepare_qat(twice, artifact.graph, planned(scheme="litert")[1])
    prepare_qat(twice, artifact.graph, plan)
    with torch.no_grad():
        assert same(raw_outputs(once, images), raw_outputs(twice, images))
    assert list(once.state_dict()) == list(twice.state_dict())


def test_a_copy_computes_the_same_and_has_ranges_of_its_own(
    attached: tuple[Artifact, Plan, Any], images: torch.Tensor
) -> None:
    model = attached[2]
    other = copy.deepcopy(model)
    with torch.no_grad():
        before = raw_outputs(model, images)
        assert same(before, raw_outputs(other, images))
        for r in quantizers_of(other).ranges:
            for parameter in r.parameters():
                parameter.add_(0.5)
        assert same(before, raw_outputs(model, images)) and not same(before, raw_outputs(other, images))
        for parameter in other.parameters():
            parameter.zero_()
        assert same(before, raw_outputs(model, images))
    detach(other)
    with torch.no_grad():
        assert same(before, raw_outputs(model, images))


def test_the_host_s_moving_average_follows_weights_and_ranges(images: torch.Tensor) -> None:
    from ultralytics.utils.torch_utils import ModelEMA

    artifact, plan = planned(scheme="litert")
    model = live(artifact)
    prepare_qat(model, artifact.graph, plan, offset=True)
    average = ModelEMA(model)
    with torch.no_grad():
        for r in quantizers_of(model).ranges:
            for parameter in r.parameters():
                parameter.add_(0.1)
    for _ in range(50):
        average.update(model)
    found = current_plan(average.ema, plan)
    for point in plan.points:
        after = found.by_name[point.name].params
        assert (after == point.params) is not ranges_of(model)[point.name].trainable
        assert (after.zero_point == point.params.zero_point).all()


def test_an_error_inside_a_layer_leaves_nothing_behind(images: torch.Tensor) -> None:
    artifact, plan = planned()
    model = live(artifact)
    prepare_qat(model, artifact.graph, plan)
    with torch.no_grad():
        before = raw_outputs(model, images)
        with pytest.raises(RuntimeError):
            model(torch.rand(1, 5, 64, 64))
        assert torch.sigmoid(torch.zeros(1)).item() == 0.5
        assert quantizers_of(model)._mode is None
        assert same(before, raw_outputs(model, images))


def test_training_moves_ranges_and_weights_but_no_statistics(images: torch.Tensor) -> None:
    artifact, plan = planned()
    model = live(artifact)
    quantizers = prepare_qat(model, artifact.graph, plan)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # as the trainer does before every step
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batch = torch.from_numpy(tiny_images(1, seed=7)[0]).repeat(2, 1, 1, 1)
    sum((t.float() ** 2).mean() for t in raw_outputs(model, batch)).backward()
    for r in quantizers.ranges:
        if r.trainable and _reaches_a_head(r):
            assert r.log_ratio.grad is not None and torch.isfinite(r.log_ratio.grad).all(), r.names
            assert float(r.log_ratio.grad.abs().max()) > 0, r.names
        elif not r.trainable:
            assert not list(r.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad
    for name, value in model.state_dict().items():
        if "running" in name or "num_batches" in name:
            assert torch.equal(value, before[name]), name


def _reaches_a_head(r: LSQQuantizer) -> bool:
    return not any("dfl" in n for n in r.names)


@pytest.mark.parametrize("family", ["yolo11", "yolov8"])
def test_a_concat_on_its_inputs_grid_is_exact(family: str, images: torch.Tensor) -> None:
    """Tied concats are not quantized again in the live model; doing it would change nothing."""
    artifact, plan = planned(family)
    model = live(artifact)
    quantizers = prepare_qat(model, artifact.graph, plan)
    concats = [o.name for o in artifact.graph.body() if o.kind.name == "CONCAT" and o.name in plan.by_name]
    skipped = [n for n in concats if n not in quantizers.wiring.results]
    assert skipped
    with torch.no_grad():
        before = raw_outputs(model, images)
        quantizers.wiring.results.update({n: n for n in skipped})
        assert same(before, raw_outputs(model, images))


def test_a_layer_that_runs_otherwise_than_its_graph_is_refused() -> None:
    artifact, plan = planned()
    model = live(artifact)
    model.model[1].act = nn.ReLU()  # other values from here on
    with pytest.raises(PlanError, match="live model"):
        prepare_qat(model, artifact.graph, plan)
    other = live(artifact)
    with torch.no_grad():
        other.model[3].conv.weight.mul_(3.0)
    with pytest.raises(PlanError, match="other values"):
        prepare_qat(other, artifact.graph, plan)


def test_a_refused_model_is_left_plain(images: torch.Tensor) -> None:
    artifact, plan = planned()
    model = live(artifact)
    model.model[1].act = nn.ReLU()
    with torch.no_grad():
        before = raw_outputs(model, images)
    with pytest.raises(PlanError):
        prepare_qat(model, artifact.graph, plan)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with torch.no_grad():
        assert same(before, raw_outputs(model, images))


def test_the_current_plan_is_the_trained_one(attached: tuple[Artifact, Plan, Any]) -> None:
    _, plan, model = attached
    found = current_plan(model, plan)
    assert [p.params for p in found.points] == [p.params for p in plan.points]
    assert {p.algorithm for p in found.points} >= {"learned"}


def test_autocast_computes_in_bfloat16_and_keeps_ranges_in_float32(images: torch.Tensor) -> None:
    artifact, plan = planned()
    model = live(artifact)
    quantizers = prepare_qat(model, artifact.graph, plan)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        wide = raw_outputs(model, images)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = raw_outputs(model, images)
        sum((t.float() ** 2).mean() for t in narrow).backward()
    assert any(t.dtype == torch.bfloat16 for t in narrow)
    for a, b in zip(wide, narrow, strict=True):
        assert float((a - b.detach().float()).abs().mean()) < 0.1 * float(a.abs().mean()) + 0.05
    grads = [r.log_ratio.grad for r in quantizers.ranges if r.trainable]
    assert all(g is not None and g.dtype == torch.float32 and bool(torch.isfinite(g).all()) for g in grads)
