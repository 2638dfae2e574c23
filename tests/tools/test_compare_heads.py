"""Turning head convolutions to float and back: which points of a plan that touches, and a whole run on a tiny model."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from conformance_models import tiny_host_model  # noqa: E402
from core_models import tiny_graph  # noqa: E402
from validation_fakes import NAMES, write_dataset  # noqa: E402

from tools import compare_heads as tool  # noqa: E402
from tools.bench.simulated import scheme_named  # noqa: E402
from yoloquant.errors import UsageError  # noqa: E402
from yoloquant.quantization.plan import Plan  # noqa: E402
from yoloquant.quantization.scheme import derive, weight_point_name  # noqa: E402

SCHEMES = ("tensorrt", "openvino", "onnxruntime", "litert", "portable")
TURNS = tuple(tool.BRANCHES)


def _edges(plan: Plan) -> set[tuple[str, str]]:
    """Every quantized tensor with each of its readers."""
    users = tiny_graph().users
    return {(s.tensor, c) for p in plan.activations for s in p.sites for c in (s.consumers or users[s.tensor])}


def _plans(scheme: str) -> dict[str, Plan]:
    found = tool.plans(tiny_graph(), [scheme_named(scheme)], tool.variants("all"))
    return {name: plan for (_, name), plan in found.items()}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("branch", TURNS)
def test_a_float_branch_loses_its_own_points_and_no_others(scheme: str, branch: str) -> None:
    graph, plans = tiny_graph(), _plans(scheme)
    ops = tool.heads(graph, tool.BRANCHES[branch])
    assert len(ops) == (4 if branch == "box and score" else 2), "the tiny model has two levels"
    own, changed = plans[tool.OWN], plans[f"{branch} float"]
    weights = {weight_point_name(graph.ops[name]) for name in ops}
    assert {p.name for p in own.weights} - {p.name for p in changed.weights} == weights
    lost = _edges(own) - _edges(changed)
    assert _edges(changed) < _edges(own)
    assert lost >= {(graph.ops[name].inputs[0], name) for name in ops}, "their operands are float"
    assert all(reader in ops or tensor in ops for tensor, reader in lost), "nothing else changed"
    kept = {p.name: p for p in changed.points}
    assert all(replace(p, sites=(), tie="") == replace(own.by_name[n], sites=(), tie="") for n, p in kept.items())


@pytest.mark.parametrize("scheme", ("tensorrt", "openvino"))
@pytest.mark.parametrize("branch", TURNS)
def test_turning_twice_changes_nothing(scheme: str, branch: str) -> None:
    graph, turn = tiny_graph(), tool.turned(tool.BRANCHES[branch])
    rules = scheme_named(scheme)
    once = replace(rules, place=lambda g: turn(g, rules.place(g)))
    twice = replace(rules, place=lambda g: turn(g, once.place(g)))
    own, again = derive(graph, rules), derive(graph, twice)
    assert derive(graph, once) != own
    assert _edges(again) == _edges(own) and {p.name for p in again.weights} == {p.name for p in own.weights}
    assert tool.named(graph, once, f"{branch} turned") == f"{branch} int8"


def test_float_weights_leave_every_activation_as_it_is() -> None:
    for scheme in SCHEMES:
        plans = _plans(scheme)
        own, changed = plans[tool.OWN], plans[tool.WEIGHTS_FLOAT]
        assert not changed.weights and own.weights and changed.activations == own.activations


def test_variants_by_name() -> None:
    assert list(tool.variants("box turned")) == [tool.OWN, "box turned"]
    assert list(tool.variants("all")) == [tool.OWN, *(f"{t} turned" for t in TURNS), tool.WEIGHTS_FLOAT]
    with pytest.raises(UsageError, match="allowed are"):
        tool.variants("weights guessed")


@pytest.mark.nightly
def test_a_whole_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    module = tiny_host_model().module
    module.names = dict(enumerate(NAMES))
    model, out = tmp_path / "tiny.pt", tmp_path / "heads.md"
    torch.save({"model": module, "ema": None, "train_args": {"imgsz": 64}}, model)
    data = write_dataset(tmp_path / "set", count=10)
    arguments = [f"model={model}", f"data={data}", "imgsz=64", "images=8", "limit=6", "threads=1", "bootstrap=20"]
    assert tool.main([*arguments, "schemes=tensorrt,litert", f"out={out}"]) == 0
    assert out.read_text().strip() in capsys.readouterr().out
    rows = {}
    for line in out.read_text().splitlines():
        if line.startswith(("| tensorrt: ", "| litert: ")):
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            rows[cells[0]] = cells
    names = ["own", "box float", "score float", "box and score float", "weights float"]
    assert list(rows) == [f"{scheme}: {name}" for scheme in ("tensorrt", "litert") for name in names]
    for name, cells in rows.items():
        own = rows[f"{name.split(':')[0]}: own"]
        if name.endswith(": own"):
            assert cells[-2:] == ["", ""]
            continue
        gain, points = (float(cell.split()[0]) for cell in cells[-2:])
        assert gain == pytest.approx(float(cells[1]) - float(own[1]), abs=0.0011)
        assert points == pytest.approx(float(own[3]) - float(cells[3]), abs=0.011)
    assert len({rows[f"litert: {name}"][1] for name in names}) > 1, "the variants differ"
    assert np.all([0 < float(cells[1]) <= 1 for cells in rows.values()])
    assert tool.main([*arguments, "schemes=guess"]) == 2 and "guess" in capsys.readouterr().err
