"""The study: samplers, stopping, storage, resuming, failures. What a trial does is a cheap function here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from yoloquant.errors import DataError, OutputError, UsageError
from yoloquant.tuning.results import pick, records, rows, write_recipe, write_trials
from yoloquant.tuning.search import SAME_AS, Attempt, TrialSearch, complete_trials
from yoloquant.tuning.space import SearchSpace, make_space
from yoloquant.tuning.study import ERROR, WORKER, open_study, storage_url, this_worker
from yoloquant.tuning.tune_options import Sampler, TuneOptions

pytest.importorskip("optuna")

SPACE = make_space(
    {"model": "a.pt", "data": "d.yaml"}, {"percentile": "90..99.9", "images": "32|64", "range_head": "mse|minmax"}
)
TRAINED = make_space({"model": "a.pt", "data": "d.yaml"}, {"train.lr0": "1e-6..1e-5"})


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage for all tests: its tables take a second to make."""
    return storage_url(TuneOptions(), tmp_path_factory.mktemp("storage"))


def score(attempt: Attempt) -> dict[str, float]:
    """Best at percentile 99.9 and few images."""
    values = attempt.values
    good = float(values["ranges.percentile"]) / 100  # type: ignore[arg-type]
    return {"fidelity": good, "size": float(values["calibration.images"])}  # type: ignore[arg-type]


def search(
    url: str,
    name: str,
    evaluate: Callable[[Attempt], Mapping[str, float]] = score,
    space: SearchSpace = SPACE,
    progress: Any = None,
    **options: Any,
) -> TrialSearch:
    told = TuneOptions(**{"trials": 6, **options})
    return TrialSearch(open_study(url, name, told, space, {"space": space.text}), space, told, evaluate, progress)


@pytest.mark.parametrize("sampler", Sampler)
@pytest.mark.parametrize("objective", ["fidelity", "fidelity,size"])
def test_every_sampler_spends_the_budget(url: str, sampler: Sampler, objective: str) -> None:
    calls: list[Attempt] = []

    def evaluate(attempt: Attempt) -> Mapping[str, float]:
        calls.append(attempt)
        return score(attempt)

    found = search(url, f"{sampler}-{objective}", evaluate, sampler=sampler, objective=objective, population=3, grid=2)
    found.run(6, share=0.5)
    assert len(found.complete) == 6 == found.claimed and all(c.share == 0.5 for c in calls)
    trials = [t for t, _ in found.complete]
    assert len(calls) == 6 - sum(SAME_AS in t.user_attrs for t in trials), "what is known is not measured again"
    for trial, scores in found.complete:
        assert trial.values == [scores[o.value] for o in found.options.objective]
        SPACE.recipe(trial.params)
        assert 90 <= trial.params["ranges.percentile"] <= 99.9


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_limit_leads_the_sampler_and_the_choice(url: str, sampler: str) -> None:
    def evaluate(attempt: Attempt) -> Mapping[str, float]:
        drop = float(attempt.values["ranges.percentile"]) / 1000 - 0.09  # type: ignore[arg-type]
        return {"map_drop": drop, "size": -drop, "fidelity": 1 - drop}

    found = search(
        url, f"limit-{sampler}", evaluate, sampler=sampler, objective="size", drop=0.005, population=4, trials=10
    )
    found.run(10, share=1)
    table = records(found.study, "search", None)
    chosen, _, _ = pick(table, found.options)
    assert chosen is not None and chosen.scores["map_drop"] <= 0.005
    assert min(t.scores["size"] for t in table) < chosen.scores["size"], "the smallest is over the limit"


def test_the_limit_may_be_what_the_defaults_lose(url: str) -> None:
    def evaluate(attempt: Attempt) -> Mapping[str, float]:
        images = float(attempt.values["calibration.images"])  # type: ignore[arg-type]
        loses = float(attempt.values["ranges.head"] == "minmax")
        return {"map_drop": 0.03 + 0.01 * loses, "size": images - loses}

    space = make_space(SPACE.base, {"images": "32|64|128", "range_head": "mse|minmax"})
    found = search(
        url, "default-drop", evaluate, space, objective="size", default_drop=True, sampler="random", trials=12
    )
    assert found.options.limit(None) is None
    found.run(12, share=1)
    assert found.best[0].params == {"calibration.images": 32, "ranges.head": "mse"}, "smaller ones lose more"
    chosen, _, default = pick(records(found.study, "search", space.defaults), found.options)
    assert chosen is not None and chosen.values == found.best[0].params
    assert default is not None and found.options.limit(default.scores) == 0.03
    over = [t for t, s in found.complete if s["map_drop"] > 0.03]
    assert over and found.study.trials[0].params == space.defaults
    with pytest.raises(UsageError, match=r"drop=0.005 and default_drop=true are two limits; give one"):
        TuneOptions(drop=0.005, default_drop=True)


