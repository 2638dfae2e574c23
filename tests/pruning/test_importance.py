"""Criteria against their definitions, written as plain loops."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
from pruning_cases import case
from torch import nn

from yoloquant.errors import PruneError
from yoloquant.pruning.criteria import ImportanceCriterion
from yoloquant.pruning.groups import find_groups
from yoloquant.pruning.importance import channel_scores, units
from yoloquant.pruning.trace_channels import trace_channels

FAMILY = "yolov8"


class Small(nn.Module):
    """Two layers with BatchNorm, one without, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        bare = nn.ConvTranspose2d(6, 5, 2, 2)
        self.model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), bare)
        self.model.append(nn.Conv2d(5, 2, 1))
        for m in self.modules():
            if isinstance(m, nn.BatchNorm2d):
                nn.init.normal_(m.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)  # type: ignore[no-any-return]


def by_layer(module: nn.Module, scores: dict[int, float], groups) -> dict[str, list[float]]:  # type: ignore[no-untyped-def]
    """Scores of the channels that each layer makes."""
    return {c.parameter: [scores[v] for v in c.writes] for c in groups.network.convs if c.writes[0] in groups.owner}


@pytest.mark.parametrize(("criterion", "power"), [(ImportanceCriterion.L1, 1), (ImportanceCriterion.L2, 2)])
def test_norms(criterion: ImportanceCriterion, power: int) -> None:
    module = Small().eval()
    groups = find_groups(trace_channels(module, (8, 8)))
    found = by_layer(module, channel_scores(module, groups, criterion), groups)
    a, b, up, head = (module.model[i].weight.detach().double() for i in (0, 2, 4, 5))
    chains = {
        "model.0.weight": (8, a, 0, b, 1),
        "model.2.weight": (6, b, 0, up, 0),
        "model.4.weight": (5, up, 1, head, 1),
    }
    for name, (width, made, made_axis, read, read_axis) in chains.items():
        sums = []
        for weight, axis in ((made, made_axis), (read, read_axis)):
            norms = [float(weight.select(axis, i).abs().pow(power).sum()) for i in range(width)]
            sums.append([n / (sum(norms) / width) for n in norms])
        total = [x + y for x, y in zip(*sums, strict=True)]
        assert found[name] == pytest.approx([t / (sum(total) / width) for t in total])


def test_lamp() -> None:
    module = Small().eval()
    groups = find_groups(trace_channels(module, (8, 8)))
    squares = by_layer(module, channel_scores(module, groups, ImportanceCriterion.L2), groups)
    found = by_layer(module, channel_scores(module, groups, ImportanceCriterion.LAMP), groups)
    for name, values in squares.items():
        expected = [v / sum(w for w in values if w >= v) for v in values]
        assert found[name] == pytest.approx(expected)
        assert max(found[name]) == pytest.approx(1.0)  # the largest of every layer stays to the end


def test_batchnorm_scales_and_layers_without_any() -> None:
    module = Small().eval()
    groups = find_groups(trace_channels(module, (8, 8)))
    found = by_layer(module, channel_scores(module, groups, ImportanceCriterion.BN), groups)
    first, second = (module.model[i].weight.detach().abs().tolist() for i in (1, 3))
    assert found["model.0.weight"] == pytest.approx(first)
    assert found["model.2.weight"] == pytest.approx(second)
    weights = by_layer(module, channel_scores(module, groups, ImportanceCriterion.L2), groups)["model.4.weight"]
    mean = sum(first + second) / len(first + second)
    assert found["model.4.weight"] == pytest.approx([mean * w for w in weights])


def test_batchnorm_scales_add_up_over_a_group() -> None:
    found = case(FAMILY)
    scores = channel_scores(found.module, found.groups, ImportanceCriterion.BN)
    expected: dict[int, float] = defaultdict(float)
    layers = dict(found.module.named_modules())
    for member in found.network.dims:
        path, _, name = member.parameter.rpartition(".")
        if name == "weight" and isinstance(layers[path], nn.BatchNorm2d):
            for label, scale in zip(member.labels, layers[path].weight.abs().tolist(), strict=True):
                expected[label] += scale
    assert all(scores[label] == pytest.approx(expected[label]) for label in scores)


def test_taylor_takes_the_gates() -> None:
    found = case(FAMILY)
    gates = {
        f"{n}.weight": torch.rand(len(m.weight), generator=torch.Generator().manual_seed(i))
        for i, (n, m) in enumerate(found.module.named_modules())
        if isinstance(m, nn.BatchNorm2d)
    }
    scores = channel_scores(found.module, found.groups, ImportanceCriterion.TAYLOR, gradients=gates)
    expected: dict[int, float] = defaultdict(float)
    for member in found.network.dims:
        for label, value in zip(member.labels, gates.get(member.parameter, torch.zeros(0)).tolist(), strict=False):
            expected[label] += value
    assert all(scores[label] == pytest.approx(expected[label]) for label in scores)


def test_taylor_without_gradients_is_refused() -> None:
    found = case(FAMILY)
    with pytest.raises(PruneError, match="criterion=taylor needs data"):
        channel_scores(found.module, found.groups, ImportanceCriterion.TAYLOR)


def test_bn_without_batchnorm_is_refused() -> None:
    module = nn.Module()
    module.model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    module.forward = module.model.forward  # type: ignore[method-assign]
    groups = find_groups(trace_channels(module, (8, 8)))
    with pytest.raises(PruneError, match="needs BatchNorm layers"):
        channel_scores(module, groups, ImportanceCriterion.BN)


def test_random_depends_on_its_seed_alone() -> None:
    found = case(FAMILY)
    one, same, other = (
        channel_scores(found.module, found.groups, ImportanceCriterion.RANDOM, seed=s) for s in (1, 1, 2)
    )
    assert one == same != other
    assert 0.4 < np.mean(list(one.values())) < 0.6


@pytest.mark.parametrize("criterion", [ImportanceCriterion.L2, ImportanceCriterion.LAMP, ImportanceCriterion.RANDOM])
def test_units_go_in_the_order_of_their_scores(criterion: ImportanceCriterion) -> None:
    found = case(FAMILY)
    scores = channel_scores(found.module, found.groups, criterion)
    order, ranked = units(found.groups, scores)
    for group in found.groups.groups:
        values = [u.score for u in ranked if u.group == group.name]
        assert len(values) == group.count
        assert values == sorted(values)
        for atom, positions in zip(group.atoms, order[group.name], strict=True):
            assert sorted(positions) == list(range(len(atom.labels)))
            along = [scores[atom.labels[i]] for i in positions]
            assert along == sorted(along)


def test_numbers_that_are_none_are_refused() -> None:
    found = case(FAMILY)
    scores = channel_scores(found.module, found.groups, ImportanceCriterion.L2)
    scores[next(iter(scores))] = float("nan")
    with pytest.raises(PruneError, match="is NaN or infinite"):
        units(found.groups, scores)
