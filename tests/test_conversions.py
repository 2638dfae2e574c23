"""What tests share is what each of them would have made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conformance_models import tiny_host_model
from conversions import each_network_once, every_time
from torch import nn

from yoloquant.bridge.exportable import exportable
from yoloquant.bridge.host_model import HostModel, model_info
from yoloquant.graph import traced_model
from yoloquant.graph.trace import Graph, trace
from yoloquant.graph.traced_model import TracedModel
from yoloquant.targets.onnx import emit
from yoloquant.targets.onnx.emission import Emission
from yoloquant.types import ModelInfo, Task

INFO = ModelInfo(Task.DETECT, ("a",), (32, 32))


class Pair(nn.Module):
    """Two layers, which may be one."""

    def __init__(self, *, tied: bool = False, seed: int = 0, turned: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.turned = turned
        if tied:
            self.second = self.first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layers = (self.second, self.first) if self.turned else (self.first, self.second)
        return layers[1](torch.relu(layers[0](x)))


class Largest(Pair):
    """One of its operations is called as a function of Python."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        largest = super().forward(x).max(dim=1, keepdim=True).values
        return torch.cat([largest, largest, largest], dim=1) + self.second(x)


@pytest.fixture
def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What torch was asked to trace; nothing is known yet."""
    made: list[Any] = []
    export = torch.export.export
    monkeypatch.setattr(
        torch.export, "export", lambda module, *a, **k: (made.append(module), export(module, *a, **k))[1]
    )
    with each_network_once(tmp_path):
        yield made


def shared(module: nn.Module) -> Graph:
    found: Graph = traced_model.trace(module.eval().requires_grad_(False), INFO)
    return found


def same(found: Graph, wanted: Graph) -> None:
    assert (found.ops, found._fx_names, found.module.code) == (wanted.ops, wanted._fx_names, wanted.module.code)
    mine, theirs = found.module.state_dict(), wanted.module.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_model_of_other_weights_gets_its_own_trace(traced: list[Any]) -> None:
    hosts: list[HostModel] = [tiny_host_model(seed) for seed in (0, 1)]
    for host in hosts:
        info = model_info(host, (64, 64))
        found = TracedModel.of(host, (64, 64)).graph
        same(found, trace(exportable(host, info), info))
    assert len(traced) == 3, "one of the first for both, and one by the test for each"


def test_graphs_are_their_callers_own(traced: list[Any]) -> None:
    first = shared(Pair())
    with torch.no_grad():
        first.module.get_parameter("first.weight").zero_()
    first.module.graph.erase_node(first.module.graph.output_node())
    first.ops.clear()
    same(shared(Pair()), trace(Pair().eval().requires_grad_(False), INFO))
    assert len(traced) == 2


@pytest.mark.parametrize("options", [{"tied": True}, {"turned": True}])
def test_another_structure_is_another_trace(traced: list[Any], options: dict[str, bool]) -> None:
    shared(Pair())
    same(shared(Pair(**options)), trace(Pair(**options).eval().requires_grad_(False), INFO))
    assert len(traced) == 3


def test_what_cannot_be_told_apart_is_traced_each_time(traced: list[Any]) -> None:
    class Local(Pair):
        pass

    for _ in range(2):
        shared(Local())
    assert len(traced) == 2


def test_files_are_shared_where_weights_are_equal_too(traced: list[Any]) -> None:
    files = [emit.emit(shared(pair), None, Emission()).SerializeToString() for pair in (Pair(), Pair(), Pair(seed=1))]
    assert files[0] == files[1] != files[2]
    assert len(traced) == 3, "one trace, and one export for each set of weights"
    with every_time():
        anew = [emit.emit(shared(pair), None, Emission()).SerializeToString() for pair in (Pair(), Pair(seed=1))]
    assert anew == [files[0], files[2]]


def test_operations_are_found_whose_nodes_a_copy_calls_otherwise(traced: list[Any]) -> None:
    for seed in range(2):
        found = shared(Largest(seed=seed))
        # one of them is called ``max``
        assert {found.node(name).name for name in found.ops} <= {node.name for node in found.module.graph.nodes}
    assert len(traced) == 1, "handed out again"
