"""Predicted costs are those that torch itself counts."""

from __future__ import annotations

import copy

import pytest
import torch
from pruning_cases import Choice, case, image, plan_for
from torch.utils.flop_counter import FlopCounterMode

from yoloquant.pruning.criteria import ImportanceCriterion
from yoloquant.pruning.remove_channels import remove_channels
from yoloquant.pruning.trace_channels import raw_twin


def counted(module: torch.nn.Module) -> int:
    """Multiplications that the raw model performs."""
    twin = raw_twin(module)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(image())
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("family", ["yolov8", "yolov9t", "yolo11", "yolo12"])
def test_multiplications_are_those_of_torch(family: str) -> None:
    found = case(family)
    plan = plan_for(found, Choice(0.5, 2, ImportanceCriterion.RANDOM))
    assert plan.before.macs == counted(found.module)
    module = copy.deepcopy(found.module)
    remove_channels(module, found.network, plan.dropped(found.groups))
    assert plan.after.macs == counted(module) < plan.before.macs


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), [("yolov10n", "detect"), ("yolo26", "pose"), ("yolov8", "segment")])
def test_multiplications_of_the_others(family: str, task: str) -> None:
    found = case(family, task)
    plan = plan_for(found, Choice(0.5, 2, ImportanceCriterion.RANDOM))
    module = copy.deepcopy(found.module)
    remove_channels(module, found.network, plan.dropped(found.groups))
    assert (plan.before.macs, plan.after.macs) == (counted(found.module), counted(module))


def test_parameters_are_counted_once_each() -> None:
    found = case("yolo12")
    assert found.costs(found.groups.full()).parameters == sum(p.numel() for p in found.module.parameters())


def test_layers_add_up() -> None:
    found = case("yolov8")  # no products of activations
    plan = plan_for(found)
    assert sum(layer.macs[0] for layer in plan.layers) == plan.before.macs
    assert sum(layer.macs[1] for layer in plan.layers) == plan.after.macs
    assert plan.layers[0].name == "model.0"
    assert plan.layers[0].inputs == (3, 3)


def test_every_unit_lowers_the_cost() -> None:
    found = case("yolo11")
    full = found.groups.full()
    whole = found.costs(full)
    for group in found.groups.groups:
        less = found.costs({**full, group.name: group.count - 1})
        assert less.macs < whole.macs
        assert less.parameters < whole.parameters
