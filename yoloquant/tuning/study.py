"""The study in its storage: made or taken up again by Optuna, refused where it is another."""

from __future__ import annotations

import logging
import os
import platform
import sqlite3
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cluster import RETRIES
from ..errors import OutputError, UsageError, first_line
from ..io import alive
from .space import SearchSpace
from .tune_options import Sampler, Stopper, TuneOptions

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

logger = logging.getLogger(__name__)

IDENTITY, SCORES, ERROR, WORKER, LOST = "identity", "scores", "error", "worker", "lost"
"""Names of what is kept beside values: of a study, then of a trial."""
FIXED = "fixed_params"
"""Optuna's name of what a trial that waits will try."""
_PLACE = ("grid_id", "search_space")
"""Optuna's names of a trial's place in a grid."""
_HEARTBEAT, _GRACE = 60, 180  # seconds; a trial whose process is silent for so long is lost


class _QuickConnection(sqlite3.Connection):
    """Leaves it to the system when written data reach the disk.

    A trial writes some twenty times, and 50 ms each on a slow disk add up to a second. What is killed loses nothing;
    only the machine's own end could cost the file.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # at every connection: SQLite does not store this setting in the file
        self.execute("PRAGMA synchronous=OFF")


# seconds to wait for another process's lock, of which Python's own default of 5 is too few for many workers
_SQLITE = {"connect_args": {"timeout": 60, "factory": _QuickConnection}}


def require_optuna() -> None:
    """Raise UsageError unless Optuna is installed."""
    try:
        import optuna
    except ImportError as exc:
        raise UsageError(
            'tune needs Optuna, which is not installed; install it with: pip install "yoloquant[tune]"'
        ) from exc
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it says of single trials, progress says already
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def storage_url(options: TuneOptions, folder: Path) -> str:
    """Where the study is kept: the URL that is named, or a SQLite file in the folder."""
    if options.storage is None:
        return f"sqlite:///{(folder / 'study.db').resolve()}"
    return options.storage if "://" in options.storage else f"sqlite:///{Path(options.storage).resolve()}"


def open_study(
    url: str, name: str, options: TuneOptions, space: SearchSpace, identity: Mapping[str, Any]
) -> optuna.Study:
    """Make a study, or take one up again.

    Args:
        url: Of the storage.
        name: Of the study.
        options: Sampler, stopper and objectives.
        space: What is searched.
        identity: What makes results comparable, as plain data; a study that is there already must have the same.

    Raises:
        OutputError: The storage cannot be reached or written.
        UsageError: Optuna is not installed, or a study of another space, model or data has this name.
    """
    require_optuna()
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        storage = optuna.storages.RDBStorage(
            url,
            engine_kwargs=_SQLITE if url.startswith("sqlite") else None,
            # for machines that vanish: of those on this one, the process id tells at once
            heartbeat_interval=_HEARTBEAT,
            grace_period=_GRACE,
            heartbeat_stale_trial_callback=try_again,
        )
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[o.direction for o in options.objective],
            # to go on where a study was left, and for several processes to share one
            load_if_exists=True,
            pruner=_pruner(options),
        )
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError, OSError, RuntimeError) as exc:
        raise OutputError(
            f"the study's storage '{url}' cannot be used ({first_line(exc)}); name a database that is there, or leave "
            "storage= out"
        ) from exc
    known = study.user_attrs.get(IDENTITY)
    if known is None:
        # results of somebody else's study would be taken for ours
        if study.trials:
            raise UsageError(f"study '{name}' in {url} was not made by yoloquant; choose another name=")
        study.set_user_attr(IDENTITY, dict(identity))
    else:
        _same(name, url, known, identity)
    # after it is known how many trials there are: that decides the seed
    study.sampler = sampler_of(options, space, len(study.trials))
    return study


def _same(name: str, url: str, known: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Refuse to go on with another study.

    Raises:
        UsageError: Something differs; the first thing is named.
    """
    for what, mine in identity.items():
        theirs = known.get(what) or {}
        if theirs == mine:
            continue
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            what, theirs, mine = next(
                (f"{what} {k}", theirs.get(k, "nothing"), mine.get(k, "nothing"))
                for k in sorted({*theirs, *mine})
                if theirs.get(k) != mine.get(k)
            )
        raise UsageError(
            f"study '{name}' in {url} has another {what}: {theirs}, and now {mine}; choose another name= or output=, "
            "or give the same again to go on with it"
        )


