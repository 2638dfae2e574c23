"""Magnitude masks zero exactly the smallest weights that may go, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from core_models import family_model, tiny_host
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from yoloquant.errors import PruneError, UsageError
from yoloquant.sparsity.sparse_layers import sparse_layers
from yoloquant.sparsity.unstructured import (
    Sparsity,
    SparsityScope,
    apply_masks,
    magnitude_masks,
    masks_of,
    sparsity_report,
)


def model() -> Any:
    return copy.deepcopy(tiny_host().module)


class Two(nn.Module):
    """Two layers behind a first one, the second with weights a thousand times larger."""

    def __init__(self, first: int = 8, second: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 1)
        self.small = nn.Linear(first, 4)
        self.large = nn.Linear(second, 4)
        self.large.weight.data.mul_(1000)


@pytest.mark.parametrize("scope", list(SparsityScope))
@settings(max_examples=15, deadline=None)
@given(amount=st.floats(0, 0.75))
def test_exactly_the_smallest_weights_go(scope: SparsityScope, amount: float) -> None:
    module = model()
    masks = magnitude_masks(module, Sparsity(amount, scope))
    layers, _ = sparse_layers(module)
    assert set(masks) == set(layers)
    parts = [list(masks)] if scope is SparsityScope.GLOBAL else [[name] for name in masks]
    for part in parts:
        values = torch.cat([layers[n].detach().abs().flatten() for n in part])
        kept = torch.cat([masks[n].flatten() for n in part])
        assert int((~kept).sum()) == round(amount * len(kept))
        if (~kept).any() and kept.any():
            assert values[~kept].max() <= values[kept].min()


def test_global_takes_from_small_weights_and_layer_from_each() -> None:
    module = Two(first=20, second=12)
    total = magnitude_masks(module, Sparsity(0.5, SparsityScope.GLOBAL))
    assert int((~total["small.weight"]).sum()) == 64 and bool(total["large.weight"].all())
    each = magnitude_masks(module, Sparsity(0.5, SparsityScope.LAYER))
    assert [int((~m).sum()) for m in each.values()] == [40, 24]


def test_equal_weights_are_counted_exactly() -> None:
    module = Two()
    nn.init.ones_(module.small.weight)
    nn.init.ones_(module.large.weight)
    masks = magnitude_masks(module, Sparsity(0.25))
    assert sum(int((~m).sum()) for m in masks.values()) == 16
    assert bool(masks["small.weight"].all())  # the first of equals stay


def test_what_is_masked_stays_masked() -> None:
    """Even where a masked weight has become the largest of all."""
    module = model()
    held = magnitude_masks(module, Sparsity(0.3))
    for name, mask in held.items():
        module.get_parameter(name).data[~mask] = 100.0
    later = magnitude_masks(module, Sparsity(0.6), held)
    assert all(not bool((later[n] & ~held[n]).any()) for n in held)


def test_applied_masks_are_read_back() -> None:
    module = model()
    masks = magnitude_masks(module, Sparsity(0.5))
    apply_masks(module, masks)
    found = masks_of(module)
    assert set(found) == {n for n, m in masks.items() if not m.all()}
    assert all(torch.equal(found[n], masks[n]) for n in found)
    report = sparsity_report(module)
    assert report.share == pytest.approx(0.5, abs=1e-3)
    assert {x.name: x.zeros for x in report.layers} == {n: int((~m).sum()) for n, m in masks.items()}
    plain = report.to_plain()
    assert plain["share"] == report.share and len(plain["layers"]) == len(masks)


def test_a_dense_model_has_no_masks() -> None:
    assert masks_of(model()) == {} and sparsity_report(model()).share == 0.0


@pytest.mark.parametrize("family", ["yolo11", "yolo26", "yolov9t"])
def test_outer_layers_and_constants_stay_dense(family: str) -> None:
    module = family_model(family).module
    layers, skipped = sparse_layers(module)
    reasons = {s.name: s.reason for s in skipped}
    weighted = {f"{n}.weight" for n, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert set(layers) | set(reasons) == weighted and not set(layers) & set(reasons)
    head = f"model.{len(module.model) - 1}"
    assert reasons["model.0.conv.weight"] == "first convolution"
    for branch in ("cv2", "cv3", *(("one2one_cv2", "one2one_cv3") if family == "yolo26" else ())):
        assert all(reasons[f"{head}.{branch}.{i}.2.weight"] == "last layer of the head" for i in range(3))
        assert f"{head}.{branch}.1.0.conv.weight" in layers or f"{head}.{branch}.1.0.0.conv.weight" in layers
    if family != "yolo26":
        assert reasons[f"{head}.dfl.conv.weight"].startswith("DFL")
    branched = [n for n, r in reasons.items() if "re-parametrizable" in r]
    assert bool(branched) is (family == "yolov9t")


def test_branches_may_be_sparse_once_they_are_merged() -> None:
    from yoloquant.training.qat.prepare import merge_branches

    module = copy.deepcopy(family_model("yolov9t").module)
    before, _ = sparse_layers(module)
    merge_branches(module)
    after, skipped = sparse_layers(module)
    assert set(before) < set(after)
    assert not any("re-parametrizable" in s.reason for s in skipped)


def test_ignored_patterns_stay_dense() -> None:
    module = model()
    masks = magnitude_masks(module, Sparsity(0.5, ignored=("model.2.*", "model.4.cv1.conv.weight")))
    assert not [n for n in masks if n.startswith("model.2.") or n == "model.4.cv1.conv.weight"]
    with pytest.raises(PruneError, match=r"'model\.99\.\*' matches no"):
        magnitude_masks(module, Sparsity(0.5, ignored=("model.99.*",)))
    with pytest.raises(PruneError, match="none of the model's"):
        magnitude_masks(module, Sparsity(0.5, ignored=("*",)))


@pytest.mark.parametrize("amount", [-0.1, 1, 1.5, float("nan"), "half"])
def test_an_amount_out_of_range_is_refused(amount: Any) -> None:
    with pytest.raises(UsageError, match="below 1"):
        Sparsity(amount)


def test_a_scope_must_be_known() -> None:
    with pytest.raises(UsageError, match="allowed are global, layer"):
        Sparsity(0.5, "everywhere")  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", list(SparsityScope))
def test_an_emptied_layer_is_refused_with_the_largest_amount(scope: SparsityScope) -> None:
    module = Two(first=12, second=20)
    with pytest.raises(PruneError, match=r"small\.weight without any weight") as caught:
        magnitude_masks(module, Sparsity(0.99, scope))
    possible = float(str(caught.value).split("largest amount is ")[1].split(". ")[0])
    masks = magnitude_masks(module, Sparsity(possible, scope))
    assert all(bool(m.any()) for m in masks.values())
    with pytest.raises(PruneError):
        magnitude_masks(module, Sparsity(min(possible + 0.03, 0.9999), scope))


def test_masks_that_do_not_fit_change_nothing() -> None:
    module = model()
    before = copy.deepcopy(module.state_dict())
    masks = magnitude_masks(module, Sparsity(0.5))
    name = list(masks)[-1]
    for wrong, message in (
        ({**masks, name: masks[name][:-1]}, r"has shape \(.*\), the weight \("),
        ({**masks, "model.77.conv.weight": masks[name]}, "no such parameter"),
        ({**masks, name: masks[name].float()}, "torch.bool"),
    ):
        with pytest.raises(PruneError, match=message):
            apply_masks(module, wrong)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
