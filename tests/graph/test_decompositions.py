"""Decomposing node by node gives the file that decomposing the whole program gives."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export.exported_program import _split_decomp_table_to_cia_and_python_decomp

from yoloquant.graph import decompositions
from yoloquant.graph.decompositions import _split, decompose, nodewise_decompositions
from yoloquant.targets.litert.flatbuffer import Flatbuffer


class Everything(nn.Module):
    """Operations of YOLO models that litert-torch takes apart or moves to channels-last."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up, self.pool = nn.Upsample(scale_factor=2), nn.MaxPool2d(5, 1, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.silu(self.first(image))
        left, right = x.chunk(2, 1)
        scores = (left.flatten(2).transpose(1, 2) @ right.flatten(2)).softmax(-1)
        mixed = (right.flatten(2) @ scores.transpose(1, 2)).view(left.shape)
        y = self.pool(self.second(torch.cat([left, mixed], 1)))
        return self.up(y).reshape(1, 8, -1).sigmoid() * 2 - 1


class Written(nn.Module):
    """Writes into a view, which no trace of a single node can follow."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image * 2
        x[:, 0].add_(1)
        return x


def converted(module: nn.Module, *, nodewise: bool) -> Flatbuffer:
    # here, since it takes seconds: every process of the tests imports this file, and one runs it
    litert_torch = pytest.importorskip("litert_torch", reason="the litert extra is not installed")
    with torch.no_grad(), nodewise_decompositions() if nodewise else contextlib.nullcontext():
        return Flatbuffer(litert_torch.convert(module.eval(), (torch.zeros(1, 3, 16, 16),)).model_content())


def contents(file: Flatbuffer) -> list[Any]:
    ops = [(op.kind, op.version, tuple(op.inputs), tuple(op.outputs)) for op in file.ops]
    tensors = [(t.dtype, tuple(t.shape), t.scale.tolist(), t.zero_point.tolist()) for t in file.tensors]
    return [ops, tensors, file.inputs, file.outputs]


def test_the_file_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = converted(Everything(), nodewise=False)
    original = torch.export.ExportedProgram.run_decompositions
    with monkeypatch.context() as patch:
        # nothing may be left to the function that traces everything again
        patch.setattr(torch.export.ExportedProgram, "run_decompositions", None)
        found = converted(Everything(), nodewise=True)
    assert torch.export.ExportedProgram.run_decompositions is original
    assert contents(found) == contents(wanted)
    made = {out for op in found.ops for out in op.outputs} | set(found.inputs)
    constants = [t.index for t in found.tensors if t.index not in made]
    assert len(constants) >= 4
    for index in constants:
        np.testing.assert_array_equal(found.values(index), wanted.values(index))


def test_what_writes_in_place_is_left_to_the_converter() -> None:
    program = torch.export.export(Written(), (torch.zeros(1, 3, 4, 4),))
    with pytest.raises(ValueError, match="writes into its operands"):
        decompose(program, torch._decomp.core_aten_decompositions())
    wanted, found = converted(Written(), nodewise=False), converted(Written(), nodewise=True)
    assert contents(found) == contents(wanted)


@pytest.mark.parametrize("table", [{}, torch._decomp.core_aten_decompositions()], ids=["empty", "core"])
def test_composite_operations_are_those_that_pytorch_names(table: dict[Any, Any]) -> None:
    wanted = _split_decomp_table_to_cia_and_python_decomp(dict(table))
    for _ in range(2):  # found, and remembered
        assert _split(table) == wanted


class Repeated(nn.Module):
    """The same operation on the same shapes, with other numbers and operands."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        softplus, silu = torch.nn.functional.softplus, torch.nn.functional.silu
        steep, flat = softplus(image, 3.0), softplus(image, 2.0)
        return torch.addcmul(silu(steep), silu(flat), silu(flat)) + torch.addcmul(silu(flat), steep, flat)


def test_operations_that_are_alike_are_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module, image = Repeated(), torch.rand(1, 3, 8, 8) - 0.5
    program = torch.export.export(module, (image,))
    wanted = [node.target for node in program.graph.nodes if node.op == "call_function"]
    counted, trace = [], decompositions._traced
    monkeypatch.setattr(decompositions, "_traced", lambda *a: (counted.append(a[0].target), trace(*a))[1])
    decompose(program, torch._decomp.core_aten_decompositions())
    torch.testing.assert_close(program.module()(image), module(image), rtol=1e-5, atol=1e-6)
    assert counted.count(torch.ops.aten.softplus.default) == 2, "3 and 2 make two operations"
    assert wanted.count(torch.ops.aten.silu.default) == 4 and counted.count(torch.ops.aten.silu.default) == 1


def test_the_program_computes_the_same() -> None:
    module, image = Everything().eval(), torch.rand(1, 3, 16, 16)
    program = torch.export.export(module, (image,))
    decompose(program, torch._decomp.core_aten_decompositions())
    torch.testing.assert_close(program.module()(image), module(image), rtol=1e-5, atol=1e-6)
    assert not [n for n in program.graph.nodes if "silu" in str(n.target) or "chunk" in str(n.target)]
