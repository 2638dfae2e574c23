"""The canonical graph computes what the model computes, and names every operation for good."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
from core_models import IMGSZ, family_graph, family_model, sample_images, tiny_graph, tiny_host
from torch import nn

from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.exportable import exportable
from yoloquant.bridge.host_model import model_info
from yoloquant.errors import ModelError
from yoloquant.graph import export_program
from yoloquant.graph.trace import QUANTIZATION_AGNOSTIC, WEIGHTED, Graph, OpKind, trace
from yoloquant.types import ModelInfo, Task

CASES = [
    ("yolov5", "detect", None), ("yolov8", "detect", None), ("yolov9t", "detect", None), ("yolov10n", "detect", True),
    ("yolo11", "detect", None), ("yolo12", "detect", None), ("yolo26", "detect", False), ("yolo26", "detect", True),
    ("yolov8", "segment", None), ("yolo11", "pose", None), ("yolov8", "obb", None), ("yolov8", "classify", None),
    ("yolo26", "segment", False),
]  # fmt: skip


def flat(values: Any) -> list[torch.Tensor]:
    """Tensors of a nested output, in order."""
    if isinstance(values, torch.Tensor):
        return [values]
    return [t for v in values for t in flat(v)] if isinstance(values, (tuple, list)) else []


def assert_same_output(graph: Graph, module: nn.Module, seed: int) -> None:
    """Both give the same, up to float32 rounding of the size that fusing BatchNorm makes."""
    (image,) = sample_images(1, seed=seed)
    with torch.inference_mode():
        x = torch.from_numpy(image)
        ours, theirs = flat(graph.module(x)), flat(module(x))[: len(flat(graph.module(x)))]
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * max(1.0, float(b.abs().max()) / 10))


def check_structure(graph: Graph, task: str) -> None:
    """What must hold for every model."""
    ops = graph.ops
    modules = dict(graph.module.named_parameters())
    for op in ops.values():
        assert op.name.count(":") == 2 or op.kind is OpKind.INPUT
        if op.kind in WEIGHTED:
            assert op.weight == f"{op.module}.weight" and op.weight in modules
        assert all(i in ops for i in op.inputs)
    shorts = [n.split(":")[1] for n in ops if ":" in n]
    assert not {"silu", "silu_", "chunk", "split", "contiguous", "clone", "dropout", "view"} & set(shorts)
    assert not [s for s in shorts if s.endswith("_") and not s.endswith("__")], "nothing happens in place"
    for op in ops.values():  # behind the tail there is no weighted operation, before it there is
        if op.tail:
            assert op.kind not in WEIGHTED
            assert all(ops[u].tail for u in graph.users[op.name])
    heads = graph.heads
    assert heads and all(not h.tail and h.kind in WEIGHTED for h in heads)
    if task == "classify":
        return
    for branch, channels in (("box", 4 * graph.info.reg_max), ("score", len(graph.info.names))):
        found = [h for h in heads if h.branch == branch]
        assert len(found) == len(graph.info.strides)
        assert {h.shape[1] for h in found} == {channels}  # type: ignore[index]
        levels = {(graph.info.imgsz[0] // s, graph.info.imgsz[1] // s) for s in graph.info.strides}
        assert {h.shape[2:] for h in found} == levels  # type: ignore[index]
    more = {"detect": set(), "segment": {"mask", "proto"}, "pose": {"keypoint"}, "obb": {"angle"}}[task]
    assert {h.branch for h in heads} == {"box", "score"} | more


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task", "end2end"), CASES)
def test_every_family_and_task(family: str, task: str, end2end: bool | None) -> None:
    host, graph = family_model(family, task, end2end), family_graph(family, task, end2end)
    assert host.task is Task(task) and graph.info.end2end == bool(end2end)
    check_structure(graph, task)
    assert_same_output(graph, host.module, seed=4)
    (image,) = sample_images(1, seed=6)
    output = flat(graph.module(torch.from_numpy(image)))[0]
    if end2end:
        assert output.shape == (1, graph.info.max_det, 6)
        assert all(h.module.split(".")[2].startswith("one2one_") or "cv" in h.module for h in graph.heads)


def test_a_tiny_detector() -> None:
    check_structure(tiny_graph(), "detect")
    for seed in range(3):
        assert_same_output(tiny_graph(), tiny_host().module, seed)


def test_names_are_the_same_every_time_and_at_every_size() -> None:
    def names(imgsz: tuple[int, int]) -> list[tuple[Any, ...]]:
        info = model_info(tiny_host(), imgsz)
        ops = trace(exportable(tiny_host(), info), info).ops.values()
        return [(o.name, o.kind, o.inputs, o.weight, o.tail, o.branch) for o in ops]

    assert names(IMGSZ) == names(IMGSZ) == names((96, 64))
    assert len({n[0] for n in names(IMGSZ)}) == len(tiny_graph().ops)


def test_every_convolution_is_named_by_its_module() -> None:
    convs = {n for n, m in tiny_host().module.named_modules() if isinstance(m, nn.Conv2d) and "dfl" not in n}
    found = {o.module: o for o in tiny_graph().ops.values() if o.kind is OpKind.CONV}
    assert set(found) == convs
    assert all(o.name == f"{path}:conv2d:0" for path, o in found.items())


def test_roots_users_and_ancestors_agree() -> None:
    graph = tiny_graph()
    for op in graph.ops.values():
        assert all(op.name in graph.users[i] for i in op.inputs)
        assert all(i in graph.ancestors(op.name) for i in op.inputs)
        root = graph.ops[graph.root(op.name)]
        assert root.kind not in QUANTIZATION_AGNOSTIC and (op.kind in QUANTIZATION_AGNOSTIC or root is op)
    convs = [o for o in graph.body() if o.kind is OpKind.CONV]
    assert all("images" in graph.ancestors(o.name) for o in convs)


def test_copies_keep_the_node_names() -> None:
    graph = tiny_graph()
    twin = copy.deepcopy(graph.module)
    for name in graph.ops:
        assert graph.node(name, twin).name == graph.node(name).name == graph.fx_name(name)


def test_a_relu_model_keeps_its_relus() -> None:
    module = copy.deepcopy(tiny_host().module)
    for layer in module.modules():
        if hasattr(layer, "act") and isinstance(layer.act, nn.SiLU):
            layer.act = nn.ReLU(inplace=True)
    host = load_model(module)
    info = model_info(host, IMGSZ)
    graph = trace(exportable(host, info), info)
    assert_same_output(graph, host.module, 1)
    kinds = [o.kind for o in graph.body()]
    assert OpKind.RELU in kinds and OpKind.UNIT not in kinds
    assert not any(n.split(":")[1] == "relu_" for n in graph.ops if ":" in n)


INFO = ModelInfo(Task.DETECT, ("a",), (32, 32))


class _Untraceable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if float(x.sum()) > 0 else x


@pytest.mark.parametrize("module", [_Untraceable(), nn.Linear(5, 5)])
def test_what_cannot_be_traced(module: nn.Module) -> None:
    with pytest.raises(ModelError, match="cannot be traced at imgsz=32x32"):
        trace(module, INFO)


def test_nothing_to_quantize() -> None:
    with pytest.raises(ModelError, match="nothing to quantize"):
        trace(nn.Sequential(nn.ReLU()), INFO)


def test_weights_used_twice_keep_apart() -> None:
    """One convolution that runs twice is two operations with one weight."""
    graph = trace(_Twice(), INFO)
    assert [o.weight for o in graph.ops.values() if o.kind is OpKind.CONV] == ["conv.weight"] * 2


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.conv(x))


def test_decomposing_node_by_node_gives_the_same_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names too: they are in plans, and in the files of runtimes."""
    host = family_model("yolo11")
    info = model_info(host, IMGSZ)
    nodewise = trace(exportable(host, info), info)
    monkeypatch.setattr(export_program, "nodewise_decompositions", contextlib.nullcontext)
    whole = trace(exportable(host, info), info)
    assert nodewise.ops == whole.ops and list(nodewise.ops) == list(whole.ops)
    assert nodewise.module.code == whole.module.code
    shapes = [[getattr(n.meta.get("val"), "shape", None) for n in g.module.graph.nodes] for g in (nodewise, whole)]
    assert shapes[0] == shapes[1]
