"""Layers that are slower in integers: found by the profile, taken back only where the whole network gains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core_models import tiny_artifact, write_images

import yoloquant
from yoloquant.cli import main as cli
from yoloquant.errors import TargetError, UsageError
from yoloquant.evaluation.latency import time_in_turns
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.float_layers import layer_of
from yoloquant.runtime.apps.bench import BenchOptions, Taken
from yoloquant.runtime.apps.bench_worker import Turn
from yoloquant.runtime.device.sensors import Reading
from yoloquant.sensitivity import plan_times, slow_layers
from yoloquant.sensitivity.float_search_options import FloatSearchOptions, SearchGoal
from yoloquant.sensitivity.plan_times import FLOAT, FOUND, INTEGERS
from yoloquant.sensitivity.slow_layers import LatencySearch, compare_layers, search_slow_layers
from yoloquant.targets import get
from yoloquant.targets.onnxruntime import OnnxRuntimeTarget
from yoloquant.types import ExportedModel

SCHEME = "onnxruntime"
SLOW, HARDLY = "model.3", "model.1"
OPTIONS = FloatSearchOptions(scheme=SCHEME, goal=SearchGoal.LATENCY, threads=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("set"), train=10, val=2)


class Machine:
    """A runtime that writes nothing and whose times are made up.

    Args:
        whole: Milliseconds of the whole network, by layers in float; a list gives one for each measurement.
    """

    def __init__(self, whole: Mapping[tuple[str, ...], float | list[float]]) -> None:
        self.whole = {layers: list(ms) if isinstance(ms, list) else [ms] * 9 for layers, ms in whole.items()}
        self.timed: list[tuple[str, ...]] = []

    def export(self, artifact: Artifact, folder: Path, stem: str, precision: str = "int8") -> ExportedModel:
        info = artifact.info
        metadata = artifact.metadata()
        return ExportedModel(SCHEME, folder / stem, info, info.layout, precision=precision, metadata=metadata)

    def layer_times(self, exported: ExportedModel, image: np.ndarray, threads: int | None) -> dict[str, float]:
        assert image.shape == (1, 3, 64, 64) and threads == 1
        names = [n for n, p in tiny_artifact().graph.module.named_parameters() if p.dim() == 4]
        integers = {
            name: 3.0 if name.startswith(f"{SLOW}.") else 2.5 if name.startswith(f"{HARDLY}.") else 1.0
            for name in names
        }
        return integers if exported.precision == "int8" else dict.fromkeys(names, 2.0)

    def time_in_turns(self, models: Mapping[str, ExportedModel], pictures: Any, threads: int) -> Taken:
        assert len(pictures) == 2 and threads == 1
        ms = {INTEGERS: 10.0, FLOAT: 20.0}
        if FOUND in models:
            layers = tuple(models[FOUND].metadata["float_layers"])
            self.timed.append(layers)
            ms[FOUND] = self.whole[layers].pop(0)
        nothing = Reading(None, None, {})
        # rounds scatter by 2 %, one slow round in ten is everybody's
        turns = {
            name: [(Turn(np.array([[9.0, ms[name] * f / 1e3, 9.0]]), 1.0, 1.0, None), nothing) for f in factors]
            for name, factors in {name: [1.0] * 9 + [1.5 if name == FOUND else 1.0] for name in models}.items()
        }
        return Taken(turns, {}, {}, {})


def run_on(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    """Let a made-up runtime stand for ONNX Runtime."""
    monkeypatch.setattr(OnnxRuntimeTarget, "export", lambda _, *args: machine.export(*args))
    monkeypatch.setattr(OnnxRuntimeTarget, "export_float", lambda _, *args: machine.export(*args, "fp32"))
    monkeypatch.setattr(OnnxRuntimeTarget, "layer_times", lambda _, *args: machine.layer_times(*args))
    monkeypatch.setattr(plan_times, "time_in_turns", machine.time_in_turns)


def search(monkeypatch: pytest.MonkeyPatch, data: Path, machine: Machine) -> LatencySearch:
    run_on(monkeypatch, machine)
    found = yoloquant.search(tiny_artifact(), data=data, options=OPTIONS)
    assert isinstance(found, LatencySearch)
    return found


def test_the_set_that_makes_the_whole_network_fastest_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    machine = Machine({(HARDLY, SLOW): 9.5, (SLOW,): 9.0})
    found = search(monkeypatch, data, machine)
    # both, the better half, and that once more beside the float model
    assert machine.timed == [(HARDLY, SLOW), (SLOW,), (SLOW,)]
    assert {t.layer for t in found.times if t.slower} == {SLOW, HARDLY}
    assert found.best is not None and found.best.layers == (SLOW,) and found.best.ratio.value == 0.9
    assert found.milliseconds == {INTEGERS: 10.0, FLOAT: 20.0, FOUND: 9.0}
    text = found.summary()
    assert "2 of " in text and "0.900 [" in text and "fastest" not in text
    assert [line.endswith("taken back") for line in text.splitlines()[2:4]] == [True, False]
    json.dumps(found.to_dict())
    # with the measurement in the plan, and so in every report
    plan = Artifact.load(found.artifact.save(tmp_path / "tiny_int8.pt")).plans[SCHEME]
    assert plan.float_layers == (SLOW,) and f"{SLOW}.conv:weight" not in plan.by_name
    assert plan.notes[-1].endswith(f"(threads=1): {SLOW} 3.000 > 2.000 ms; the whole network 10.00 -> 9.00 ms")


@pytest.mark.parametrize("alone", [10.0, 9.9, [9.0, 10.1]], ids=["equal", "within noise", "lucky once"])
def test_what_does_not_make_the_whole_network_faster_stays(
    monkeypatch: pytest.MonkeyPatch, data: Path, alone: float | list[float]
) -> None:
    found = search(monkeypatch, data, Machine({(HARDLY, SLOW): 11.0, (SLOW,): alone}))
    assert found.best is None and found.met
    assert found.artifact.plans[SCHEME].digest() == tiny_artifact().plan_for(get(SCHEME).scheme).digest()
    assert "no set of them in float was faster" in found.summary()


def test_slower_is_slower_in_every_round() -> None:
    int8 = [{"a": 2.0, "b": 2.0, "only here": 1.0}, {"a": 2.0, "b": 0.9}, {"a": 3.0, "b": 4.0}]
    exact = [{"a": 1.0, "b": 1.0}] * 3
    a, b = compare_layers(list(zip(int8, exact, strict=True)))
    assert (a.layer, a.int8_ms, a.float_ms, a.slower) == ("a", 2.0, 1.0, True)
    assert (b.layer, b.int8_ms, b.slower) == ("b", 2.0, False)


def test_a_model_that_is_really_profiled_and_timed(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.setattr(slow_layers, "ROUNDS", 2)
    short = BenchOptions(rounds=2, runs=1, warmup=1)
    monkeypatch.setattr(plan_times, "time_in_turns", partial(time_in_turns, options=short))
    # one that is always tried: which ones really are slower is the machine's affair
    monkeypatch.setattr(slow_layers._SlowLayerSearch, "candidates", lambda *_: [SLOW])
    found = search_slow_layers(tiny_artifact(), data=data, options=OPTIONS)
    artifact = tiny_artifact()
    weighted = {layer_of(p.name) for p in artifact.plan_for(get(SCHEME).scheme).weights}
    assert weighted <= {t.layer for t in found.times}
    assert all(t.int8_ms >= 0 and t.float_ms >= 0 for t in found.times)
    assert found.milliseconds[INTEGERS] > 0 and found.milliseconds[FLOAT] > 0
    assert [t.layers for t in found.trials] == [(SLOW,)] and found.trials[0].ratio.value > 0
    assert found.artifact.plans[SCHEME].float_layers == (found.best.layers if found.best else ())


def test_an_export_that_cannot_be_timed(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    run_on(monkeypatch, Machine({}))
    broken = Taken({}, {}, {INTEGERS: "its process died"}, {})
    monkeypatch.setattr(plan_times, "time_in_turns", lambda *args: broken)
    with pytest.raises(TargetError, match="'integers' cannot be timed: its process died"):
        search_slow_layers(tiny_artifact(), data=data, options=OPTIONS)


@pytest.mark.parametrize("scheme", ["litert", "portable", "tensorrt"])
def test_runtimes_that_tell_no_times_of_layers(data: Path, scheme: str) -> None:
    with pytest.raises(UsageError, match=r"goal=latency knows scheme=onnxruntime and openvino"):
        search_slow_layers(tiny_artifact(), data=data, options=replace(OPTIONS, scheme=scheme))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["goal=latency", "fidelity=0.9", "share=0.1"], "fidelity=, share= cannot be used here: goal=latency"),
        (["threads=1"], "threads= cannot be used here: it is for goal=latency"),
    ],
)
def test_options_of_the_other_goal(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "m.pt", "data=d.yaml", *words]) == 2
    assert message in capsys.readouterr().err
