"""A pruned model knows which channels of the unpruned one it still has."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from pruning_cases import Choice, case, case_of, plan_for, silence
from tiny_models import tiny_images, tiny_yolo

from yoloquant.pruning.blocks import without_blocks
from yoloquant.pruning.criteria import ImportanceCriterion
from yoloquant.pruning.metadata import RECORD, kept_channels
from yoloquant.pruning.remove_channels import pruned


@pytest.mark.parametrize("family", ["yolov8", "yolo12", "yolo26"])
def test_what_is_left_of_every_block_is_known_after_two_prunings(family: str) -> None:
    found = case(family)
    once = pruned(found.module, plan_for(found, Choice(0.3, 1, ImportanceCriterion.RANDOM)))
    again = case_of(once)
    twice = pruned(once, plan_for(again, Choice(0.3, 2, ImportanceCriterion.L1)))
    before = dict(found.module.named_modules())
    kept = kept_channels(twice)
    blocks = {p.removesuffix(".bn") for p, m in twice.named_modules() if p.endswith(".bn")}
    assert set(kept) == blocks
    for path, (size, positions) in kept.items():
        old, new = before[f"{path}.bn"], twice.get_submodule(f"{path}.bn")
        assert size == old.num_features and len(positions) == new.num_features
        assert torch.equal(new.running_mean, old.running_mean[list(positions)])
        assert torch.equal(new.running_var, old.running_var[list(positions)])
    assert any(len(positions) < size for size, positions in kept.values())
    json.dumps(getattr(twice, RECORD))


def test_a_model_that_was_never_pruned_has_all_channels() -> None:
    module = case().module
    kept = kept_channels(module)
    assert kept and all(positions == tuple(range(size)) for size, positions in kept.values())


def test_models_that_were_pruned_before_channels_were_recorded_tell_nothing() -> None:
    found = case()
    module = pruned(found.module, plan_for(found))
    del getattr(module, RECORD)[0]["channels"]
    assert kept_channels(module) == {}


def test_blocks_beside_one_that_was_taken_out_are_not_compared() -> None:
    module = tiny_yolo().model.float().eval()
    smaller, (gone,) = without_blocks(module, 1, list(tiny_images(2)), (64, 64))
    holder = gone.path.rpartition(".")[0] + "."
    everything, kept = kept_channels(module), kept_channels(smaller)
    assert set(kept) == {p for p in everything if not p.startswith(holder)} < set(everything)


def test_channels_that_are_left_compute_what_they_did_where_the_others_were_silent() -> None:
    """What is compared is the same thing: with the others' channels at zero, nothing has changed."""
    found: Any = case()
    plan = plan_for(found, Choice(0.4, 2))
    dropped = plan.dropped(found.groups)
    silent = copy.deepcopy(found.module)
    silence(silent, found.network, dropped)
    smaller = pruned(found.module, plan)
    maps: dict[str, dict[str, torch.Tensor]] = {"theirs": {}, "ours": {}}

    def keep(which: str, path: str) -> Any:
        return lambda module, args, result: maps[which].__setitem__(path, result)

    kept = kept_channels(smaller)
    for which, model in (("theirs", silent), ("ours", smaller)):
        for path in kept:
            model.get_submodule(path).register_forward_hook(keep(which, path))
        with torch.no_grad():
            model.eval()(torch.from_numpy(next(iter(tiny_images(1)))))
    assert set(maps["ours"]) == set(kept)
    for path, (_, positions) in kept.items():
        torch.testing.assert_close(
            maps["ours"][path], maps["theirs"][path][:, list(positions)], rtol=1e-4, atol=1e-4, msg=path
        )
