"""Trials as tasks of a Ray cluster; what they find goes through the study's storage."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..cluster import RETRIES, connected, own_errors, require_room, task
from ..errors import TrainingError
from ..types import Progress
from .dimensions import Value
from .search import Evaluate, TrialSearch
from .study import give_up_lost, is_lost, settled

if TYPE_CHECKING:
    import optuna

    from .studied import Studied

logger = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds between two looks at lost trials


class RayTrials:
    """Runs trials of a study on a cluster.

    Args:
        studied: The study.
        evaluate: What tries a recipe; every worker keeps one, with what its trials share.
        again: Whether it is the second look, with all images and epochs.
        progress: Called after every trial.
    """

    def __init__(
        self, studied: Studied, evaluate: Evaluate, again: bool = False, progress: Progress | None = None
    ) -> None:
        self.studied, self.evaluate, self.again = studied, evaluate, again
        self._lost = 0  # tasks in a row
        self._search = TrialSearch(studied.open(again), studied.space, studied.options, evaluate, progress)

    def run(self, trials: int, share: float, deadline: float = math.inf) -> None:
        """Try recipes until there are so many results; see ``TrialSearch.run``.

        Raises:
            UsageError: The cluster cannot be reached.
            OutputError: The storage fails.
        """
        # by the driver alone, before any worker could ask for a trial
        self._search.queue_defaults()
        # looked up each time: other drivers may work on the same study
        self._fill(lambda: self._left(trials), share, trials, deadline)

    def look_again(self, chosen: Sequence[Mapping[str, Value]], deadline: float = math.inf) -> None:
        """Try some recipes with everything; see ``TrialSearch.again``.

        Raises:
            UsageError: The cluster cannot be reached.
            OutputError: The storage fails.
        """
        study = self._search.study
        for values in chosen:
            study.enqueue_trial(dict(values), skip_if_exists=True)
        self._fill(lambda: _missing(study, chosen), 1.0, len(chosen), deadline)

    def _left(self, trials: int) -> int:
        """How many trials of a budget are to be tried still; of a grid no more than its points."""
        left, points = trials - _finished(self._search.study), self._search.points_left
        return left if points is None else min(left, points)

    def _fill(self, left: Any, share: float, total: int, deadline: float) -> None:
        """Keep as many tasks under way as there may be, until nothing is left."""
        options = self.studied.options
        with connected(options.address) as ray:
            require_room(ray, cpus=options.cpus, gpus=options.gpus)
            trial = task(ray, _one_trial, cpus=options.cpus, gpus=options.gpus)
            # once in the cluster's memory, instead of with every task
            shared = ray.put((self.studied, self.evaluate))
            pending: list[Any] = []
            while True:
                give_up_lost(self._search.study)
                ends = self._search.ends(share, deadline, options.workers)
                while len(pending) < min(options.workers, left()) and time.monotonic() < ends:
                    pending.append(trial.remote(shared, self.again, share, total))
                if not pending:
                    return
                # a time limit, so that trials of lost workers are queued anew while others still run
                done, pending = ray.wait(pending, num_returns=1, timeout=_PATIENCE)
                for reference in done:
                    self._take(ray, reference)
                    self._search.tell(total)

    def _take(self, ray: Any, reference: Any) -> None:
        try:
            with own_errors(ray):
                ray.get(reference)
            self._lost = 0
        except ray.exceptions.RayTaskError:  # an error of a trial's own code, which came back whole
            raise
        except ray.exceptions.RayError as exc:  # its worker was lost, and so were those that tried again
            self._lost += 1
            logger.error("a task was lost: %s", exc)
            if self._lost > RETRIES:
                raise TrainingError(
                    f"the workers of {self._lost} tasks in a row were lost, each {RETRIES + 1} times; give trials more "
                    f"memory or fewer at a time (workers={self.studied.options.workers}): {exc}"
                ) from exc


def _one_trial(shared: tuple[Studied, Evaluate], again: bool, share: float, total: int) -> None:
    """One trial, in a worker."""
    studied, evaluate = _kept(_Once(shared))
    search = TrialSearch(studied.open(again), studied.space, studied.options, evaluate)
    give_up_lost(search.study)  # this may be the second try of a task whose worker was lost
    search.one(share, total)


class _Once:
    """A study that workers keep, told by its storage and its name."""

    def __init__(self, shared: tuple[Studied, Evaluate]) -> None:
        self.shared = shared
        self._key = (shared[0].url, shared[0].options.name)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Once) and self._key == other._key


@lru_cache(maxsize=1)
def _kept(once: _Once) -> tuple[Studied, Evaluate]:
    """The study of an earlier task of this worker, with what its trials have computed."""
    return once.shared


def _missing(study: optuna.Study, chosen: Sequence[Mapping[str, Value]]) -> int:
    """How many of these recipes still have to be tried."""
    known = settled(study)
    return sum(values not in known for values in chosen)


def _finished(study: optuna.Study) -> int:
    """Trials that need not be tried any more."""
    return sum(t.state.is_finished() and not is_lost(t) for t in study.get_trials(deepcopy=False))
