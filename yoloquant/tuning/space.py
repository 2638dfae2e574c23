"""The space of a study: which values of a recipe are searched, over what, and which are fixed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .. import targets
from ..errors import UsageError
from ..recipe import Recipe, make_recipe
from ..runtime.core.nearest import nearest
from ..targets.schemes import resolve_schemes
from .defaults import default_at
from .dimensions import EXAMPLES, Dimension, Value, is_search, parse_dimension
from .ready_made import SPACES
from .recipe_keys import Place, RecipeKey, find_key, with_values

if TYPE_CHECKING:
    from optuna.trial import Trial

SCHEME_OF_TRAINING = "with train the scheme that is trained counts: train.qat.scheme"


@dataclass(frozen=True)
class SearchSpace:
    """A recipe, some of whose values are open.

    Attributes:
        base: Content of the recipe without them.
        dimensions: What each open value is searched over, by its place.
    """

    base: Mapping[str, Any]
    dimensions: Mapping[Place, Dimension]

    @property
    def text(self) -> dict[str, str]:
        """Every dimension as one writes it, by name."""
        return {".".join(path): each.text for path, each in self.dimensions.items()}

    @cached_property
    def defaults(self) -> dict[str, Value] | None:
        """What the recipe without any search stands for; None where that is outside of the space.

        Of pruning that only the space brings in, its own defaults.
        """
        values: dict[str, Value] = {}
        for path, each in self.dimensions.items():
            value = default_at(self.base, path)
            if not each.holds(value):
                return None
            values[".".join(path)] = value
        return values

    def content(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The recipe's content with values in their places.

        Args:
            values: A value for every dimension, by name.
        """
        return with_values(self.base, {tuple(name.split(".")): value for name, value in values.items()})

    def recipe(self, values: Mapping[str, Value]) -> Recipe:
        """The recipe that these values make.

        Raises:
            UsageError: They do not go together.
        """
        return make_recipe(self.content(values), "trial")

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """Let Optuna choose a value for every dimension."""
        return {".".join(path): each.suggest(trial, ".".join(path)) for path, each in self.dimensions.items()}

    def grid(self, points: int) -> dict[str, list[Value]]:
        """Values of every dimension, of ranges at most so many."""
        return {".".join(path): each.grid(points) for path, each in self.dimensions.items()}

    def grid_size(self, points: int) -> int:
        """How many recipes that makes."""
        return math.prod(map(len, self.grid(points).values()))


def make_space(content: Mapping[str, Any], given: Mapping[str, Any], ready_made: str = "") -> SearchSpace:
    """The space that a recipe, a ready-made space and single keys make; each overrides the one before.

    Args:
        content: A recipe's content, which may hold ranges and choices as texts.
        given: Values, ranges and choices by name, see ``find_key``.
        ready_made: One of ``SPACES``, or none.

    Raises:
        UsageError: A key is unknown or cannot be searched, a range is empty or inverted, a value is not supported, or
            nothing is searched at all.
    """
    # later ones win: single keys are the nearest to what somebody wants
    base, dimensions = dict(content), dict(_ready_made(ready_made))
    for path, value in _leaves(content):
        text = str(value)
        # not number: of a recipe's file only what is plainly a range is one; "a..b" of letters stays a text
        if is_search(value, number=False) and path[0] in Recipe.model_fields:
            key = find_key(".".join(path))
            base = _without(base, path)
            dimensions[key.path] = _dimension(key, ".".join(path), text)
        else:
            # a value that is stated is fixed, also where the ready-made space would vary it
            dimensions.pop(path, None)
    for name, value in given.items():
        key = find_key(name)
        # a text with two dots may simply be a value of what cannot be searched, for instance a path
        if is_search(value, key.number) and not (key.why_fixed and "|" not in str(value)):
            dimensions[key.path] = _dimension(key, name, str(value))
            base = _without(base, key.path)
        else:
            dimensions.pop(key.path, None)
            base = with_values(base, {key.path: value})
    if not dimensions:
        raise UsageError(
            f"nothing is searched: {EXAMPLES} to a value of the recipe, or space={'|'.join(SPACES)}; for example "
            "images='32|64|128'"
        )
    # sorted: Optuna's samplers draw in the order of suggestions, and the same seed must give the same trials
    dimensions = {path: dimensions[path] for path in sorted(dimensions)}
    _check_values(base, dimensions)
    return SearchSpace(base, dimensions)


def _ready_made(name: str) -> dict[Place, Dimension]:
    if not name:
        return {}
    if name not in SPACES:
        raise UsageError(f"space='{name}' is not known{nearest(name, SPACES)}")
    keys = {find_key(each): text for each, text in SPACES[name].items()}
    return {key.path: _dimension(key, key.name, text) for key, text in keys.items()}


def _dimension(key: RecipeKey, name: str, text: str) -> Dimension:
    if key.why_fixed:
        raise UsageError(f"{name}={text} cannot be searched: {key.why_fixed}")
    return parse_dimension(name, text, number=key.number, whole=key.whole)


def _leaves(content: Mapping[str, Any], path: Place = ()) -> list[tuple[Place, Any]]:
    leaves: list[tuple[Place, Any]] = []
    for name, value in content.items():
        here = (*path, str(name))
        leaves += _leaves(value, here) if isinstance(value, Mapping) else [(here, value)]
    return leaves


def _without(content: Mapping[str, Any], path: Place) -> dict[str, Any]:
    found = dict(content)
    head, *rest = path
    if head in found:
        if rest and isinstance(found[head], Mapping):
            found[head] = _without(found[head], tuple(rest))
        else:
            del found[head]
    return found


def _check_values(base: Mapping[str, Any], dimensions: Mapping[Place, Dimension]) -> None:
    """Hold every choice, and both ends of every range, against the option models."""
    # the other dimensions need some value for the recipe to be whole
    first = {path: each.ends[0] for path, each in dimensions.items()}
    for path, each in dimensions.items():
        # enough for a range: the option models bound numbers from below and above
        for value in each.ends:
            if path[1:2] == ("arguments",):
                from ..training.host_arguments import check_value

                check_value(path[-1], value)
            made = make_recipe(with_values(base, {**first, path: value}), f"{'.'.join(path)}={each.text}")
            # names of schemes and targets are texts to the recipe; a wrong one would fail in every trial
            resolve_schemes(made.scheme)
            targets.resolve(made.targets)
    # refused, not ignored: every trial would look different and be the same
    if ("scheme",) in dimensions and ("train" in base or any(path[0] == "train" for path in dimensions)):
        raise UsageError(f"scheme= cannot be searched here: {SCHEME_OF_TRAINING}")
