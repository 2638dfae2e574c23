"""ExecuTorch: integer kernels for what a YOLO is made of, and what a file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from yoloquant import targets
from yoloquant.errors import ArtifactError, TargetError, UsageError
from yoloquant.graph.trace import Graph, trace
from yoloquant.quantization.calibrate import observe, solve_plan
from yoloquant.quantization.insert import insert
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.scheme import derive
from yoloquant.quantization.simulate import simulate
from yoloquant.runtime.backends.base import BackendOptions
from yoloquant.runtime.backends.executorch import ExecuTorchBackend, find_program
from yoloquant.targets.executorch.locate import locate, read_points
from yoloquant.targets.executorch.lower import (
    carry,
    dequantize_for_each,
    double_by_copies,
    fold_weights,
    lowered,
    slice_splits,
)
from yoloquant.targets.executorch.pte import Program
from yoloquant.targets.executorch.scheme import SCHEME
from yoloquant.targets.executorch.target import summary
from yoloquant.targets.litert.qdq import make_pair
from yoloquant.types import ModelInfo, Task

pytestmark = pytest.mark.skipif(
    bool(targets.get("executorch").missing()), reason="target 'executorch' needs executorch, not installed here"
)
INFO = ModelInfo(Task.DETECT, ("a", "b"), (32, 32))


class Net(nn.Module):
    """Residual sum, split, pool, concat, upsampling, SiLU, and a float end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.mix, self.last = nn.Conv2d(16, 8, 1), nn.Conv2d(12, 6, 1)
        self.act, self.pool, self.up = nn.SiLU(), nn.MaxPool2d(3, 2, 1), nn.Upsample(None, 2, "nearest")

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        x = torch.cat([x + self.act(self.inner(x)), x], 1)
        one, two = self.act(self.mix(x)).chunk(2, 1)
        x = self.up(self.pool(torch.cat([one, two, one], 1)))
        return self.last(x).flatten(2).softmax(2)


@dataclass(frozen=True)
class Lowered:
    graph: Graph
    plan: Plan
    module: fx.GraphModule
    content: bytes
    images: list[np.ndarray]


@pytest.fixture(scope="module")
def net() -> Lowered:
    """The network, calibrated and exported once."""
    torch.manual_seed(0)
    graph = trace(Net().eval(), INFO)
    rng = np.random.default_rng(0)
    images = [rng.random((1, 3, 32, 32), dtype=np.float32) for _ in range(8)]
    plan = derive(graph, SCHEME)
    plan = solve_plan(graph, plan, observe(graph, [plan], images, gradients=0))
    module = insert(graph, plan, make_pair)
    slice_splits(module)
    carry(module, graph, plan)
    double_by_copies(module)
    fold_weights(module)
    dequantize_for_each(module)
    with torch.no_grad():
        content = lowered(module, torch.from_numpy(images[0]))
    return Lowered(graph, plan, module, content, images)


def test_rewriting_changes_no_number(net: Lowered) -> None:
    image = torch.from_numpy(net.images[0])
    with torch.inference_mode():
        assert torch.equal(net.module(image), simulate(net.graph, net.plan)(image))


@pytest.mark.slow
def test_everything_runs_in_one_delegate_with_the_plans_scales(net: Lowered) -> None:
    program = Program.read(net.content)
    assert len(program.subgraphs) == 1 and program.kernels == (), summary(program)
    kinds = [node.kind for node in program.subgraphs[0].nodes]
    assert kinds.count("conv") == 4 and kinds.count("add") == 1 and "other" not in kinds
    places = locate(net.graph, net.plan, program)
    found = read_points(program, net.plan.points, places)
    assert set(found) == set(net.plan.by_name)
    for point in net.plan.points:
        assert point.params is not None
        assert np.array_equal(found[point.name][0], point.params.scale), point.name
        assert np.array_equal(found[point.name][1], point.params.zero_point), point.name
    with pytest.raises(TargetError, match="point stem:weight is no int8 value"):
        read_points(program, net.plan.points, {**places, "stem:weight": (0, -1)})


@pytest.mark.slow
def test_it_runs_as_simulated(net: Lowered, tmp_path: Path) -> None:
    folder = tmp_path / "net_executorch_model"
    folder.mkdir()
    (folder / "net.pte").write_bytes(net.content)
    backend = ExecuTorchBackend(folder, INFO, BackendOptions())
    simulated = simulate(net.graph, net.plan)
    for image in net.images:
        with torch.inference_mode():
            want = simulated(torch.from_numpy(image)).numpy()
            exact = net.graph.module(torch.from_numpy(image)).numpy()
        (got,) = backend.run(image)
        assert np.abs(got - want).mean() < 0.2 * np.abs(want - exact).mean()
    assert backend.version.startswith("1.")
    backend.close()
    with pytest.raises(UsageError, match="device='gpu' is not one of executorch's; choose cpu"):
        ExecuTorchBackend(folder, INFO, BackendOptions(device="gpu"))
    with pytest.raises(ArtifactError, match=r"takes \(1, 3, 32, 32\), its description says \(1, 3, 64, 64\)"):
        ExecuTorchBackend(folder, ModelInfo(Task.DETECT, ("a",), (64, 64)), BackendOptions())
    (folder / "net.pte").write_bytes(net.content[:200])
    with pytest.raises(TargetError, match="ExecuTorch cannot load"):
        ExecuTorchBackend(folder, INFO, BackendOptions())


def test_a_layer_that_is_not_in_the_file(net: Lowered) -> None:
    program = Program.read(net.content)
    with pytest.raises(TargetError, match="does not compute in integers"):
        locate(net.graph, net.plan, Program((), program.kernels))


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\0" * 64])
def test_what_is_no_program_is_said(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"not a readable \.pte of ExecuTorch"):
        Program.read(content)


def test_a_folder_holds_one_program(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds 0 \.pte files"):
        find_program(tmp_path)
    for name in ("a.pte", "b.pte"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"holds 2 \.pte files"):
        find_program(tmp_path)