def test_a_grid_ends_when_it_is_exhausted(url: str) -> None:
    found = search(url, "grid-all", sampler="grid", grid=2)
    found.run(100, share=1)
    tried = {tuple(t.params.values()) for t, _ in found.complete}
    assert len(tried) == 8 == len(found.complete), "two of each of three"


@pytest.mark.parametrize("before", [0, 1])
def test_a_lost_point_of_a_grid_is_tried_again(url: str, before: int) -> None:
    """The last one too: Optuna takes the grid for exhausted then, and raises when it is told of it."""
    space = make_space(SPACE.base, {"images": "32|64"})
    found = search(url, f"grid-lost-{before}", lambda a: {"fidelity": 0.5}, space, sampler="grid")
    found.run(before, share=1)
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait(timeout=60)
    trial = found.study.ask()
    space.suggest(trial)
    trial.set_user_attr(WORKER, {**this_worker(), "process": process.pid})
    found.run(10, share=1)
    table = records(found.study, "search", None)
    assert [t.state for t in table].count("lost") == 1
    assert sorted(t.values["calibration.images"] for t in table if t.state == "measured") == [32, 64]  # type: ignore[type-var]
    assert found.points_left == 0


def test_a_failed_point_of_a_grid_stands_in_the_table_and_ends_the_grid(url: str) -> None:
    def evaluate(attempt: Attempt) -> Mapping[str, float]:
        if attempt.values["calibration.images"] == 64:
            raise DataError("image 3 cannot be decoded")
        return {"fidelity": 0.5}

    found = search(url, "grid-failed", evaluate, make_space(SPACE.base, {"images": "32|64"}), sampler="grid")
    found.run(10, share=1)
    states = {t.values["calibration.images"]: t.state for t in records(found.study, "search", None)}
    assert states == {32: "measured", 64: "failed"} and len(found.study.trials) == 2


def test_the_recipe_without_search_is_tried_first(url: str) -> None:
    space = make_space(SPACE.base, {"images": "32|128", "range_head": "mse|minmax"})
    found = search(url, "default", lambda a: {"fidelity": float(a.values["calibration.images"] == 32)}, space)
    found.run(4, share=1)
    first, _ = found.complete[0]
    assert first.params == {"calibration.images": 128, "ranges.head": "mse"} == space.defaults
    chosen, _, default = pick(records(found.study, "search", space.defaults), found.options)
    assert chosen is not None and chosen.values["calibration.images"] == 32 and default is not None
    assert default.number == 0 and default.default


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_trials_that_train_badly_are_stopped(url: str, pruner: str) -> None:
    epochs: list[int] = []

    def evaluate(attempt: Attempt) -> Mapping[str, float]:
        rate = float(attempt.values["train.arguments.lr0"])  # type: ignore[arg-type]
        for epoch in range(1, 5):
            epochs.append(epoch)
            attempt.watch(epoch, 1 - rate * 1e4)
        return {"fidelity": 1 - rate * 1e4}

    found = search(url, pruner, evaluate, TRAINED, pruner=pruner, sampler="random", trials=12)
    found.run(12, share=1)
    states = {t.state.name for t in found.study.trials}
    assert states == {"COMPLETE", "PRUNED"} and len(epochs) < 12 * 4
    stopped = [r for r in records(found.study, "search", None) if r.state == "stopped"]
    assert all(0 < len(r.epochs) <= 4 and not r.scores for r in stopped)
    worst = max(t.params["train.arguments.lr0"] for t, _ in found.complete[4:])
    assert worst < max(r.values["train.arguments.lr0"] for r in stopped), "the bad ones were stopped"


def test_scores_after_epochs_stop_nothing_where_several_objectives_count(url: str) -> None:
    def evaluate(attempt: Attempt) -> Mapping[str, float]:
        attempt.watch(1, 0.5)
        return {"fidelity": 0.5, "size": 1.0}

    found = search(url, "several", evaluate, TRAINED, objective="fidelity,size")
    found.run(2, share=1)
    assert len(found.complete) == 2


def test_a_failed_trial_says_why_and_does_not_end_the_study(url: str) -> None:
    def evaluate(attempt: Attempt) -> Mapping[str, float]:
        if attempt.values["ranges.head"] == "mse":
            raise DataError("image 3 cannot be decoded")
        if attempt.values["calibration.images"] == 32:
            raise ZeroDivisionError("division by zero")
        return {"fidelity": float("nan")}

    found = search(url, "failures", evaluate, sampler="grid", grid=2)
    found.run(8, share=1)
    errors = sorted({t.user_attrs[ERROR] for t in found.study.trials})
    assert len(errors) == 3 and errors[0].startswith("ZeroDivisionError: division")
    assert errors[1].startswith("a score is not a number") and errors[2] == "image 3 cannot be decoded"
    table = records(found.study, "search", None)
    assert [r.state for r in table] == ["failed"] * 8 and pick(table, found.options)[0] is None


