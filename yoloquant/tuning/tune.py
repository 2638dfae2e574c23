"""A study over a recipe: search, look again at the best, choose, and run what was chosen."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import targets as registry
from ..bridge.checkpoint import load_model
from ..cluster import connected
from ..errors import ModelError, TrainingError, UsageError
from ..evaluation.gate import load_gate
from ..io import output_folder
from ..options.where import Where
from ..pipeline import RunResult, Silent, judged_on, run
from ..recipe import Recipe, make_recipe, recipe_content
from ..types import Listener, Progress
from .dimensions import Value
from .held_back import hold_back
from .objectives import Objective
from .page import write_page
from .plots import write_plots
from .ray_trials import RayTrials
from .results import TuneResult, pick, records, write_recipe, write_trials
from .search import Evaluate, TrialSearch, storage_errors
from .space import SearchSpace, make_space
from .studied import Studied
from .study import require_optuna, storage_url
from .trial_recipes import TrialRecipes
from .tune_options import Sampler, Stopper, TuneOptions

if TYPE_CHECKING:
    import optuna

_SCORED = "scored"
_LARGEST_GRID = 100_000
"""Recipes; Optuna holds all of a grid's in memory, and ``space=all`` has thousands of millions."""


def tune(
    recipe: Recipe | str | os.PathLike[str] | None,
    given: Mapping[str, Any],
    options: TuneOptions,
    listener: Listener | None = None,
) -> TuneResult:
    """Search the values of a recipe.

    Args:
        recipe: A recipe or the path of one, whose values may be ranges and choices; None for ``given`` alone.
        given: Values, ranges and choices on top of it, by name.
        options: Objectives, sampler and budget.
        listener: Told of every stage and its progress.

    Returns:
        Every trial and the chosen one. A study of the same name in the same storage is taken up where it was left.

    Raises:
        UsageError: A key is unknown, a range is empty, an objective cannot be measured here, or another study
            has the name.
        YoloquantError: See ``run``; and TrainingError where not one trial was measured.
    """
    listener = listener or Silent()
    studied, evaluate = set_up(recipe, given, options)
    options = studied.options
    if Objective.MAP_DROP in options.measured and _part_is(studied.space, "prune"):
        listener.note(
            "map_drop is of held-back training images: if the model has learned them, pruned ones lose more there than "
            "on new images; compare it with the default recipe's"
        )
    deadline = math.inf if options.hours is None else time.monotonic() + 3600 * options.hours
    # one cluster for both looks, whose workers keep what they have computed; the chosen recipe is run without it
    with connected(options.address) if options.on is Where.RAY else nullcontext():
        # behind the cluster, whose absence must leave no study; another study of this name is refused here
        study = studied.open()
        second = studied.open(again=True) if options.looks_twice else None
        with listener.stage("searching") as progress:
            _searched(studied, evaluate, progress, deadline)
        if second is not None:
            # few images can only rank roughly: of several good ones the better is known after this
            best = TrialSearch(study, studied.space, options, evaluate).best[: options.again]
            chosen = [t.params for t in best]
            with listener.stage("measuring the best with everything") as progress:
                _looked_again(studied, evaluate, second, chosen, progress, deadline)
    return _finished(studied, study, second, listener)


def set_up(
    recipe: Recipe | str | os.PathLike[str] | None, given: Mapping[str, Any], options: TuneOptions
) -> tuple[Studied, TrialRecipes]:
    """Check everything that can be refused before the first trial, and hold images back.

    Raises:
        YoloquantError: See ``tune``.
    """
    require_optuna()
    space = make_space(recipe_content(recipe), given, options.space or "")
    known = make_recipe(dict(space.base))
    # its content is the study's identity, so a name that Ultralytics would download is not enough
    if not Path(known.model).is_file():
        raise ModelError(f"checkpoint '{known.model}' does not exist")
    registry.resolve(known.targets)
    # its file is read again after the last trial, when a typing error would cost the whole study
    load_gate(known.validation.gate)
    options = _stopper(options, space)
    if options.default_drop and (space.defaults is None or options.sampler is Sampler.GRID):
        raise UsageError(
            "default_drop=true needs the recipe without any search among the trials, which this space or sampler=grid "
            "leaves out; give drop=, or ranges and choices that hold the defaults"
        )
    if options.sampler is Sampler.GRID and (size := space.grid_size(options.grid)) > _LARGEST_GRID:
        raise UsageError(
            f"sampler=grid has {size} recipes here, allowed are {_LARGEST_GRID}; search fewer values, give a smaller "
            "grid=, or leave sampler= out"
        )
    folder = output_folder(known.output or Path(known.model).parent / f"{Path(known.model).stem}_tune")
    held = hold_back(known, options.held_back, output_folder(folder / "data"))
    studied = Studied(space, options, held, folder, storage_url(options, folder))
    trials = TrialRecipes(space, options, held, output_folder(folder))
    trials.check()
    if options.confirm:
        # what the chosen recipe is judged on at the end: told now, and not after hours
        judged_on(known, load_model(known.model, allow_unsafe=known.allow_unsafe))
    return studied, trials


