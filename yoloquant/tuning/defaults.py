"""What a recipe does at a place where it says nothing: the value that a search of that place is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..pruning.prune_options import PruneOptions
from ..pruning.prune_options import parse as parse_prune
from ..recipe import Recipe, make_recipe
from ..training.qat.qat_options import parse as parse_qat
from ..training.qat.qat_options import range_learning_rate
from .dimensions import Value
from .recipe_keys import Place, value_at, with_values


def default_at(base: Mapping[str, Any], place: Place) -> Value:
    """The value at a place where nothing is searched; what its model, or Ultralytics, takes where nothing is said.

    Args:
        base: Content of a recipe without what is searched.
        place: A place that is searched, and with it the part of the recipe that it belongs to: where an option of
            pruning is searched, every trial prunes.
    """
    found: Any
    try:
        found = value_at(base, place)
    except KeyError:
        found = _unsaid(base, place)
    # enums and tuples as a recipe's YAML has them, which is what choices are compared with
    found = getattr(found, "value", found)
    value: Value = ",".join(found) if isinstance(found, (tuple, list)) else found
    return value


def _unsaid(base: Mapping[str, Any], place: Place) -> Any:
    part = place[0]
    opened = part in ("prune", "train") and not base.get(part)
    # through the recipe's model: it knows every default, also of options that the recipe does not name
    known = make_recipe(with_values(base, {(part,): {}}) if opened else dict(base))
    if place[:2] == ("prune", "arguments"):
        return _fine_tuning(known, place[-1])
    found: Any = known
    for depth, word in enumerate(place, start=1):
        found = found.get(word) if isinstance(found, Mapping) else getattr(found, word, None)
        # a share, a preset or fields, as people write them
        found = _PARSERS[place[:depth]](found) if place[:depth] in _PARSERS else found
    return _LEFT_OPEN[place](known) if found is None and place in _LEFT_OPEN else found


_PARSERS: Mapping[Place, Callable[[Any], Any]] = MappingProxyType(
    {("prune", "options"): parse_prune, ("train", "qat"): parse_qat}
)


def _pruning(recipe: Recipe) -> PruneOptions:
    assert recipe.prune is not None
    return parse_prune(recipe.prune.options)


def _criterion(recipe: Recipe) -> Any:
    options = _pruning(recipe)
    return options.measured_by(options.needs_labels)


def _round_to(recipe: Recipe) -> int:
    from ..pruning.choose_plan import channel_multiple

    return channel_multiple(_pruning(recipe).runtime)


def _range_rate(recipe: Recipe) -> float:
    assert recipe.train is not None
    return range_learning_rate(parse_qat(recipe.train.qat))


_LEFT_OPEN: Mapping[Place, Callable[[Recipe], Any]] = MappingProxyType(
    {
        ("prune", "options", "criterion"): _criterion,
        ("prune", "options", "round_to"): _round_to,
        ("train", "qat", "range_lr"): _range_rate,
    }
)
"""What stands for an option that is decided when pruning or training begins."""


def _fine_tuning(recipe: Recipe, name: str) -> Any:
    """An argument of Ultralytics for the training after pruning."""
    from ..bridge.checkpoint import load_model
    from ..training import host_arguments as host
    from ..training.prune.finetune import EPOCHS, learning_rate

    if name == "lr0":
        return learning_rate(len(load_model(recipe.model, allow_unsafe=recipe.allow_unsafe).names))
    return EPOCHS if name == "epochs" else host.default(name)