def test_a_study_is_taken_up_where_it_was_left(url: str) -> None:
    def evaluate(attempt: Attempt) -> Mapping[str, float]:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(attempt)
        return score(attempt)

    done: list[Attempt] = []
    with pytest.raises(KeyboardInterrupt):
        search(url, "resumed", evaluate, sampler="random").run(6, share=1)
    found = search(url, "resumed", sampler="random")
    interrupted = found.study.trials[3]
    assert found.claimed == 3 and interrupted.state.name == "FAIL"
    found.run(6, share=1)
    assert found.claimed == 6 and len(found.complete) == 6
    assert found.study.trials[4].params == interrupted.params, "what was interrupted is tried again"
    assert [r.state for r in records(found.study, "search", None)].count("lost") == 1
    again = search(url, "resumed", lambda a: pytest.fail("nothing is left to do"), sampler="random")
    again.run(6, share=1)


def test_a_trial_whose_process_was_killed_is_tried_again(url: str) -> None:
    found = search(url, "killed", sampler="random")
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait(timeout=60)
    trial = found.study.ask()
    SPACE.suggest(trial)
    trial.set_user_attr(WORKER, {**this_worker(), "process": process.pid})
    living = found.study.ask()
    living.set_user_attr(WORKER, {**this_worker(), "process": os.getppid()})
    found.run(4, share=1)
    states = [r.state for r in records(found.study, "search", None)]
    assert states[:2] == ["lost", "running"] and states.count("measured") == 3, "the running one counts as taken"
    assert found.study.trials[2].params == trial.params


def test_a_study_of_another_space_is_refused(url: str) -> None:
    search(url, "other").run(1, share=1)
    space = make_space(SPACE.base, {"percentile": "90..99.9", "images": "32|64|128", "range_head": "mse|minmax"})
    with pytest.raises(UsageError, match=r"has another space calibration.images: 32\|64, and now 32\|64\|128; choose"):
        search(url, "other", space=space)
    told = TuneOptions()
    with pytest.raises(UsageError, match=r"another space calibration\.images: 32\|64, and now nothing"):
        open_study(url, "other", told, TRAINED, {"space": TRAINED.text})
    with pytest.raises(UsageError, match="another model sha256: nothing, and now b"):
        open_study(url, "other", told, SPACE, {"space": SPACE.text, "model": {"sha256": "b"}})


