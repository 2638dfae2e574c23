"""The tools: drawing subsets, simulating a gate, reading options."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.gate import load_gate
from yoloquant.evaluation.results import Comparison
from yoloquant.types import Verdict

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tiny_models import tiny_export_artifact, tiny_images  # noqa: E402
from validation_fakes import FakeRunner, label_rows, write_dataset  # noqa: E402

from yoloquant.runtime.core.letterbox import place  # noqa: E402


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tools.{name}", ROOT / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_subset_is_stratified_and_repeatable() -> None:
    choose = _tool("make_coco_subset").choose
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.random(10) ** 3 * 2, (400, 10))
    chosen = choose(counts, 80, seed=1)
    assert chosen == sorted(set(chosen)) and len(chosen) == 80
    assert chosen == choose(counts, 80, seed=1) != choose(counts, 80, seed=2)

    def distance(rows: list[int]) -> float:
        return float(np.abs(counts[rows].mean(axis=0) - counts.mean(axis=0)).max())

    at_random = [distance(rng.choice(400, 80, replace=False).tolist()) for _ in range(50)]
    assert distance(chosen) < min(at_random)
    assert choose(counts, 400, seed=0) == list(range(400))


def test_a_subset_validates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_dataset(tmp_path / "set", count=12), tmp_path / "out"
    tool = _tool("make_coco_subset")
    assert tool.main([f"data={data}", "--images", "5", "name=five", f"--out={out}"]) == 0
    assert "five: 5 images" in capsys.readouterr().out
    subset = ValidationSet.from_yaml(out / "five.yaml")  # holds the images against the manifest
    assert len(subset) == 5 and sorted(p.name for p in out.iterdir()) == ["five.json", "five.txt", "five.yaml"]
    assert tool.main([f"data={data}", "images=13"]) == 2
    assert tool.main(["data=nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    parse = _tool("options").parse_options
    assert parse(["a=1", "--b-c", "2"], {"a": "", "b_c": "", "d": "9"}, "") == {"a": "1", "b_c": "2", "d": "9"}
    for words in (["e=1"], ["a"], ["--a"]):
        with pytest.raises(SystemExit) as stop:
            parse(words, {"a": ""}, "")
        assert stop.value.code == 2
    assert "allowed are a" in capsys.readouterr().err


def test_the_simulation_passes_good_and_fails_bad(tmp_path: Path) -> None:
    tool = _tool("simulate_gate")
    data = ValidationSet.from_yaml(write_dataset(tmp_path / "set", count=20))
    where = place((48, 64), (64, 64))
    rows = label_rows([(i.classes, where.to_input(i.boxes)) for i in data.images])
    moved = [r + np.array([3, 0, 3, 0, 0, 0]) for r in rows]
    runners = {"fp32": FakeRunner(rows), "good": FakeRunner(rows), "bad": FakeRunner(moved)}
    evaluation = evaluate(runners, data, EvaluateOptions(warmup=0))
    gate = load_gate({"name": "g", "limits": {"fidelity": 0.9}, "min_images": 10, "min_replicates": 20})
    rng = np.random.default_rng(0)
    weights = tool.sample_weights(20, 15, 40, rng)
    assert weights.shape == (41, 20) and (weights.sum(axis=1) == 15).all()
    assert ((weights > 0) <= (weights[0] > 0)).all()  # resamples of the sample, not of the population
    comparer = Comparer(evaluation, BootstrapOptions(replicates=2))
    for name, verdict in (("good", (Verdict.PASS, [])), ("bad", (Verdict.FAIL, ["fidelity fail"]))):
        found = comparer.resampled(name, weights)
        measured = comparer.measurements(Comparison(None, None, found.intervals["fidelity"]), found, weights)
        assert tool.verdict_of(gate, measured) == verdict == tool.verdict_of(gate, tool.without_labels(measured))
    rows = tool.simulate_gate("tiny", evaluation, gate, {**tool.DEFAULTS, "trials": "4", "replicates": "30"})
    text = "\n".join(tool.table(rows, 4))
    assert "| tiny | good | between | +0.00 | 0.995 | +0.000 | 100 / 0 / 0 | 100 / 0 / 0 | - |" in text
    assert "0 / 100 / 0 | 0 / 100 / 0 | fidelity fail |" in text
    assert tool.kind_of("weights rounded", 0.009, -0.02) == "harmless" == tool.kind_of("litert plan", -0.03, 0.0)
    assert {tool.kind_of("BGR for RGB", 0.02, 0.0), tool.kind_of("another checkpoint", -0.01, 0.0)} == {"harmful"}
    assert tool.kind_of("litert plan", 0.0, -0.06) == "harmful" and tool.kind_of("litert plan", 0.015, 0.0) == "between"
    named = [{**row, "kind": "harmless" if row["artifact"] == "good" else "harmful"} for row in rows]
    assert (
        "false pass 0.0 % of 1 harmful artifacts' samples, false fail 0.0 % of 1 harmless" in tool.summary(named, 4)[0]
    )


def test_every_simulated_mistake_of_a_network_changes_it() -> None:
    """They once changed nothing: convolutions of a traced graph are calls, not modules."""
    tool = _tool("simulate_gate")
    graph = tiny_export_artifact().graph
    images = tiny_images(2)

    def run(module: Any) -> np.ndarray:
        return module(torch.from_numpy(images[0])).numpy()

    with torch.inference_mode():
        plain = run(graph.module)
        changed = {
            "rounded": tool._rounded(graph, 1.0),
            "saturating": tool._rounded(graph, 0.5),
            "one range": tool._clipped(graph, images, 0.25, only=3),
            "stale": tool._clipped(graph, [0.25 * image for image in images], 1.0),
            "bfloat16": tool._behind(graph, graph.module, tool.Bfloat16),
        }
        moved = {name: float(np.abs(run(module) - plain).max()) for name, module in changed.items()}
        assert np.array_equal(run(tool._clipped(graph, images, 1.0)), plain)  # the whole range cuts nothing
        assert np.array_equal(run(graph.module), plain)  # all are copies
    assert min(moved.values()) > 0, moved
    assert moved["saturating"] > moved["rounded"]


def test_the_noise_is_what_a_twin_differs_by() -> None:
    tool = _tool("simulate_gate")
    values = {"model": "m", "drop": 0.01, "fidelity": 0.95, "shift": 0.0}
    rows = [{**values, "artifact": "a plan"}, {**values, "artifact": tool.twin("a plan"), "drop": 0.013}]
    (line,) = tool.noise(rows)
    assert "moves mAP50-95 by 0.300 (at most 0.300) points" in line and "over 1 pairs" in line
    assert tool.noise(rows[:1]) == []
    assert tool.kind_of(tool.twin("litert plan"), 0.0, 0.0) == "harmless"
