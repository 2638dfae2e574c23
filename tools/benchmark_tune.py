"""What a search wins: studies of post-training quantization, and Bayesian against random sampling on real results.

``part=study`` runs ``space=ptq`` for every model and scores the chosen recipe and the defaults once on the validation
images. ``part=table`` measures every recipe of a small grid on the held-back images; ``part=samplers`` then lets each
sampler search that table, whose results are real and cost nothing, with many seeds.

    python tools/benchmark_tune.py part=study models=yolov8n.pt,yolo26n.pt data=coco.yaml also=more.yaml cache=/tmp/tune
    python tools/benchmark_tune.py part=table models=yolov8n.pt data=coco.yaml cache=/tmp/tune
    python tools/benchmark_tune.py part=samplers models=yolov8n.pt cache=/tmp/tune trials=20 seeds=100
    python tools/benchmark_tune.py part=trial models=yolov8n.pt data=coco.yaml cache=/tmp/tune
    python tools/benchmark_tune.py part=prune models=best.pt data=mydata.yaml hours=1.5 again=2 cache=/tmp/tune
    python tools/benchmark_tune.py part=confirm models=best.pt data=mydata.yaml cache=/tmp/tune

``part=trial`` says what trials of a study share: processor seconds of the first, and of later ones. ``part=prune``
runs ``yoloquant tune`` over pruning and its fine-tuning, and chooses the smallest model that loses no more than the
defaults; ``part=confirm`` runs the chosen recipe and the defaults on all data with two seeds and scores them once.

Options (``key=value`` or ``--key value``): part (study, table, samplers, trial, prune, confirm), models, data, also
(more data sets, separated by commas, on which part=study calibrates and scores both recipes), targets (onnxruntime;
one), imgsz (320), objective (fidelity), trials (24), held_back (64), few (0.25), again (4), images (32, calibration of
the table), epochs (12, of fine-tuning in the second look or in part=confirm), hours (1.5, of part=prune), runs
(chosen:0,chosen:1,default:0,default:1; of part=confirm, recipes and their seeds; varied: the defaults with the values
of varied=), varied (prune.criterion=l2,prune.batch=8), seeds (100), threads (2), cache (a folder; what it holds is not
run again).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tools.bench import pruning_study
from tools.bench.table import table
from tools.options import parse_options
from yoloquant.io import write_text
from yoloquant.quantization import ptq
from yoloquant.sensitivity.images import Images
from yoloquant.tuning import trial_recipes
from yoloquant.tuning.scorer import HeldBackScorer
from yoloquant.tuning.search import Attempt, TrialSearch, complete_trials
from yoloquant.tuning.space import SearchSpace, make_space
from yoloquant.tuning.studied import HeldBack
from yoloquant.tuning.study import require_optuna, sampler_of
from yoloquant.tuning.trial_recipes import TrialRecipes
from yoloquant.tuning.tune import set_up, tune
from yoloquant.tuning.tune_options import Sampler, TuneOptions
from yoloquant.types import Progress

DEFAULTS = {
    "part": "study",
    "models": "yolov8n.pt",
    "data": "coco8.yaml",
    "also": "",
    "targets": "onnxruntime",
    "imgsz": "320",
    "objective": "fidelity",
    "trials": "24",
    "held_back": "64",
    "few": "0.25",
    "again": "4",
    "images": "32",
    "epochs": "12",
    "hours": "1.5",
    "varied": "prune.criterion=l2,prune.batch=8",
    "runs": "chosen:0,chosen:1,default:0,default:1",
    "seeds": "100",
    "threads": "2",
    "cache": "/tmp/benchmark_tune",
}
GRID = {
    "ranges.activation": "mse|percentile|minmax",
    "ranges.pre_activation": "mse_silu|percentile|minmax",
    "ranges.head": "mse|minmax",
    "ranges.weight": "mse|minmax",
}
FIRST = (5, 10)  # trials after which the best so far is told
GOOD = 0.05  # share of the table's recipes that count as found


def main() -> int:
    """Run one part and print its table."""
    options = parse_options(sys.argv[1:], DEFAULTS, str(__doc__))
    import torch

    torch.set_num_threads(int(options["threads"]))
    cache = Path(options["cache"])
    cache.mkdir(parents=True, exist_ok=True)
    parts = {
        "study": _study,
        "table": _table,
        "samplers": _samplers,
        "trial": _trial,
        "prune": _prune,
        "confirm": _confirm,
    }
    if options["part"] not in parts:
        print(f"part={options['part']} is not known; allowed are {', '.join(parts)}", file=sys.stderr)
        return 2
    for model in options["models"].split(","):
        parts[options["part"]](Path(model), options, cache)
    return 0


def _given(model: Path, options: Mapping[str, str], folder: Path) -> dict[str, str]:
    keys = {key: options[key] for key in ("data", "targets", "imgsz")}
    return {"model": str(model), "output": str(folder), "cache": "false", **keys}  # trials are timed


def _told(options: Mapping[str, str], **more: Any) -> TuneOptions:
    keys = ("objective", "trials", "held_back", "few", "again")
    return TuneOptions(**{**{key: options[key] for key in keys}, "confirm": False, **more})


class _Said:
    """Prints how far a stage is."""

    def stage(self, name: str) -> _Said:
        print(f"{name} ...", file=sys.stderr, flush=True)
        return self

    def __enter__(self) -> Progress:
        return lambda done, total, label: print(f"  {done}/{total} {label}", file=sys.stderr, flush=True)

    def __exit__(self, *args: object) -> None:
        pass

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)

    def exported(self, exports: Any) -> None:
        pass


# -- part=study


def _study(model: Path, options: Mapping[str, str], cache: Path) -> None:
    """A study, then the chosen recipe and the defaults on the validation images."""
    folder = cache / f"{model.stem}_study"
    told = _told(options, space="ptq")
    given = _given(model, options, folder)
    found = tune(None, given, told, _Said())
    studied, _ = set_up(None, given, told)
    sets = [given["data"], *filter(None, options["also"].split(","))]
    chosen = dict(found.chosen.values)
    scores = [_scored(studied.space, told, data, folder, chosen, f"validation{i or ''}") for i, data in enumerate(sets)]
    seconds = sum(t.seconds or 0.0 for t in found.trials)
    print(
        f"\n{model.stem}: {len(found.trials)} trials in {seconds / 60:.0f} min; chosen: {dict(found.chosen.values)}\n"
    )
    rows = []
    for name in ("default", "chosen"):
        held = found.default if name == "default" else found.chosen
        known = {} if held is None else held.scores
        columns = [known, *(each[name] for each in scores)]
        rows.append([name, *(_cell(column.get(m)) for column in columns for m in METRICS)])
    names = ["held back", "validation", *(f"validation of {data}" for data in sets[1:])]
    head = ["recipe", *(f"{name}: {m}" for name in names for m in METRICS)]
    print(table(head, rows))


METRICS = ("fidelity", "map_drop")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _scored(
    space: SearchSpace, told: TuneOptions, data: str, folder: Path, chosen: dict[str, Any], kept: str
) -> dict[str, dict[str, float]]:
    """Both recipes on the scored split, calibrated on the training images as ``run`` does; kept in a file."""
    path = folder / f"{kept}.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    if (known.get("values"), known.get("data", data)) != (chosen, data):
        judge = TrialRecipes(space, told, HeldBack(data, None, 0, ""), folder)
        known = {"values": chosen, "data": data}
        for name, values in (("default", space.defaults), ("chosen", chosen)):
            assert values is not None
            known[name] = dict(judge(Attempt(values, 1.0, _unwatched)))
        write_text(path, json.dumps(known))
    return {name: known[name] for name in ("default", "chosen")}


def _unwatched(epoch: int, score: float) -> None:
    """Nothing trains here."""


# -- part=table and part=samplers


def _table(model: Path, options: Mapping[str, str], cache: Path) -> None:
    """Measure every recipe of the grid on all held-back images; one line of the file each."""
    folder = cache / f"{model.stem}_table"
    told = _told(options)
    given = {**_given(model, options, folder), "images": options["images"], **GRID}
    studied, evaluate = set_up(None, given, told)
    path = cache / f"{model.stem}_table.jsonl"
    known = _read(path)
    names = list(studied.space.text)
    everything = list(product(*studied.space.grid(9).values()))
    for index, row in enumerate(everything, start=1):
        if row in known:
            continue
        scores = dict(evaluate(Attempt(dict(zip(names, row, strict=True)), 1.0, _unwatched)))
        with path.open("a") as stream:
            stream.write(json.dumps({"values": row, "names": names, "scores": scores}) + "\n")
        print(f"  {index}/{len(everything)} {row} {scores}", file=sys.stderr, flush=True)


def _read(path: Path) -> dict[tuple[Any, ...], dict[str, float]]:
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {tuple(line["values"]): line["scores"] for line in lines}


def _samplers(model: Path, options: Mapping[str, str], cache: Path) -> None:
    """Let every sampler search the table with many seeds."""
    known = _read(cache / f"{model.stem}_table.jsonl")
    if not known:
        raise SystemExit(f"{cache} has no table of {model.stem}; run part=table first")
    if int(options["trials"]) < FIRST[-1]:
        raise SystemExit(f"trials={options['trials']} is too few; give {FIRST[-1]} at least")
    space = make_space({"model": str(model), "data": "table"}, dict(GRID))
    scores = {row: found[options["objective"]] for row, found in known.items()}
    ordered = sorted(scores.values(), reverse=True)
    good = ordered[max(round(GOOD * len(ordered)) - 1, 0)]
    print(f"\n{model.stem}: {len(ordered)} recipes, {options['objective']} {ordered[-1]:.4f} to {ordered[0]:.4f}, ")
    print(f"median {np.median(ordered):.4f}; the best {GOOD:.0%} begin at {good:.4f}\n")
    rows = []
    for sampler in (Sampler.RANDOM, Sampler.TPE, Sampler.NSGA2):
        curves = np.array([_curve(space, scores, sampler, seed, options) for seed in range(int(options["seeds"]))])
        ends = curves[:, -1]
        first = np.array([np.argmax(c >= good) + 1 if c[-1] >= good else np.inf for c in curves])
        rows.append(
            [
                sampler.value,
                *(f"{np.median(curves[:, n - 1]):.4f}" for n in (*FIRST, curves.shape[1])),
                f"{np.quantile(ends, 0.1):.4f}",
                f"{np.mean(ends >= good):.0%}",
                f"{np.median(first):g}",
            ]
        )
    trials = options["trials"]
    head = [
        "sampler",
        f"best of {FIRST[0]}",
        f"of {FIRST[1]}",
        f"of {trials}",
        "worst tenth",
        f"among the best {GOOD:.0%}",
        "after trials",
    ]
    print(table(head, rows))


def _curve(
    space: SearchSpace,
    scores: Mapping[tuple[Any, ...], float],
    sampler: Sampler,
    seed: int,
    options: Mapping[str, str],
) -> list[float]:
    """The best so far after every trial of one search; what is no new recipe counts as a trial too."""
    import optuna

    require_optuna()
    told = replace(_told(options), sampler=sampler, sampler_seed=seed, few=1)
    study = optuna.create_study(direction="maximize", sampler=sampler_of(told, space, 0))
    names = list(space.text)

    def look_up(attempt: Attempt) -> dict[str, float]:
        return {options["objective"]: scores[tuple(attempt.values[n] for n in names)]}

    search = TrialSearch(study, space, told, look_up)
    for _ in range(told.trials):  # without the defaults first, which would be a head start
        search.one(1.0, told.trials)
    return list(np.maximum.accumulate([found[options["objective"]] for _, found in complete_trials(study)]))


# -- part=trial

TRIED = (
    ("the first", {}),
    ("other ranges, the same images", {"ranges.activation": "percentile"}),
    ("other images", {"calibration.seed": 1}),
    ("other ranges, those images again", {"calibration.seed": 1, "ranges.activation": "minmax"}),
)


class _Spent:
    """Processor seconds by kind of work; of work inside other work each second counts once, for the inner one."""

    def __init__(self) -> None:
        self.seconds = {"shared": 0.0, "own": 0.0}
        self._inside: list[float] = []

    def of(self, kind: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, whose time is kept."""

        def timed(*given: Any, **named: Any) -> Any:
            self._inside.append(0.0)
            start = time.process_time()
            try:
                return work(*given, **named)
            finally:
                whole = time.process_time() - start
                self.seconds[kind] += whole - self._inside.pop()
                if self._inside:
                    self._inside[-1] += whole

        return timed


