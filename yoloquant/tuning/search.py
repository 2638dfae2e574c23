"""The search itself: trials one after another until the budget is spent, then the best again with everything."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import OutputError, YoloquantError
from ..sensitivity.eta import Eta
from ..types import Progress
from .dimensions import Value
from .objectives import Objective, Scores, ranked
from .space import SearchSpace
from .study import ERROR, SCORES, WORKER, give_up_lost, is_lost, settled, this_worker, try_again
from .tune_options import Sampler, TuneOptions

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

logger = logging.getLogger(__name__)

SAME_AS = "same_as"


@dataclass(frozen=True)
class Attempt:
    """One recipe to be tried.

    Attributes:
        values: Of every dimension, by name.
        share: Of the images and epochs that it gets, up to 1.
        watch: Told of every epoch and its score (larger is better); raises where the trial is to be stopped.
    """

    values: Mapping[str, Value]
    share: float
    watch: Callable[[int, float], None]


Evaluate = Callable[[Attempt], Scores]
"""Tries a recipe; gives at least what the study measures. What it raises fails the trial, not the study."""


class TrialSearch:
    """Runs trials of a study.

    Args:
        study: Optuna's.
        space: What is searched.
        options: Objectives and budget.
        evaluate: What tries a recipe.
        progress: Called after every trial.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        options: TuneOptions,
        evaluate: Evaluate,
        progress: Progress | None = None,
    ) -> None:
        self.study, self.space, self.options, self.evaluate = study, space, options, evaluate
        self.progress = progress
        self._eta = Eta()
        self._began = time.monotonic()

    def run(self, trials: int, share: float, deadline: float = math.inf) -> None:
        """Try recipes until there are so many results, other processes' among them.

        Args:
            trials: How many.
            share: Of images or epochs that each gets.
            deadline: Time (``time.monotonic``) after which none begins; where the best are looked at again, enough
                before it for that.

        Raises:
            OutputError: The storage fails.
        """
        # only by the first process of a study; others find it queued or done
        self.queue_defaults()
        give_up_lost(self.study)
        # claimed and not finished: several processes together must not overshoot
        while self.claimed < trials and time.monotonic() < self.ends(share, deadline) and self.points_left != 0:
            self.one(share, trials)

    def ends(self, share: float, deadline: float, workers: int = 1) -> float:
        """When the first look ends, so that the second, which decides, has time before the deadline.

        Args:
            share: Of the first look; 1 where there is no second.
            deadline: Of both.
            workers: Trials at a time.
        """
        trials = [t for t, _ in self.complete if SAME_AS not in t.user_attrs and t.duration is not None]
        if share == 1 or not trials or math.isinf(deadline):
            return deadline
        each = statistics.median(t.duration.total_seconds() for t in trials if t.duration is not None) / share
        # the best and the recipe without any search
        needed = each * math.ceil((self.options.again + 1) / workers)
        # at least half of the time is for the search: what was never tried cannot be looked at again
        return deadline - min(needed, (deadline - self._began) / 2)

    def again(self, chosen: Sequence[Mapping[str, Value]], deadline: float = math.inf) -> None:
        """Try some recipes with all images and epochs; those that the study has already are left alone.

        Raises:
            OutputError: The storage fails.
        """
        give_up_lost(self.study)
        for values in chosen:
            # skip_if_exists: a study that is taken up again queues nothing twice
            self.study.enqueue_trial(dict(values), skip_if_exists=True)
        while self._count("WAITING") and time.monotonic() < deadline:
            self.one(1.0, self.claimed + self._count("WAITING"))

    def one(self, share: float, total: int) -> None:
        """Run one trial.

        Raises:
            OutputError: The storage fails.
        """
        # told of this very trial: the study's last one may be another process's
        done: list[FrozenTrial] = []
        start = time.monotonic()
        with storage_errors():
            # one at a time, so that the deadline and other processes' results are looked at in between
            # catch: a failed trial is noted and the study goes on
            self.study.optimize(
                lambda trial: self._try(trial, share),
                n_trials=1,
                catch=(Exception,),
                callbacks=[lambda _, trial: done.append(trial)],
            )
        # what was looked up took no time, and would make the estimate too short
        if not any(SAME_AS in trial.user_attrs for trial in done):
            self._eta.add(time.monotonic() - start)
        self.tell(total)

    @property
    def claimed(self) -> int:
        """Trials that are finished or that some process runs; those that were lost do not count."""
        return sum(t.state.name != "WAITING" and not is_lost(t) for t in self.study.get_trials(deepcopy=False))

    @property
    def complete(self) -> list[tuple[FrozenTrial, Scores]]:
        """Trials that were measured, with their scores."""
        return complete_trials(self.study)

    @property
    def best(self) -> list[FrozenTrial]:
        """The same from the best to the worst."""
        return ranked(self.complete, self.options.objective, self.options.limit(self._default))

    @property
    def _default(self) -> Scores | None:
        """Scores of the recipe without any search; None where it was not measured."""
        return next((scores for trial, scores in self.complete if trial.params == self.space.defaults), None)

    def _count(self, state: str) -> int:
        return sum(t.state.name == state for t in self.study.get_trials(deepcopy=False))

    @property
    def points_left(self) -> int | None:
        """How many points of a grid still have to be tried; None where another sampler chooses.

        Not by Optuna's ``is_exhausted``, for which a lost point counts as tried though it waits to be tried again.
        """
        if self.options.sampler is not Sampler.GRID:
            return None
        grid = self.space.grid(self.options.grid)
        # a study may hold trials of other samplers, and what it queued before
        values = [v for v in settled(self.study) if all(name in v and v[name] in grid[name] for name in grid)]
        tried = {tuple(v[name] for name in grid) for v in values}
        return self.space.grid_size(self.options.grid) - len(tried)

    def queue_defaults(self) -> None:
        """Try what the recipe gives without any search first: the rest is held against it."""
        defaults = self.space.defaults
        # a grid tries its own points only
        if defaults is not None and self.options.sampler is not Sampler.GRID and not self.study.trials:
            self.study.enqueue_trial(dict(defaults), skip_if_exists=True)

    def _try(self, trial: Trial, share: float) -> list[float]:
        import optuna

        # first of all: if this process is killed, another one must be able to tell whose trial it was
        trial.set_user_attr(WORKER, this_worker())
        values = self.space.suggest(trial)
        try:
            scores = self._known(trial, values)
            if scores is None:
                scores = self.evaluate(Attempt(values, share, lambda epoch, score: self._watch(trial, epoch, score)))
            # all scores, the objectives among them: the page shows what was measured besides
            trial.set_user_attr(SCORES, {name: float(value) for name, value in scores.items()})
            limit = self.options.limit(scores if values == self.space.defaults else self._default)
            if limit is not None:
                over = scores[Objective.MAP_DROP.value] - limit
                # Optuna prefers trials at or below 0; NaN would compare as neither
                trial.set_constraint("drop", over if math.isfinite(over) else 1.0)
            found = [scores[o.value] for o in self.options.objective]
            if not all(map(math.isfinite, found)):
                raise YoloquantError(f"a score is not a number: {dict(scores)}")
        # no failure: Optuna must see its own exception to note the trial as stopped
        except optuna.TrialPruned:
            raise
        # queued again, so that the study can be taken up where it was left
        except KeyboardInterrupt:
            frozen = self.study.get_trials(deepcopy=False)[trial.number]
            try_again(self.study, frozen)
            raise
        except Exception as exc:
            # noted here: Optuna keeps that a trial failed, not why; without it the trial would count as lost
            # (``is_lost``)
            trial.set_user_attr(ERROR, _sentence(exc))
            if not isinstance(exc, YoloquantError):
                # a bug of ours or of others: with its stack, while our own errors are sentences
                logger.error("trial %d failed", trial.number, exc_info=exc)
            raise
        return found

    def _known(self, trial: Trial, values: Mapping[str, Value]) -> Scores | None:
        """Scores of the same recipe, where one was measured already: nothing in a trial is left to chance."""
        for other, scores in self.complete:
            # a sampler of few values draws the same again, and grids of two processes overlap
            if other.params == values:
                trial.set_user_attr(SAME_AS, other.number)
                return scores
        return None

    def _watch(self, trial: Trial, epoch: int, score: float) -> None:
        import optuna

        if len(self.options.objective) > 1 or not self.options.objective[0].of_accuracy:
            return  # Optuna stops trials of one objective only, and this says something about accuracy alone
        # in the study's direction: epochs' scores are larger where better, and map_drop is made small
        trial.report(score if self.options.objective[0].larger_is_better else -score, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned(f"stopped after epoch {epoch}")

    def tell(self, total: int) -> None:
        """Report how far it is, and the best so far."""
        if self.progress is None:
            return
        done, found = self.claimed, self.complete
        words = [f"{len(found)} measured"]
        if found:
            best = self.best[0]
            words.append(f"best is trial {best.number}: {described(best.user_attrs[SCORES], self.options)}")
        left = self._eta.text(max(total - done, 0))
        self.progress(done, max(total, done), "; ".join([*words, left] if left else words))


def complete_trials(study: optuna.Study) -> list[tuple[FrozenTrial, Scores]]:
    """Trials of a study that were measured, with their scores."""
    trials = study.get_trials(deepcopy=False)
    return [(t, t.user_attrs[SCORES]) for t in trials if t.state.name == "COMPLETE" and SCORES in t.user_attrs]


def described(scores: Scores, options: TuneOptions) -> str:
    """Scores for people: ``fidelity 0.9812, size 2.91e+06``."""
    return ", ".join(f"{o.value} {scores[o.value]:.4g}" for o in options.measured if o.value in scores)


def _sentence(exc: Exception) -> str:
    text = " ".join(str(exc).split()) or "no message"
    # the type says more than most messages of foreign errors do
    return text if isinstance(exc, YoloquantError) else f"{type(exc).__name__}: {text}"


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn what a database raises into a sentence.

    Raises:
        OutputError: The storage failed.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as exc:
        raise OutputError(
            f"the study's storage failed ({' '.join(str(exc).split())[:200]}); what was finished is kept: give the "
            "same again to go on"
        ) from exc
