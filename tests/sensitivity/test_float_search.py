"""The smallest set of layers in float: found without hints where one layer is spoiled, and refused where none helps."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from core_models import checkpoint, tiny_artifact, write_images

import yoloquant
from yoloquant.errors import DataError, PlanError, UsageError
from yoloquant.evaluation.latency import time_in_turns
from yoloquant.graph.ops import OpKind, OpNode
from yoloquant.options import build
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.qparams import QParams
from yoloquant.runtime.apps.bench import BenchOptions
from yoloquant.sensitivity import plan_times
from yoloquant.sensitivity.float_search import _Search, search_float_layers
from yoloquant.sensitivity.float_search_options import FloatSearchOptions
from yoloquant.sensitivity.float_search_results import ExportFigures, FloatSearch, FloatTrial
from yoloquant.sensitivity.search_start import multiplications
from yoloquant.targets import get

SPOILED = "model.3"  # everything behind it depends on it alone
SCHEME = "onnxruntime"


def spoiled(artifact: Artifact) -> Artifact:
    """The artifact with the weights of one layer on a grid so coarse that most of them round to 0."""
    plan = artifact.plan_for(get(SCHEME).scheme)
    point = plan.by_name[f"{SPOILED}.conv:weight"]
    assert point.params is not None
    coarse = QParams(point.params.scale * 100, point.params.zero_point)
    points = tuple(replace(p, params=coarse) if p.name == point.name else p for p in plan.points)
    return replace(artifact, plans={SCHEME: replace(plan, points=points)})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("set"), train=10, val=6)


def options(**changes: object) -> FloatSearchOptions:
    return FloatSearchOptions(**{"scheme": SCHEME, "images": 6, "ranking_images": 3, "share": 0.5, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(data: Path) -> float:
    """Fidelity of the plan before it is spoiled."""
    found = search_float_layers(tiny_artifact(), data=data, options=options(fidelity=0.0))
    assert found.met and found.best is found.whole and not found.best.layers
    assert found.whole.fidelity is not None
    return found.whole.fidelity


@pytest.fixture(scope="module")
def found(data: Path, whole: float) -> FloatSearch:
    return search_float_layers(spoiled(tiny_artifact()), data=data, options=options(fidelity=0.6 * whole))


def test_the_spoiled_layer_is_found_without_hints(found: FloatSearch, whole: float) -> None:
    assert found.whole.fidelity is not None and found.whole.fidelity < 0.6 * whole, "nothing was spoiled"
    assert found.met and found.best.layers == (SPOILED,), found
    assert found.gains[0][0] == SPOILED and found.gains[0][1] > 2 * found.gains[1][1]
    macs = multiplications(tiny_artifact().graph)
    assert found.best.share == pytest.approx(macs[SPOILED] / sum(macs.values()))
    assert SPOILED in found.summary() and "found: 1 layers" in found.summary()


def test_a_transposed_convolution_counts_the_places_that_it_reads() -> None:
    ops = (
        OpNode("a:conv2d:0", OpKind.CONV, "a", (1, 8, 10, 10), ("images",), "a.weight"),
        OpNode("b:conv_transpose2d:0", OpKind.CONV_TRANSPOSE, "b", (1, 4, 20, 20), ("a:conv2d:0",), "b.weight"),
    )
    weights = {"a.weight": torch.zeros(8, 3, 3, 3), "b.weight": torch.zeros(8, 4, 2, 2)}
    graph: Any = SimpleNamespace(
        body=lambda: ops, ops={op.name: op for op in ops}, module=SimpleNamespace(get_parameter=weights.__getitem__)
    )
    assert multiplications(graph) == {"a": 8 * 27 * 100, "b": 8 * 16 * 100}


def test_what_is_found_is_proved_by_the_runtime_itself(found: FloatSearch, whole: float) -> None:
    figures = found.best.exported
    assert figures is not None and figures.fidelity is not None and figures.fidelity >= 0.6 * whole
    assert figures.ratio is None and found.whole.exported is None and not found.simulated
    shown = f"its onnxruntime export, on the same images, threads={found.threads}: fidelity {figures.fidelity:.4f}"
    assert shown in found.summary() and "no set of layers" not in found.summary()
    note = found.artifact.plans[SCHEME].notes[-1]
    assert note.startswith("left in float for accuracy (6 images, simulated): fidelity ")
    assert note.endswith(f"onnxruntime export: fidelity {figures.fidelity:.4f}")


def test_a_limit_on_time_that_is_really_measured(data: Path, whole: float, monkeypatch: pytest.MonkeyPatch) -> None:
    short = BenchOptions(rounds=2, runs=1, warmup=1)
    monkeypatch.setattr(plan_times, "time_in_turns", partial(time_in_turns, options=short))
    # one that every set keeps to: what is measured here is the machine's affair
    wanted = options(fidelity=0.6 * whole, slower=1e6, threads=1)
    found = search_float_layers(spoiled(tiny_artifact()), data=data, options=wanted)
    assert found.met and found.best.layers == (SPOILED,) and found.best.exported is not None
    ratio, milliseconds = found.best.exported.ratio, found.best.exported.milliseconds
    assert ratio is not None and 0 < ratio.low <= ratio.value <= ratio.high
    assert set(milliseconds) == {"integers", "found"} and min(milliseconds.values()) > 0


def test_a_plan_whose_runtime_is_elsewhere_is_told_to_be_simulated(data: Path) -> None:
    for scheme, why in (("tensorrt", "is on another device"), ("portable", "is no single runtime's")):
        found = search_float_layers(tiny_artifact(), data=data, options=options(scheme=scheme, fidelity=0.0))
        assert found.met and found.best.exported is None
        assert why in found.simulated and f"not exported: {found.simulated}; these figures" in found.summary()


def test_the_plan_is_saved_and_exported(found: FloatSearch, tmp_path: Path) -> None:
    assert found.artifact.plans[SCHEME].float_layers == (SPOILED,)
    artifact = Artifact.load(found.artifact.save(tmp_path / "tiny_int8.pt"))
    plan: Plan = artifact.plans[SCHEME]
    assert plan.float_layers == (SPOILED,) and f"{SPOILED}.conv:weight" not in plan.by_name
    listed = json.loads(json.dumps(found.to_dict()))
    assert listed["best"]["layers"] == [SPOILED] and listed["best"]["exported"]["fidelity"] > 0
    assert listed["options"]["share"] == 0.5 and "artifact" not in listed


def test_what_nothing_within_the_share_meets(data: Path, whole: float) -> None:
    impossible = options(fidelity=1.0, share=0.02)
    found = search_float_layers(spoiled(tiny_artifact()), data=data, options=impossible)
    assert not found.met and found.best.share <= 0.02
    assert "not enough" in found.summary() or "helps" in found.summary()


def test_bad_requests(data: Path) -> None:
    with pytest.raises(UsageError, match="a search needs a budget"):
        yoloquant.search(tiny_artifact(), data=data, fidelity=None)
    with pytest.raises(UsageError, match="names 2 schemes; search for one at a time"):
        yoloquant.search(tiny_artifact(), data=data, scheme="portable,openvino")
    with pytest.raises(UsageError, match="share"):
        yoloquant.search(tiny_artifact(), data=data, share=0)


@pytest.mark.parametrize(
    ("line", "names", "said"),
    [
        ("0 0.5 0.5 0.2 0.1 0.7", None, "6 columns; .*another task"),
        (None, "[wolf, fox, crow]", "has other classes than the model"),
    ],
)
def test_images_that_cannot_be_scored_are_told_before_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str | None, names: str | None, said: str
) -> None:
    yaml = write_images(tmp_path / "set", train=8, val=3)
    if line:
        (tmp_path / "set" / "labels" / "val" / "000.txt").write_text(line)
    if names:
        yaml.write_text(
            "".join(f"names: {names}\n" if r.startswith("names") else f"{r}\n" for r in yaml.read_text().splitlines())
        )
    monkeypatch.setattr("yoloquant.quantization.ptq.quantize", lambda *a, **k: pytest.fail("was calibrated"))
    with pytest.raises(DataError, match=said):
        search_float_layers(
            checkpoint(tmp_path / "float.pt"), data=yaml, options=options(fidelity=None, map_drop=1.0, imgsz=64)
        )


@pytest.mark.parametrize("scheme", ["litert", "edgetpu", "ethosu"])
def test_a_plan_that_no_export_would_take_is_not_searched(data: Path, scheme: str) -> None:
    with pytest.raises(UsageError, match=rf"'{get(scheme).scheme.name}' computes .* scheme=portable, .*tensorrt"):
        yoloquant.search(tiny_artifact(), data=data, scheme=get(scheme).scheme.name)


def test_a_budget_that_is_there_by_default_can_be_left_out() -> None:
    wanted = build(FloatSearchOptions, {"fidelity": "none", "map_drop": "0.3"}, "search")
    assert (wanted.fidelity, wanted.map_drop) == (None, 0.3)
    with pytest.raises(UsageError, match=r"fidelity='1\.5' .* a number from 0 to 1, or none"):
        build(FloatSearchOptions, {"fidelity": "1.5"}, "search")


def test_a_budget_that_looks_like_a_gates_fraction_is_told(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    search_float_layers(tiny_artifact(), data=data, options=options(fidelity=None, map_drop=0.01))
    assert "map_drop=0.01 is 0.01 points, a fraction of 0.0001" in caplog.text
    caplog.clear()
    search_float_layers(tiny_artifact(), data=data, options=options(fidelity=None, map_drop=1.0))
    assert "points" not in "".join(r.message for r in caplog.records if r.levelname == "WARNING")


def test_layers_are_named_at_quantization(data: Path) -> None:
    with pytest.raises(PlanError, match=r"float_layers='model\.99' matches none"):
        yoloquant.quantize(
            tiny_artifact().model.module, data=data, scheme="portable", imgsz=64, images=8, float_layers="model.99"
        )


def test_a_set_that_is_promised_is_exported_before_the_search_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime lacks for one set what it keeps for another: no constant difference tells which."""
    found = {("a",): 0.962, ("b", "c"): 0.961, ("b", "c", "d"): 0.964, ("b", "e"): 0.9595}
    search = object.__new__(_Search)
    search.options, search.too_slow, search.refused, search.lacked = (
        FloatSearchOptions(fidelity=0.96),
        frozenset(),
        set(),
        0.0,
    )
    search.trials = {frozenset(names): FloatTrial(names, 0.01, value, None) for names, value in found.items()}
    failed = replace(search.trials[frozenset("a")], exported=ExportFigures(0.954, None))
    search.trials[frozenset("a")] = failed
    monkeypatch.setattr(_Search, "search", lambda self, without: search.trials[frozenset("bcd")])
    other = search.another(failed)
    assert other is not None and other.layers == ("b", "c", "d")
    assert search.lacked == pytest.approx(0.006), "the search itself asked for more than any set has"
    again = search.another(replace(other, exported=ExportFigures(0.95, None)))
    assert again is not None and again.layers == ("b", "c")
    assert search.another(replace(again, exported=ExportFigures(0.95, None))) is None
