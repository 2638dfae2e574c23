"""What is left out of an export changes nothing in its file."""

from __future__ import annotations

import contextlib
from typing import Any

import onnx
import pytest
import torch
from onnxscript.rewriter._matcher import SimplePatternMatcher
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from yoloquant.graph.trace import Graph, trace
from yoloquant.quantization.insert import copy_module
from yoloquant.targets.onnx import emit, quick_export
from yoloquant.types import ModelInfo, Task

INFO = ModelInfo(Task.DETECT, ("a",), (16, 16))


class Net(nn.Module):
    """Operations that onnxscript's rules rewrite, and others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.silu(self.first(torch.nn.functional.pad(image, (1, 1, 1, 1))))
        left, right = (self.second(x) + 0.0).chunk(2, 1)
        return torch.cat([right, left.clamp(min=0.1).clamp(max=0.9)], 1).flatten(2).transpose(1, 2).transpose(1, 2) * 1


@pytest.fixture(scope="module")
def graph() -> Graph:
    return trace(Net().eval().requires_grad_(False), INFO)


def exported(graph: Graph) -> onnx.ModelProto:
    from conversions import every_time

    with every_time():
        return emit._export(copy_module(graph), graph)


def test_the_file_is_the_same_and_functions_are_read_once(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []
    read, match, own = ONNXRegistry.from_torchlib, SimplePatternMatcher.match, ONNXRegistry.__dict__["from_torchlib"]
    with monkeypatch.context() as patch:
        patch.setattr(quick_export, "quick_export", contextlib.nullcontext)
        wanted = exported(graph)
    monkeypatch.setattr(quick_export, "_REGISTRIES", {})
    noted = staticmethod(lambda **options: (reads.append(options), read(**options))[1])
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", noted)
    assert exported(graph).SerializeToString() == exported(graph).SerializeToString() == wanted.SerializeToString()
    assert len(reads) == 1
    assert ONNXRegistry.__dict__["from_torchlib"] is noted and SimplePatternMatcher.match is match
    monkeypatch.undo()
    assert ONNXRegistry.__dict__["from_torchlib"] is own


def test_rules_still_rewrite(graph: Graph) -> None:
    """Adding nothing, multiplying by one and turning twice are gone."""
    kinds = [node.op_type for node in exported(graph).graph.node]
    assert {"Conv", "Concat"} <= set(kinds) and not {"Add", "Transpose"} & set(kinds) and kinds.count("Mul") == 1


def test_what_an_export_registers_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_export, "_REGISTRIES", {})
    with quick_export.quick_export():
        first, second = (ONNXRegistry().from_torchlib(opset_version=18) for _ in range(2))
        name = next(iter(first.functions))
        first.functions[name].clear()
        del first.functions[next(n for n in first.functions if n != name)]
        third = ONNXRegistry().from_torchlib(opset_version=18)
    assert second.functions == third.functions and third.functions[name]
    assert third.opset_version == 18