def _watched() -> _Spent:
    """Time what trials share and what is each one's own."""
    spent = _Spent()
    places = {
        "shared": [(ptq, "_traced"), (ptq, "observe"), (ptq, "describe"), (HeldBackScorer, "_known")],
        "own": [
            *((ptq, name) for name in ("solve_plan", "with_safe_weights", "without_bias_overflow", "score_shifts")),
            (trial_recipes, "simulate"),
            (HeldBackScorer, "__call__"),
        ],
    }
    for kind, functions in places.items():
        for place, name in functions:
            setattr(place, name, spent.of(kind, getattr(place, name)))
    prepared: Any = Images.__dict__["inputs"]  # decoded and letterboxed at first use, then kept
    prepared.func = spent.of("shared", prepared.func)
    return spent


def _trial(model: Path, options: Mapping[str, str], cache: Path) -> None:
    """Processor seconds of trials one after another, by what they are spent on."""
    given = {**_given(model, options, cache / f"{model.stem}_trial"), "images": options["images"]}
    searched = {"ranges.activation": "mse|percentile|minmax", "calibration.seed": "0|1"}
    _, evaluate = set_up(None, {**given, **searched}, _told(options))
    spent, rows = _watched(), []
    for name, change in TRIED:
        spent.seconds = {"shared": 0.0, "own": 0.0}
        start = time.process_time()
        evaluate(Attempt({"ranges.activation": "mse", "calibration.seed": 0, **change}, 1.0, _unwatched))
        whole, (shared, own) = time.process_time() - start, spent.seconds.values()
        rows.append([name, *(f"{s:.2f}" for s in (whole, shared, own, whole - shared - own))])
    print(f"\n{model.stem}, {options['images']} images, {options['held_back']} held back, {options['imgsz']} px\n")
    print(table(["trial", "processor s", "shared with others", "its own work", "the rest"], rows))


# -- part=prune and part=confirm


def _prune(model: Path, options: Mapping[str, str], cache: Path) -> None:
    pruning_study.search(model, options, cache / f"{model.stem}_prune")


def _confirm(model: Path, options: Mapping[str, str], cache: Path) -> None:
    pruning_study.confirm(model, options, cache / f"{model.stem}_prune")


if __name__ == "__main__":
    sys.exit(main())
