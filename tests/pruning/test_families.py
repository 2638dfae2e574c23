"""Every family and task stays whole under pruning, whatever is chosen."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from pruning_cases import (
    SIZE,
    Case,
    Choice,
    case,
    case_of,
    choices,
    image,
    plan_for,
    predictions,
    raw,
    silence,
    tensors,
    whole_plan,
)
from tiny_models import FAMILIES, TASKS, by_age, tiny_yolo

from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.exportable import exportable
from yoloquant.bridge.host_model import model_info
from yoloquant.graph.trace import trace
from yoloquant.pruning.criteria import ImportanceCriterion
from yoloquant.pruning.plan import PrunePlan
from yoloquant.pruning.remove_channels import pruned, remove_channels

OTHERS = [
    *((f, t) for f in ("yolov8", "yolo11", "yolo26") for t in TASKS if t != "detect"),
    ("yolo12", "segment"),
]
WILD = Choice(0.5, 1, ImportanceCriterion.RANDOM, max_ratio=0.97)
few = settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
slow = pytest.mark.slow


def smaller(found: Case, plan: PrunePlan) -> Any:
    """The pruned model, without following its channels again."""
    module = copy.deepcopy(found.module)
    remove_channels(module, found.network, plan.dropped(found.groups))
    return module


def check_widths(found: Case, plan: PrunePlan, round_to: int) -> None:
    """No part of a group is empty, and whatever lost channels keeps a multiple of ``round_to``."""
    for entry in plan.entries:
        group = found.groups[entry.group]
        for atom in group.atoms:
            assert entry.after * atom.step > 0
            if entry.after < entry.before:
                assert entry.after * atom.step % round_to == 0
    dropped = plan.dropped(found.groups)
    for split in found.network.equal:
        widths = {sum(label not in dropped for label in part) for part in split.parts}
        assert len(widths) == 1 and widths != {0}


def check_layers(found: Case, module: Any, plan: PrunePlan) -> None:
    """Layers have the widths that the plan prints, and sizes that fit their tensors."""
    layers = dict(module.named_modules())
    for cost in plan.layers:
        layer = layers.get(f"{cost.name}.conv", layers[cost.name])
        shape = tuple(layer.weight.shape)
        if isinstance(layer, torch.nn.Linear):
            assert (layer.out_features, layer.in_features) == shape == (cost.outputs[1], cost.inputs[1])
            continue
        made = (layer.in_channels, layer.out_channels) if layer.transposed else (layer.out_channels, layer.in_channels)
        assert shape[:2] == (made[0], made[1] // layer.groups)
        assert (layer.in_channels, layer.out_channels) == (cost.inputs[1], cost.outputs[1])
        if layer.bias is not None:
            assert len(layer.bias) == layer.out_channels


def check_exact(found: Case, choice: Choice) -> None:
    """Taking out channels that are silent changes nothing but the order of sums."""
    plan = plan_for(found, choice)
    silent = copy.deepcopy(found.module)
    silence(silent, found.network, plan.dropped(found.groups))
    less = copy.deepcopy(silent)
    remove_channels(less, found.network, plan.dropped(found.groups))
    x = image()
    before, after, untouched = raw(silent, x), raw(less, x), raw(found.module, x)
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(b, a, atol=3e-6, rtol=1e-5)
    assert max(float((a - b).abs().max()) for a, b in zip(before, untouched, strict=True)) > 0.01  # it did matter


@pytest.mark.parametrize("family", by_age(FAMILIES))
def test_taking_out_silent_channels_is_exact(family: str) -> None:
    check_exact(case(family), WILD)


@slow
@pytest.mark.parametrize(("family", "task"), by_age(OTHERS, recent=["yolo11"]))
def test_taking_out_silent_channels_is_exact_for_other_tasks(family: str, task: str) -> None:
    check_exact(case(family, task), WILD)


@pytest.mark.parametrize("family", by_age(FAMILIES))
@given(choice=choices)
@few
def test_any_choice_leaves_a_model_that_answers_alike(family: str, choice: Choice) -> None:
    found = case(family)
    plan = plan_for(found, choice)
    module = smaller(found, plan)
    check_widths(found, plan, choice.round_to)
    check_layers(found, module, plan)
    assert plan.after.parameters == sum(p.numel() for p in module.parameters())
    assert predictions(module, image()).shape == predictions(found.module, image()).shape
    assert [t.shape for t in raw(module, image())] == [t.shape for t in raw(found.module, image())]


@slow
@pytest.mark.parametrize(("family", "task"), by_age(OTHERS, recent=["yolo11"]))
@given(choice=choices)
@few
def test_other_tasks_too(family: str, task: str, choice: Choice) -> None:
    found = case(family, task)
    plan = plan_for(found, choice)
    module = smaller(found, plan)
    check_widths(found, plan, choice.round_to)
    check_layers(found, module, plan)
    assert plan.after.parameters == sum(p.numel() for p in module.parameters())
    assert [t.shape for t in raw(module, image())] == [t.shape for t in raw(found.module, image())]
    assert all(bool(t.isfinite().all()) for t in raw(module, image()))


def check_life(found: Case, folder: Path) -> None:
    """Predicted costs are those of the new model, which can be saved, loaded, fused, traced and pruned again."""
    plan = plan_for(found, Choice(0.4, 4))
    module = pruned(found.module, plan).eval()
    again = case_of(module)
    assert again.costs(again.groups.full()) == plan.after
    expected = predictions(copy.deepcopy(module).half().float(), image())  # what Ultralytics writes has 16 bits
    loaded = load_model(saved(module, folder))
    assert torch.equal(predictions(loaded.module, image()), expected)
    info = model_info(loaded, SIZE)
    fused = exportable(loaded, info)
    graph = trace(fused, info)
    with torch.no_grad():
        answer = graph.module(image())
        torch.testing.assert_close(tensors(answer)[0], tensors(fused(image()))[0], atol=1e-4, rtol=1e-4)
    second = plan_for(again, Choice(0.2, 2, ImportanceCriterion.L1))
    twice = pruned(module, second)
    assert sum(p.numel() for p in twice.parameters()) == second.after.parameters < plan.after.parameters
    assert [t.shape for t in raw(twice, image())] == [t.shape for t in raw(found.module, image())]
    assert len(twice.yoloquant_pruned) == 2


def saved(module: Any, folder: Path) -> Path:
    """The file that Ultralytics itself writes of a model."""
    yolo = tiny_yolo()
    yolo.model, path = module, folder / "pruned.pt"
    yolo.save(str(path))
    return path


def test_a_pruned_model_lives_on(tmp_path: Path) -> None:
    check_life(case("yolo11"), tmp_path)


@slow
@pytest.mark.parametrize("family", by_age(f for f in FAMILIES if f != "yolo11"))
def test_pruned_models_of_every_family_live_on(family: str, tmp_path: Path) -> None:
    check_life(case(family), tmp_path)


@slow
@pytest.mark.parametrize(("family", "task"), [("yolo11", "classify"), ("yolo11", "obb"), ("yolo26", "segment")])
def test_pruned_models_of_other_tasks_live_on(family: str, task: str, tmp_path: Path) -> None:
    check_life(case(family, task), tmp_path)


@pytest.mark.parametrize("family", ["yolov8", "yolo12"])
def test_removing_nothing_changes_nothing(family: str) -> None:
    found = case(family)
    module = smaller(found, whole_plan(found))
    for (name, a), (_, b) in zip(found.module.state_dict().items(), module.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(predictions(module, image()), predictions(found.module, image()))