def sampler_of(options: TuneOptions, space: SearchSpace, known: int) -> optuna.samplers.BaseSampler:
    """The sampler; one that joins a study has another seed, or it would try the same again."""
    import optuna

    # the process id as well: workers that start together see the same number of trials
    seed = options.sampler_seed if not known else options.sampler_seed + 1009 * known + os.getpid()
    match options.sampler:
        case Sampler.GRID:
            # the same seed in every process: the grid's order is shared, and the storage says what is done
            grid = optuna.samplers.GridSampler(space.grid(options.grid), seed=options.sampler_seed)
            # It would end ``study.optimize`` behind the last point, where one trial runs at a time here. Told of a lost
            # trial outside of that it raises (Optuna 5), and of one that was queued it finds no place in the grid.
            grid.after_trial = lambda *told: None  # type: ignore[method-assign]
            return grid
        case Sampler.RANDOM:
            return optuna.samplers.RandomSampler(seed=seed)
        case Sampler.NSGA2:
            return optuna.samplers.NSGAIISampler(population_size=options.population, seed=seed)
    # random ones before the model: Optuna's 10 would be a third of a usual study
    startup = min(10, max(4, options.trials // 4))
    return optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed)


def _pruner(options: TuneOptions) -> optuna.pruners.BasePruner:
    import optuna

    match options.pruner:
        case Stopper.MEDIAN:
            # Optuna waits for 5; with 30 trials a bad one should be stopped earlier
            return optuna.pruners.MedianPruner(n_startup_trials=3)
        case Stopper.ASHA:
            # looks after 1, 2, 4, 8 ... epochs; Optuna's factor of 4 would look at ten epochs twice
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    return optuna.pruners.NopPruner()


# -- trials that their process did not finish


def this_worker() -> dict[str, Any]:
    """Who runs a trial: a machine and a process on it."""
    return {"machine": platform.node(), "process": os.getpid()}


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a trial failed because its process ended: what fails by itself says why."""
    return trial.state.name == "FAIL" and ERROR not in trial.user_attrs


def settled(study: optuna.Study) -> list[dict[str, Any]]:
    """Values of trials that need not be tried any more: measured, failed, or lost too often."""
    trials = study.get_trials(deepcopy=False)
    done = [t.params for t in trials if t.state.is_finished() and not is_lost(t)]
    # by what they try, since a lost trial comes again under another number
    return done + [t.params for t in trials if is_lost(t) and int(t.user_attrs.get(LOST, 0)) >= RETRIES]


def give_up_lost(study: optuna.Study) -> None:
    """Fail trials whose process on this machine has ended, and queue what they were trying.

    Those of other machines fail once they have been silent for some minutes, by Optuna's heartbeat.
    """
    import optuna

    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        worker = trial.user_attrs.get(WORKER)
        # a process id means something on its own machine only
        if worker and worker["machine"] == platform.node() and not alive(int(worker["process"])):
            try:
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):  # another process was quicker
                continue
            try_again(study, trial)


def try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue what a lost trial was trying."""
    import optuna

    times = int(trial.user_attrs.get(LOST, 0)) + 1
    logger.warning("trial %d was lost: its process ended", trial.number)
    # not enqueue_trial: it forgets the place in a grid, which says the values that the trial did not come to
    place = {name: trial.system_attrs[name] for name in _PLACE if name in trial.system_attrs}
    # a recipe that ends its process every time must not be tried for ever
    if times <= RETRIES and (trial.params or place):
        waiting = optuna.trial.create_trial(
            state=optuna.trial.TrialState.WAITING,
            system_attrs={FIXED: trial.params, **place},
            user_attrs={LOST: times},
        )
        study.add_trial(waiting)
