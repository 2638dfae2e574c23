"""Closing channels gives what cutting them gives, and is seen not to where an activation turns zero into something."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from pruning_cases import case
from tiny_models import tiny_images
from torch import nn

from yoloquant.pruning.groups import Group, Groups
from yoloquant.pruning.remove_channels import remove_channels
from yoloquant.sensitivity.masks import close, closed, exact, first_changed

IMAGES = torch.from_numpy(np.concatenate(tiny_images(2)))


def followed(family: str, task: str = "detect") -> tuple[Any, Groups]:
    found = case(family, task)
    return found.module, found.groups


def some(group: Group, share: float, seed: int) -> frozenset[int]:
    rng = np.random.default_rng(seed)
    gone = min(max(1, int(group.count * share)), group.count - 1)
    return frozenset(int(v) for atom in group.atoms for v in rng.choice(atom.labels, gone * atom.step, replace=False))


def raw(module: Any) -> list[torch.Tensor]:
    """Every tensor that the head returns, both branches."""
    twin = copy.deepcopy(module).eval()
    twin.model[-1].training = True
    with torch.no_grad():
        result = twin(IMAGES)
    found: list[torch.Tensor] = []
    stack = [result]
    while stack:
        value = stack.pop()
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict):
            stack.extend(v for k, v in value.items() if k != "feats")
        elif isinstance(value, (list, tuple)):
            stack.extend(value)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family, task", [("yolo11", "detect"), ("yolo12", "detect"), ("yolo26", "segment")])
def test_closed_equals_cut(family: str, task: str) -> None:
    module, groups = followed(family, task)
    whole = raw(module)
    moved = 0
    many = [g for g in groups.groups if g.count > 1]
    chosen = [g for i, g in enumerate(many) if i % 5 == 0 or "qkv" in g.name]  # all would take minutes
    for seed, group in enumerate(chosen):
        # equal parts of one group lose equally many, of whichever atom
        dropped = some(group, 0.5, seed)
        small, masked = copy.deepcopy(module), copy.deepcopy(module)
        remove_channels(small, groups.network, dropped)
        close(masked, groups.network, dropped)
        assert exact(masked, groups.network, dropped, IMAGES), group.name
        for a, b, c in zip(raw(masked), raw(small), whole, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4, msg=lambda m, g=group: f"{g.name}: {m}")
            moved += not torch.equal(a, c)
    assert moved > len(chosen)


def test_the_weights_come_back_bit_by_bit() -> None:
    module, groups = followed("yolo11")
    before = copy.deepcopy(module.state_dict())
    for group in groups.groups:
        with closed(module, groups.network, some(group, 0.5, 0)):
            changed = [k for k, v in module.state_dict().items() if not torch.equal(v, before[k])]
            assert changed, group.name
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_the_first_changed_layer_is_the_first_whose_weights_differ() -> None:
    module, groups = followed("yolo11")
    for group in groups.groups:
        dropped = some(group, 0.5, 0)
        twin = copy.deepcopy(module)
        close(twin, groups.network, dropped)
        old = module.state_dict()
        changed = {int(k.split(".")[1]) for k, v in twin.state_dict().items() if not torch.equal(v, old[k])}
        assert first_changed(module, groups.network, dropped) == min(changed), group.name


def test_an_activation_that_is_not_zero_at_zero_is_noticed() -> None:
    module, groups = followed("yolo11")
    twin = copy.deepcopy(module)
    twin.model[1].act = nn.Sigmoid()  # sigmoid(0) = 0.5
    dropped = some(groups["model.1"], 0.5, 0)
    assert not exact_when_closed(twin, groups, dropped)
    assert exact_when_closed(module, groups, dropped)
    assert exact_when_closed(twin, groups, some(groups["model.0"], 0.5, 0))  # elsewhere it does not matter


def exact_when_closed(module: Any, groups: Groups, dropped: frozenset[int]) -> bool:
    modes = [m.training for m in module.modules()]
    with closed(module, groups.network, dropped):
        found = exact(module, groups.network, dropped, IMAGES)
    assert [m.training for m in module.modules()] == modes
    assert not any(m._forward_pre_hooks for m in module.modules())
    return found
