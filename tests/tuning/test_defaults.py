"""What the recipe without any search stands for, also where only the space brings pruning or training in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from core_models import checkpoint

from yoloquant.tuning.defaults import default_at
from yoloquant.tuning.recipe_keys import find_key
from yoloquant.tuning.space import make_space

BASE = {"model": "a.pt", "data": "d.yaml"}


@pytest.mark.parametrize(
    ("base", "name", "value"),
    [
        ({}, "prune", 0.5),
        ({"prune": 0.3}, "prune.criterion", "taylor"),
        ({"prune": {"options": {"loss": "distill"}}}, "prune.criterion", "l2"),
        ({}, "prune.round_to", 16),
        ({"prune": {"options": {"runtime": "onnxruntime", "round_to": 4}}}, "prune.round_to", 4),
        ({}, "prune.epochs", 50),
        ({}, "prune.batch", 16),
        ({"prune": {"arguments": {"batch": 4}}}, "prune.batch", 4),
        ({}, "train", "standard"),
        ({"train": {"qat": {"loss": "both"}}}, "train.loss", "both"),
        ({}, "train.loss", "distill"),
        ({}, "train.range_lr", 1e-3),
        ({"train": {"arguments": {"lr0": 2e-6}}}, "train.lr0", 2e-6),
        ({}, "scheme", "auto"),
        ({}, "images", 128),
    ],
)
def test_defaults_of_keys(base: dict[str, Any], name: str, value: Any) -> None:
    assert default_at({**BASE, **base}, find_key(name).path) == value


def test_the_space_of_pruning_holds_the_defaults(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "best.pt")  # of three classes
    defaults = make_space({**BASE, "model": str(model)}, {}, "prune").defaults
    assert defaults is not None and defaults["prune.options.criterion"] == "taylor"
    assert defaults["prune.arguments.lr0"] == round(0.01 / 7, 6)