def _part_is(space: SearchSpace, part: str) -> bool:
    """Whether every recipe of a space has a part that may be missing."""
    return bool(space.base.get(part)) or any(place[0] == part for place in space.dimensions)


def _stopper(options: TuneOptions, space: SearchSpace) -> TuneOptions:
    """The options with the pruner that suits the study."""
    trains = _part_is(space, "train") or _part_is(space, "prune")
    if options.pruner not in (None, Stopper.NONE) and not trains:
        raise UsageError(
            f"pruner={options.pruner.value} stops trials after an epoch, and nothing trains here; leave pruner= out"
        )
    if options.pruner is None:
        # Optuna cannot stop trials of several objectives
        suits = trains and len(options.objective) == 1 and options.objective[0].of_accuracy
        return replace(options, pruner=Stopper.MEDIAN if suits else Stopper.NONE)
    return options


def _searched(studied: Studied, evaluate: Evaluate, progress: Progress | None, deadline: float) -> None:
    share = studied.options.few if studied.options.looks_twice else 1.0
    if studied.options.on is Where.RAY:
        RayTrials(studied, evaluate, progress=progress).run(studied.options.trials, share, deadline)
        return
    search = TrialSearch(studied.open(), studied.space, studied.options, evaluate, progress)
    search.run(studied.options.trials, share, deadline)


def second_look(best: Sequence[Mapping[str, Value]], defaults: Mapping[str, Value] | None) -> list[dict[str, Value]]:
    """What is measured with everything: the recipe without any search first, then the best.

    First, because the time may be over before the last: what the others are held against (``default_drop`` too) must
    not be what is missing, and short looks mislead: what trains slowly at first may end ahead.

    Args:
        best: Recipes of the first look, the best first.
        defaults: The recipe without any search; None where the space does not hold it.
    """
    # of a study in which nothing was measured, nothing is measured again
    first = [dict(defaults)] if defaults is not None and best else []
    return first + [dict(values) for values in best if values != defaults]


def _looked_again(
    studied: Studied,
    evaluate: Evaluate,
    study: optuna.Study,
    chosen: list[dict[str, Any]],
    progress: Progress | None,
    deadline: float,
) -> None:
    attempts = second_look(chosen, studied.space.defaults)
    if studied.options.on is Where.RAY:
        RayTrials(studied, evaluate, again=True, progress=progress).look_again(attempts, deadline)
        return
    TrialSearch(study, studied.space, studied.options, evaluate, progress).again(attempts, deadline)


def _finished(studied: Studied, study: optuna.Study, second: optuna.Study | None, listener: Listener) -> TuneResult:
    defaults, options = studied.space.defaults, studied.options
    trials = records(study, "search", defaults) + (() if second is None else records(second, "again", defaults))
    # before anything can fail: trials are what took the time
    write_trials(trials, studied.folder)
    chosen, best, default = pick(trials, options)
    if chosen is None:
        errors = [t.error for t in trials if t.error]
        why = f"the first says: {errors[0]}" if errors else "the time was over before one was finished"
        raise TrainingError(f"not one of {len(trials)} trials was measured; {why}")
    path = write_recipe(studied.space, chosen, options, studied.folder / "recipe.yaml")
    result = TuneResult(studied.folder, trials, best, chosen, default, path, options)
    with storage_errors():
        plots = write_plots(study, options, studied.folder)
    write_page(result, plots)
    if options.confirm:
        result = replace(result, run=_confirmed(studied, study, result, listener))
    return result


def _confirmed(studied: Studied, study: optuna.Study, result: TuneResult, listener: Listener) -> RunResult | None:
    """Run the chosen recipe whole; not again where that has been done: the scored split is looked at once."""
    values = dict(result.chosen.values)
    folder = studied.folder / "chosen"
    if study.user_attrs.get(_SCORED) == values:
        listener.note(f"the chosen recipe was scored before: {folder / 'report' / 'report.html'}")
        return None
    # on the whole data, held-back images among them: nothing is chosen by the result any more
    found = run(studied.space.recipe(values).model_copy(update={"output": str(folder)}), listener)
    study.set_user_attr(_SCORED, values)
    return found
