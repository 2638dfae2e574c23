#!/usr/bin/env bash
# Optuna: MedianPruner stops a trial that is better than most, because pruned trials do not count in the median
#
# Expected:  "prune if the trial's best intermediate result is worse than the median of intermediate results of previous trials at the
#            same step": half of the trials pass, whatever their fate was later.
# Happens:   only trials that were completed count. Those are the survivors, so the bar is the median of the best: of ten trials
#            whose first values are .5 .6 .1 .1 .1 .1 .1 .2 .52 .56 the ninth is pruned, although it beats seven of eight.
#            Of 100 trials with random values 13 are completed, while 55 were at or above the median of all before them. Trials that
#            were pruned do not count among n_startup_trials either ("until the given number of trials finish").
# Matters:   a pruner called "median" is taken for a mild one. With epochs of QAT, whose first values say little of the last ones, it
#            ends nearly all trials at their first report, and the more so the longer the study runs.
# Versions:  optuna 5.0.0. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet optuna==5.0.0 numpy==2.4.6
cat > check.py <<'PY'
import random
from statistics import median

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
print("optuna", optuna.__version__)


def states(values, give_up=0):
    """States of trials that report one value each; the first give_up ones end themselves as pruned."""
    def objective(trial):
        trial.report(values[trial.number], 0)
        if trial.should_prune() or trial.number < give_up:
            raise optuna.TrialPruned
        return values[trial.number]

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=2))
    study.optimize(objective, n_trials=len(values))
    return [trial.state.name for trial in study.trials]


values = [0.5, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.52, 0.56]
found = states(values)
for value, state in zip(values, found):
    print(value, state)
print("median of the eight values before 0.52:", median(values[:8]), "of those completed:", median(values[:2]))
generator = random.Random(0)
draws = [generator.random() for _ in range(100)]
completed = states(draws).count("COMPLETE")
above = sum(value >= median(draws[:i]) for i, value in enumerate(draws) if i > 1) + 2
print(f"100 random values: {completed} completed; at or above the median of all before them: {above}")
late = states([0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1], give_up=4)
print("four trials that were pruned, then bad ones:", late)
same = found == ["COMPLETE"] * 2 + ["PRUNED"] * 7 + ["COMPLETE"] and late == ["PRUNED"] * 4 + ["COMPLETE"] * 2 + ["COMPLETE"]
same &= completed < 35 and above > 40
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
