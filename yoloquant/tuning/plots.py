"""Optuna's plots of a study as files: how it went on, what mattered, and the front of several objectives."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io import atomic_path
from .search import complete_trials
from .tune_options import TuneOptions

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

logger = logging.getLogger(__name__)

_DPI = 120
_DRAWN = 3  # objectives that Optuna draws a front of, at most


def write_plots(study: optuna.Study, options: TuneOptions, folder: Path) -> list[Path]:
    """Write ``history_<objective>.png``, ``importance_<objective>.png`` and ``front.png``.

    A plot that the study has too few trials for is left out.

    Args:
        study: The search.
        options: Its objectives.
        folder: Where; every file appears there complete or not at all.

    Raises:
        OutputError: The folder cannot be written.
    """
    from optuna.visualization import matplotlib as draw

    plots: list[Path] = []
    # one trial has neither a course nor anything that could have mattered
    if len(complete_trials(study)) < 2:
        return plots
    for index, objective in enumerate(options.objective):
        name = objective.value
        about: dict[str, Any] = {"target": _Value(index), "target_name": name}
        plots += _drawn(folder / f"history_{name}.png", partial(draw.plot_optimization_history, study, **about))
        plots += _drawn(folder / f"importance_{name}.png", partial(draw.plot_param_importances, study, **about))
    if 1 < len(options.objective) <= _DRAWN:
        names = [o.value for o in options.objective]
        plots += _drawn(folder / "front.png", partial(draw.plot_pareto_front, study, target_names=names))
    return plots


class _Value:
    """One of a trial's values."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, trial: FrozenTrial) -> float:
        return float(trial.values[self.index])


def _drawn(path: Path, draw: Callable[[], Any]) -> list[Path]:
    """A file with what Optuna draws; none where it cannot. Its style and its figures do not outlive this."""
    from matplotlib import pyplot

    # Optuna's plots switch the process's style to "ggplot" (Optuna 5); its warnings are about drawing with few trials
    before = pyplot.get_fignums()
    with pyplot.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            figure = draw().figure
        except (ValueError, RuntimeError, ZeroDivisionError) as exc:  # all trials alike, or too few of them
            logger.info("%s is not drawn: %s", path.name, exc)
            # those that Optuna had begun; others belong to whoever called this, for instance a notebook
            for number in set(pyplot.get_fignums()) - set(before):
                pyplot.close(number)
            return []
        figure.set_size_inches(8, 4.8)
        with atomic_path(path) as temporary:
            figure.savefig(str(temporary), dpi=_DPI, bbox_inches="tight", format="png")
        pyplot.close(figure)
    return [path]
