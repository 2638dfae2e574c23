#!/usr/bin/env bash
# Optuna: GridSampler gives up a point whose trial failed, and computes others twice
#
# Expected:  a grid is done when every point has a value: a point whose trial failed (memory, a lost disk) is tried again by the next
#            optimize() or process, and one that was enqueued or computed before is not.
# Happens:   a failed point counts as visited and is never tried again. Conversely, an enqueued trial counts for no point
#            and is computed again, a finished grid computes one more point at each further optimize(), and with one value more
#            in the grid all of it is computed anew, under the same study name.
# Matters:   a grid over precisions or layers is read as a table. After a night with one failure the table has a hole that no restart
#            fills, while each restart trains something that is already there.
# Versions:  optuna 5.0.0. Observed 2026-11-30, x86-64.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet optuna==5.0.0 numpy==2.4.6
cat > check.py <<'PY'
import optuna

optuna.logging.set_verbosity(optuna.logging.CRITICAL)
print("optuna", optuna.__version__)


def sessions(*grids, failing=None, enqueued=()):
    """Which points are tried, by session; the first trial of the failing point raises."""
    storage, tried = optuna.storages.InMemoryStorage(), []

    def objective(trial):
        value = trial.suggest_int("bits", 0, 9)
        first = all(value not in session for session in tried)
        tried[-1].append(value)
        if value == failing and first:
            raise RuntimeError("no memory")
        return value

    for grid in grids:
        study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True, sampler=optuna.samplers.GridSampler({"bits": grid}, seed=0))
        for value in enqueued:
            study.enqueue_trial({"bits": value})
        tried.append([])
        study.optimize(objective, n_trials=20, catch=(RuntimeError,))
    return tried


failed = sessions([0, 1, 2, 3], [0, 1, 2, 3], failing=2)
enqueued = sessions([0, 1, 2, 3], enqueued=[1])
finished = sessions([0, 1], [0, 1], [0, 1])
widened = sessions([0, 1], [0, 1, 2])
print("point 2 fails, then once more:", failed)
print("point 1 was enqueued:         ", enqueued)
print("finished, then twice more:    ", finished)
print("one value added:              ", widened)
same = sorted(failed[0]) == [0, 1, 2, 3] and 2 not in failed[1] and len(failed[1]) == 1
same &= sorted(enqueued[0]) == [0, 1, 1, 2, 3] and [len(s) for s in finished] == [2, 1, 1] and sorted(widened[1]) == [0, 1, 2]
raise SystemExit(0 if same else "the recorded behaviour has changed")
PY
venv/bin/python check.py
