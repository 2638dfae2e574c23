"""Plots of a run: what they show equals the history and the plans, and drawing leaves no trace in matplotlib."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from core_models import family_graph, sample_images, tiny_artifact, write_images
from PIL import Image

from yoloquant.bridge.exportable import exportable
from yoloquant.graph.trace import trace
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.calibrate import observe, solve_plan, weight_of
from yoloquant.quantization.plan import Plan, PointKind
from yoloquant.quantization.qparams import QParams
from yoloquant.quantization.scheme import PORTABLE, derive
from yoloquant.quantization.sqnr import Stage, weight_sqnr
from yoloquant.training.qat import plots
from yoloquant.training.qat.history import EpochScores, History
from yoloquant.training.qat.plot_data import (
    Noise,
    Trajectory,
    measure_noise,
    most_moved,
    score_curves,
    trajectories,
    weight_changes,
    worst_points,
)

NAMES = {"qat_scores.png", "qat_ranges.png", "qat_sqnr.png", "qat_weights.png", "qat_sqnr.json"}


@lru_cache(maxsize=2)
def stage(task: str = "detect") -> Stage:
    if task == "detect":
        return Stage(tiny_artifact().graph, tiny_artifact().plans["portable"])
    graph = family_graph("yolo11", task)
    plan = derive(graph, PORTABLE)
    return Stage(graph, solve_plan(graph, plan, observe(graph, (plan,), sample_images(8, seed=1))))


def scaled(plan: Plan, factor: float) -> Plan:
    """Every learnable scale times a factor."""
    changed = {
        p.name: QParams(p.params.scale * np.float32(factor), p.params.zero_point)
        for p in plan.points
        if p.params is not None and not p.fixed
    }
    return plan.with_params(changed, "learned")


def history(plan: Plan, factors: tuple[float, ...] = (1.0, 1.1, 0.9), *, classify: bool = False) -> History:
    found = History()
    key = "metrics/accuracy_top1" if classify else "metrics/mAP50-95(B)"
    for epoch, factor in enumerate(factors):
        quantized, plain = {key: 0.5 + 0.01 * epoch, "val/loss": 1.0}, {key: 0.6 - 0.01 * epoch}
        fidelity = None if classify else 0.9 + 0.01 * epoch
        found.add(EpochScores(epoch, quantized, plain, fidelity, quantized[key]), scaled(plan, factor))
    return found


def run(tmp_path: Path, task: str = "detect", factors: tuple[float, ...] = (1.0, 1.1, 0.9)) -> plots.Run:
    before = stage(task)
    write_images(tmp_path / "data")
    files = tuple(sorted((tmp_path / "data" / "images" / "val").glob("*.png")))
    after = Stage(before.graph, scaled(before.plan, factors[-1]))
    found = history(before.plan, factors, classify=task == "classify")
    return plots.Run(found, before, after, len(factors) - 1, files)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "factors"), [("detect", (1.0, 1.1, 0.9)), ("detect", (1.0,)), ("classify", (1.0, 1.2))]
)
def test_every_file_is_there_and_is_an_image(tmp_path: Path, task: str, factors: tuple[float, ...]) -> None:
    folder = tmp_path / "run"
    written = plots.write_plots(run(tmp_path, task, factors), folder)
    assert {p.name for p in written} == {p.name for p in folder.iterdir()} == NAMES  # no temporary file stays
    for path in (p for p in written if p.suffix == ".png"):
        with Image.open(path) as image:
            assert image.format == "PNG" and min(image.size) > 300
            assert len(np.unique(np.asarray(image))) > 20  # decodes, and is not blank
    noise = json.loads((folder / "qat_sqnr.json").read_text())
    assert noise["images"] == 4 and noise["weights"].keys() == weight_sqnr(stage(task)).keys()


def test_curves_equal_the_history() -> None:
    found = history(stage().plan)
    quantized, plain, fidelity = score_curves(found)
    assert quantized.name == plain.name == "mAP50-95(B)" and fidelity.name == "fidelity"
    assert quantized.epochs == plain.epochs == fidelity.epochs == (0, 1, 2)
    assert quantized.values == tuple(s.quantized["metrics/mAP50-95(B)"] for s in found.scores)
    assert plain.values == tuple(s.plain["metrics/mAP50-95(B)"] for s in found.scores if s.plain)
    assert fidelity.values == tuple(s.fidelity for s in found.scores)


def test_what_was_not_measured_is_not_a_number() -> None:
    found = history(stage().plan, classify=True)
    found.scores[1] = replace(found.scores[1], plain=None)
    quantized, plain, fidelity = score_curves(found)
    assert quantized.name == "accuracy_top1" and all(map(math.isnan, fidelity.values))
    assert [math.isnan(v) for v in plain.values] == [False, True, False]
    assert len(plots.draw_scores((quantized, plain, fidelity), 1).axes) == 1  # no panel for fidelity


@pytest.mark.parametrize("chosen", [0, 2])
def test_lines_of_the_picture_are_the_curves(chosen: int) -> None:
    curves = score_curves(history(stage().plan))
    figure = plots.draw_scores(curves, chosen)
    for axes, curve in zip(figure.axes, (curves[0], curves[2]), strict=True):
        lines: dict[str, Any] = {str(line.get_label()): line for line in axes.lines}
        assert tuple(lines["quantized"].get_ydata()) == curve.values
        start = next(line for label, line in lines.items() if label.startswith("calibrated start"))
        assert set(start.get_ydata()) == {curve.values[0]}
        mark = next(line for label, line in lines.items() if label.startswith("chosen"))
        assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([chosen], [curve.values[chosen]])


@pytest.mark.parametrize("kind", list(PointKind))
def test_trajectories_are_log_ratios_and_leave_fixed_ranges_out(kind: PointKind) -> None:
    plan = stage().plan
    found = trajectories(history(plan, (1.0, 1.1, 0.5)), plan, kind)
    for one in found:
        assert one.values == pytest.approx((0.0, math.log2(1.1), -1.0), abs=1e-5) and one.moved == pytest.approx(1.0)
    learned = [p for p in plan.points if p.kind is kind and not p.fixed]
    assert sum(1 + one.shared for one in found) == len(learned)  # tied points count once


def test_movers_of_both_directions_are_named() -> None:
    ends = (-5.0, -4.0, -3.5, -3.0, 2.0, 1.0, 0.0)
    found = [Trajectory(str(e), 0, (0, 1), (0.0, e)) for e in ends]
    assert {t.name for t in most_moved(found, 4)} == {"-5.0", "-4.0", "2.0", "1.0"}
    assert {t.name for t in most_moved(found[:4], 4)} == {"-5.0", "-4.0", "-3.5", "-3.0"}
    assert most_moved(found[-1:], 4) == []


def test_the_worst_points_by_either_end() -> None:
    noise = {"a": (30.0, 10.0), "b": (20.0, 25.0), "c": (40.0, 41.0), "d": (15.0, 35.0)}
    assert worst_points(noise, 3) == [("d", 15.0, 35.0), ("b", 20.0, 25.0), ("a", 30.0, 10.0)]


def test_an_unchanged_model_has_the_same_noise_at_both_ends(tmp_path: Path) -> None:
    of = run(tmp_path, factors=(1.0,))
    noise = measure_noise(of.before, of.after, of.held_back, count=2)
    assert noise.images == 2 and noise.activations
    assert all(before == after for part in (noise.weights, noise.activations) for before, after in part.values())
    for one in weight_changes(of.before, of.after, noise):
        assert (one.moved, one.changed, one.scale_ratio) == (0.0, 0.0, 1.0)
        assert np.array_equal(one.before, one.after)


def test_weights_are_counted_in_steps_of_their_channel(tmp_path: Path) -> None:
    of = run(tmp_path, factors=(1.0, 0.5))
    changes = weight_changes(of.before, of.after, measure_noise(of.before, of.after, ()))
    assert 0 < len(changes) <= 6
    for one in changes:
        point = of.before.plan.by_name[one.name]
        assert point.params is not None
        assert one.scale_ratio == pytest.approx(0.5)
        assert one.changed > 0.9  # half the step: nearly every integer doubles
        assert np.abs(one.before).max() < 4 * one.spec.qmax
        edge = plots.draw_weights([one]).axes[0]
        clips = {round(float(line.get_xdata()[0]), 6) for line in edge.lines}
        ends = one.spec.qmin, one.spec.qmax  # the first weights keep to half the range
        assert {float(e) for e in ends} | {e / 2 for e in ends} <= clips


@pytest.mark.parametrize("broken", ["no files", "missing"])
def test_without_images_only_weights_are_measured(
    tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    of = run(tmp_path)
    files = () if broken == "no files" else (tmp_path / "absent.png",)
    noise = measure_noise(of.before, of.after, files)
    assert noise.weights and not noise.activations and noise.images == 0
    assert "SQNR of activations is not plotted" in caplog.text
    assert len(plots.draw_noise(noise).axes) == 2


def test_nothing_to_draw_is_no_error() -> None:
    assert plots.draw_ranges([], []).axes and plots.draw_noise(Noise({}, {}, 0)).axes and plots.draw_weights([])


def test_a_folder_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Trainer:
        save_dir = tmp_path / "file"

    Trainer.save_dir.write_text("in the way")
    of = run(tmp_path)
    monkeypatch.setattr(plots, "run_of", lambda trainer, artifact: of)
    of.history.write(Trainer(), tiny_artifact())
    assert "plots of the run were not written" in caplog.text


@pytest.mark.parametrize("resumed", [False, True])
def test_a_run_starts_from_the_float_weights_even_if_it_was_resumed(resumed: bool) -> None:
    start = tiny_artifact()
    plain = copy.deepcopy(start.model.module)
    if resumed:  # the trainer was set up with the weights of last.pt; its float model was restored
        with torch.no_grad():
            for parameter in plain.parameters():
                parameter.mul_(1.25)
    best = Artifact(start.traced, start.plans, {}, {"qat": {"epoch": 4}})
    trainer = SimpleNamespace(
        artifact=start,
        plan=start.plans["portable"],
        history=History(),
        test_loader=SimpleNamespace(dataset=SimpleNamespace(samples=[("a.png", 0), ("b.png", 1)])),
        resumed_from=object() if resumed else None,
        float_model=plain,
    )
    found = plots.run_of(trainer, best)
    assert found.chosen == 4 and [p.name for p in found.held_back] == ["a.png", "b.png"]
    assert found.after.graph is start.graph and (found.before.graph is start.graph) is not resumed
    expected = trace(exportable(replace(start.model, module=plain), start.info), start.info)
    for point in trainer.plan.weights:
        assert np.array_equal(weight_of(found.before.graph, point), weight_of(expected, point))


def test_drawing_touches_no_global_state() -> None:
    code = """
import sys
from yoloquant.training.qat import plots
assert "matplotlib" not in sys.modules
import matplotlib
# reading "backend" loads pyplot
settings = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != "backend"}
before = settings()
from yoloquant.training.qat.plot_data import Noise, Curve, Trajectory
c = Curve("x", (0, 1), (0.1, 0.2))
plots.draw_scores((c, c, c), 1)
plots.draw_ranges([Trajectory("a", 0, (0, 1), (0.0, 1.0))], [])
plots.draw_noise(Noise({"a": (1.0, 2.0)}, {}, 0))
assert "matplotlib.pyplot" not in sys.modules
assert settings() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)