def test_a_storage_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for bad in (f"sqlite:///{tmp_path / 'no' / 'folder.db'}", "nosuchdb://here/study"):
        with pytest.raises(OutputError, match=r"the study's storage .* cannot be used"):
            open_study(bad, "x", TuneOptions(), SPACE, {})
    (tmp_path / "not.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(OutputError, match="cannot be used"):
        open_study(f"sqlite:///{tmp_path / 'not.db'}", "x", TuneOptions(), SPACE, {})


def test_where_studies_are_kept(tmp_path: Path) -> None:
    assert storage_url(TuneOptions(), tmp_path) == f"sqlite:///{tmp_path.resolve() / 'study.db'}"
    told = TuneOptions(storage="postgresql://team/studies")
    assert storage_url(told, tmp_path) == "postgresql://team/studies"
    assert storage_url(replace(told, storage=str(tmp_path / "a.db")), tmp_path).endswith("/a.db")


def test_the_best_are_measured_again_once(url: str) -> None:
    found = search(url, "first")
    found.run(6, share=0.25)
    best = [t.params for t, _ in sorted(found.complete, key=lambda p: -p[1]["fidelity"])][:2]
    seen: list[Attempt] = []

    def evaluate(attempt: Attempt) -> Mapping[str, float]:
        seen.append(attempt)
        return score(attempt)

    for _ in range(2):
        search(url, "first-again", evaluate).again(best)
    assert [dict(a.values) for a in seen] == best and {a.share for a in seen} == {1.0}


def test_what_was_looked_up_is_no_estimate_though_another_process_began_a_trial(url: str) -> None:
    slow: list[float] = []
    found = search(url, "looked-up", sampler="random")
    found._eta.add = slow.append  # type: ignore[method-assign]
    found.study.enqueue_trial({"ranges.percentile": 95.0, "calibration.images": 32, "ranges.head": "mse"})
    found.one(1.0, 2)
    assert len(slow) == 1
    found.study.enqueue_trial({"ranges.percentile": 95.0, "calibration.images": 32, "ranges.head": "mse"})
    known = found._known

    def meanwhile(trial: Any, values: Any) -> Any:
        scores = known(trial, values)
        search(url, "looked-up", sampler="random").study.ask()
        return scores

    found._known = meanwhile  # type: ignore[method-assign]
    found.one(1.0, 2)
    assert found.study.trials[1].user_attrs[SAME_AS] == 0 and len(found.study.trials) == 3
    assert len(slow) == 1, "looking up takes no time, and would make the estimate too short"


def test_progress_has_the_best_so_far_and_the_time_left(url: str) -> None:
    told: list[tuple[int, int, str]] = []
    slow = search(
        url,
        "progress",
        lambda a: time.sleep(0.01) or score(a),
        progress=lambda done, total, label: told.append((done, total, label)),
    )
    slow.run(3, share=1, deadline=time.monotonic() + 60)
    assert [t[:2] for t in told] == [(1, 3), (2, 3), (3, 3)]
    best = max(s["fidelity"] for _, s in slow.complete)
    assert f"fidelity {best:.4g}" in told[-1][2] and "left" in told[0][2]
    slow.run(9, share=1, deadline=time.monotonic() - 1)
    assert len(slow.complete) == 3, "no trial begins after the deadline"


def test_the_second_look_has_its_time_before_the_deadline(url: str) -> None:
    found = search(url, "reserve", lambda a: time.sleep(0.02) or score(a), again=3, sampler="random")
    start = found._began
    assert found.ends(0.25, start + 9) == start + 9, "nothing is known yet"
    found.run(4, share=0.25)
    seconds = sorted(t.duration.total_seconds() for t, _ in found.complete if t.duration is not None)
    median = (seconds[1] + seconds[2]) / 2
    assert found.ends(0.25, start + 1000) == pytest.approx(start + 1000 - 4 * median / 0.25), "three and the defaults"
    assert found.ends(0.25, start + 1000, 2) == pytest.approx(start + 1000 - 2 * median / 0.25), "two at a time"
    assert found.ends(0.25, start + median) == pytest.approx(start + median / 2), "half is for the search"
    assert found.ends(1, start + 1000) == start + 1000
    found.run(40, share=0.25, deadline=time.monotonic() - 1)
    assert len(found.complete) == 4


def test_results_as_files(url: str, tmp_path: Path) -> None:
    import csv
    import json

    from yoloquant.recipe import load_recipe

    found = search(url, "files", objective="fidelity,size", sampler="random")
    found.run(6, share=1)
    table = records(found.study, "search", None)
    write_trials(table, tmp_path)
    read = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert len(read) == 6 and {"number", "state", "fidelity", "size", "ranges.percentile", "error"} <= set(read[0])
    assert float(read[2]["fidelity"]) == table[2].scores["fidelity"] == rows(table)[2]["fidelity"]
    assert [t["values"] for t in json.loads((tmp_path / "trials.json").read_text())] == [dict(t.values) for t in table]
    chosen, front, _ = pick(table, found.options)
    assert chosen is not None and chosen in front
    path = write_recipe(SPACE, chosen, found.options, tmp_path / "recipe.yaml")
    assert load_recipe(path) == SPACE.recipe(chosen.values)
    assert complete_trials(found.study)


def test_plots_and_page(url: str, tmp_path: Path) -> None:
    from matplotlib import pyplot

    from yoloquant.tuning.page import write_page
    from yoloquant.tuning.plots import write_plots
    from yoloquant.tuning.results import TuneResult

    found = search(url, "drawn", objective="fidelity,size", sampler="random")
    assert write_plots(found.study, found.options, tmp_path) == []
    found.run(6, share=1)
    before = dict(pyplot.rcParams)
    drawn = write_plots(found.study, found.options, tmp_path)
    assert {p.name for p in drawn} >= {"history_fidelity.png", "history_size.png", "front.png"}
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in drawn) and not pyplot.get_fignums()
    assert dict(pyplot.rcParams) == before, "the style is left as it was"
    table = records(found.study, "search", None)
    chosen, front, default = pick(table, found.options)
    assert chosen is not None
    recipe = write_recipe(SPACE, chosen, found.options, tmp_path / "recipe.yaml")
    failed = replace(table[0], state="failed", error="<script>alert(1)</script>", scores={})
    result = TuneResult(tmp_path, (*table, failed), front, chosen, default, recipe, found.options)
    text = write_page(result, drawn).read_text()
    assert "&lt;script&gt;" in text and "<script" not in text and text.count("data:image/png") == len(drawn)
    assert "ranges.percentile" in text and f"trial {chosen.number}" in text
    assert f"chosen:  fidelity {chosen.scores['fidelity']:.4g}" in result.summary() and "1 trials failed" in str(result)
    assert result.to_dict()["chosen"]["values"] == dict(chosen.values)
