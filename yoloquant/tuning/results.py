"""What a study found: every trial, the front, and the one that is chosen; written as files for people and programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..io import write_text
from ..summarized import Summarized, data_frame, plain
from .dimensions import Value
from .objectives import Scores, choose, excess, front
from .search import SAME_AS, described
from .space import SearchSpace
from .study import ERROR, FIXED, SCORES, is_lost
from .tune_options import TuneOptions

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from ..pipeline import RunResult

_STATES = {"COMPLETE": "measured", "PRUNED": "stopped", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: Its number within its stage.
        stage: ``search``, or ``again`` for all images and epochs.
        state: ``measured``, ``stopped``, ``failed``, ``lost``, ``running`` or ``waiting``.
        values: Of every dimension, by name.
        scores: What was measured; empty unless it was.
        epochs: Score after every epoch, where something trained.
        seconds: How long it took; None if it is not finished.
        error: Why it failed.
        default: Whether it is what the recipe gives without any search.
    """

    number: int
    stage: str
    state: str
    values: Mapping[str, Value]
    scores: Scores = field(default_factory=dict)
    epochs: Mapping[int, float] = field(default_factory=dict)
    seconds: float | None = None
    error: str = ""
    default: bool = False


@dataclass(frozen=True, repr=False)
class TuneResult(Summarized):
    """What a study found.

    Attributes:
        folder: Where everything lies.
        trials: Every trial, of the search and of the second look.
        front: Trials that no other beats in every objective, of the second look where there was one.
        chosen: The trial whose recipe is chosen.
        default: The recipe without any search, measured like the chosen one; None if it was not among the trials.
        recipe: The chosen recipe, as YAML that ``run`` takes.
        options: What the study was told.
        run: The chosen recipe, run whole and scored on the scored split; None if that was not asked for.
    """

    folder: Path
    trials: tuple[TrialRecord, ...]
    front: tuple[TrialRecord, ...]
    chosen: TrialRecord
    default: TrialRecord | None
    recipe: Path
    options: TuneOptions
    run: RunResult | None = None

    @property
    def limit(self) -> float | None:
        """Largest drop of mAP50-95 that was wanted; None without a limit."""
        return self.options.limit(None if self.default is None else self.default.scores)

    @property
    def over(self) -> bool:
        """Whether the chosen trial loses more."""
        return bool(excess(self.chosen.scores, self.limit))

    def summary(self) -> str:
        """The chosen recipe beside the default, and the front."""
        count = {s: sum(t.state == s for t in self.trials) for s in ("measured", "stopped", "failed", "lost")}
        lines = [", ".join(f"{n} trials {state}" for state, n in count.items() if n) + ", on held-back training images"]
        if len(self.options.objective) > 1:
            lines += [f"front: {described(t.scores, self.options)}" for t in self.front]
        # without it nobody can say what the search has won
        known = "not among the trials" if self.default is None else described(self.default.scores, self.options)
        lines.append(f"default: {known}")
        nothing = ": the default, which no other beat" if self.chosen.default else ""
        lines.append(f"chosen:  {described(self.chosen.scores, self.options)}{nothing}")
        lines += [f"  {name} = {value}" for name, value in self.chosen.values.items()]
        if self.over:
            lines.append(f"no trial kept the drop of mAP50-95 within {self.limit:g}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        parts: dict[str, Any] = plain(
            {k: getattr(self, k) for k in ("trials", "front", "chosen", "default", "options")}
        )
        run = None if self.run is None else self.run.to_dict()
        return {**parts, "recipe": str(self.recipe), "run": run}

    def to_df(self) -> Any:
        """Every trial as a ``pandas.DataFrame``, one row each.

        Raises:
            UsageError: pandas is not installed.
        """
        return data_frame(rows(self.trials))


def records(study: optuna.Study, stage: str, defaults: Mapping[str, Value] | None) -> tuple[TrialRecord, ...]:
    """Every trial of a study."""
    return tuple(_record(trial, stage, defaults) for trial in study.get_trials(deepcopy=False))


def _record(trial: FrozenTrial, stage: str, defaults: Mapping[str, Value] | None) -> TrialRecord:
    state = "lost" if is_lost(trial) else _STATES[trial.state.name]
    # of a trial that waits, what it will try is noted under the second name only (Optuna 5)
    values = trial.params or trial.system_attrs.get(FIXED, {})
    reused = SAME_AS in trial.user_attrs
    return TrialRecord(
        trial.number,
        stage,
        state,
        dict(values),
        dict(trial.user_attrs.get(SCORES, {})),
        dict(trial.intermediate_values),
        # looked up and not tried: its own few milliseconds would mislead whoever adds up
        0.0 if reused else None if trial.duration is None else round(trial.duration.total_seconds(), 3),
        str(trial.user_attrs.get(ERROR, "its process ended" if state == "lost" else "")),
        defaults is not None and values == defaults,
    )


def pick(
    found: Sequence[TrialRecord], options: TuneOptions
) -> tuple[TrialRecord | None, tuple[TrialRecord, ...], TrialRecord | None]:
    """The chosen trial, the front, and the default; of the second look where that has results."""
    measured = [t for t in found if t.state == "measured"]
    # scores of a few images are not comparable with those of all: one stage or the other
    stage = "again" if any(t.stage == "again" for t in measured) else "search"
    pairs = [(t, t.scores) for t in measured if t.stage == stage]
    default = next((t for t, _ in pairs if t.default), None)
    limit = options.limit(None if default is None else default.scores)
    return choose(pairs, options.objective, limit), tuple(front(pairs, options.objective)), default


def rows(trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """One flat row for each trial."""
    about = ("stage", "number", "state", "seconds", "error", "default")
    return [{**{k: getattr(t, k) for k in about}, **t.scores, **t.values} for t in trials]


def write_trials(trials: Sequence[TrialRecord], folder: Path) -> None:
    """Write ``trials.csv`` and ``trials.json``.

    Raises:
        OutputError: The folder cannot be written.
    """
    table = rows(trials)
    # of all rows: failed trials have no scores, and the first row may be one
    columns = list(dict.fromkeys(name for row in table for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_text(folder / "trials.csv", text.getvalue())
    write_text(folder / "trials.json", json.dumps(plain(list(trials)), indent=1))


def write_recipe(space: SearchSpace, chosen: TrialRecord, options: TuneOptions, path: Path) -> Path:
    """Write the chosen recipe.

    Raises:
        OutputError: The folder cannot be written.
    """
    content = plain(space.content(chosen.values))
    # in the file itself, which is copied away from its study
    head = f"# trial {chosen.number} ({chosen.stage}), on held-back images: {described(chosen.scores, options)}\n"
    write_text(path, head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return path
