"""BatchNorm statistics taken anew: exactly the average over batches, and nothing else moves."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_images, tiny_yolo
from torch import nn

from yoloquant.errors import PruneError
from yoloquant.pruning.recalibrate_bn import recalibrate_bn
from yoloquant.training.distillation.distill import merged


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_yolo("yolo11").model.float().eval()


def batches(count: int = 3, size: int = 4, seed: int = 0) -> list[torch.Tensor]:
    images = torch.from_numpy(np.concatenate(tiny_images(count * size, seed)))
    return list(images.split(size))


def norms(module: nn.Module) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def test_statistics_are_the_mean_of_the_batches_own(model: Any) -> None:
    twin = copy.deepcopy(model)
    count = recalibrate_bn(twin, batches())
    assert count == len(norms(twin))
    block = twin.model[0]
    with torch.no_grad():
        made = [block.conv(b) for b in batches()]
    mean = torch.stack([m.mean((0, 2, 3)) for m in made]).mean(0)
    variance = torch.stack([m.transpose(0, 1).flatten(1).var(1) for m in made]).mean(0)
    torch.testing.assert_close(block.bn.running_mean, mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(block.bn.running_var, variance, rtol=1e-4, atol=1e-6)


def test_old_statistics_do_not_matter_and_a_second_time_changes_no_bit(model: Any) -> None:
    first, second = copy.deepcopy(model), copy.deepcopy(model)
    for norm in norms(second):
        norm.running_mean.fill_(3.0)
        norm.running_var.fill_(7.0)
    for twin in (first, second):
        recalibrate_bn(twin, batches())
    before = [n.running_mean.clone() for n in norms(first)]
    recalibrate_bn(first, batches())
    for a, b, c in zip(before, norms(first), norms(second), strict=True):
        assert torch.equal(a, b.running_mean) and torch.equal(a, c.running_mean)


def test_nothing_but_statistics_changes(model: Any) -> None:
    twin = copy.deepcopy(model)
    twin.train()
    twin.model[3].eval()
    for norm in norms(twin):
        norm.num_batches_tracked.fill_(41)
    modes = [m.training for m in twin.modules()]
    recalibrate_bn(twin, batches())
    assert [m.training for m in twin.modules()] == modes
    assert all(int(n.num_batches_tracked) == 41 for n in norms(twin))
    assert [n.momentum for n in norms(twin)] == [n.momentum for n in norms(model)]
    for (name, a), b in zip(twin.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b) and a.grad is None and a.requires_grad == b.requires_grad, name


@pytest.mark.parametrize("family", ["yolov10n", "yolo26"])
def test_both_branches_of_a_head_are_reached(family: str) -> None:
    twin = tiny_yolo(family).model.float().eval()
    assert recalibrate_bn(twin, batches(1)) == len(norms(twin))


def test_a_folded_model_is_left_alone(model: Any) -> None:
    twin = merged(copy.deepcopy(model))
    assert not norms(twin)
    before = copy.deepcopy(twin.state_dict())
    assert recalibrate_bn(twin, batches(1)) == 0
    assert all(torch.equal(v, before[k]) for k, v in twin.state_dict().items())


def test_a_layer_that_no_image_reaches_keeps_its_statistics() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
            self.idle.running_mean.fill_(5.0)

        def forward(self, x: torch.Tensor) -> Any:
            return self.used(x)

    module = Idle()
    assert recalibrate_bn(module, batches(1)) == 1
    assert torch.equal(module.idle.running_mean, torch.full((3,), 5.0))
    assert not torch.equal(module.used.running_mean, torch.zeros(3))


@pytest.mark.parametrize("found", [[], [torch.full((2, 3, 64, 64), float("nan"))]])
def test_bad_images_leave_the_model_as_it_was(model: Any, found: list[torch.Tensor]) -> None:
    twin = copy.deepcopy(model)
    with pytest.raises(PruneError, match=r"at least one batch|NaN"):
        recalibrate_bn(twin, found)
    before = model.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in twin.state_dict().items())
    assert [m.training for m in twin.modules()] == [m.training for m in model.modules()]
