"""A result with several ranges is computed by several convolutions, in the same integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import fx, nn  # noqa: E402

from yoloquant.errors import TargetError  # noqa: E402
from yoloquant.quantization.plan import Point, PointKind, Role  # noqa: E402
from yoloquant.quantization.qparams import QParams, QuantSpec  # noqa: E402
from yoloquant.targets.litert.qdq import make_pair  # noqa: E402
from yoloquant.targets.litert.split_results import split_results  # noqa: E402

PARTS = ((0, 1, 3, 4), (2, 5))
SCALE = np.where(np.arange(6) % 3 == 2, 0.11, 0.023).astype(np.float32)
ZERO = np.where(np.arange(6) % 3 == 2, -3, 40).astype(np.int32)


def body(*, bias: bool = True, per_tensor: bool = False, groups: int = 1, scale: np.ndarray = SCALE) -> fx.GraphModule:
    """An output of its own, then one with two ranges, then another of its own."""
    torch.manual_seed(0)
    module = fx.GraphModule(nn.Module(), fx.Graph())
    module.weight = nn.Parameter(torch.randn(6, 4 // groups, 1, 1), requires_grad=False)
    module.bias = nn.Parameter(torch.randn(6), requires_grad=False)
    graph = module.graph
    x = graph.placeholder("x")
    weight = graph.get_attr("weight")
    spec = QuantSpec(symmetric=True, narrow_range=True, axis=None if per_tensor else 0)
    rows = QParams(np.float32(0.02), np.int32(0)) if per_tensor else QParams(np.linspace(0.01, 0.03, 6), np.zeros(6))
    pair = make_pair(module, weight, Point("w", PointKind.WEIGHT, Role.WEIGHT, spec, params=rows), "w")
    args = (x, pair, graph.get_attr("bias") if bias else None, [1, 1], [0, 0], [1, 1], groups)
    node = graph.call_function(torch.ops.aten.conv2d.default, args if groups > 1 else args[:3])
    node.name = "together"
    point = Point("c", PointKind.ACTIVATION, Role.HEAD, QuantSpec(axis=1), params=QParams(scale, ZERO))
    result = make_pair(module, node, point, "c")
    other = Point("o", PointKind.ACTIVATION, Role.HEAD, QuantSpec(), params=QParams(np.float32(0.1), np.int32(0)))
    first, last = (make_pair(module, graph.call_function(torch.neg, (x,)), other, f"o{i}") for i in range(2))
    graph.output((first, result, last))
    module.recompile()
    return module


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"per_tensor": True}])
def test_parts_compute_the_same(options: dict[str, Any]) -> None:
    module, x = body(**options), torch.randn(1, 4, 5, 3)
    first, whole, last = module(x)
    found = split_results(module, {"together": PARTS})
    got = module(x)
    assert len(got) == 4 and torch.equal(got[0], first) and torch.equal(got[3], last)
    for value, channels in zip((got[1], got[2]), PARTS, strict=True):
        assert torch.equal(value, whole[:, list(channels)])
    assert [(p.operation, p.channels) for p in found.values()] == [("together", c) for c in PARTS]
    names = {n.name for n in module.graph.nodes}
    assert set(found) <= names and "together" not in names, "the whole is still computed"
    assert all(module.get_parameter(p.weight).shape[0] == len(p.channels) for p in found.values())


def test_what_it_cannot_split_is_refused() -> None:
    with pytest.raises(TargetError, match="no plain convolution"):
        split_results(body(groups=2), {"together": PARTS})
    with pytest.raises(TargetError, match="have several ranges"):
        split_results(body(scale=np.linspace(0.01, 0.02, 6, dtype=np.float32)), {"together": PARTS})


def test_a_body_without_such_results_stays() -> None:
    module = body(scale=SCALE)
    split_results(module, {"together": PARTS})
    before = module.code
    assert split_results(module, {}) == {} and module.code == before
