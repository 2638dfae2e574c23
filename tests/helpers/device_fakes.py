"""A small Q/DQ model, a device whose copies happen only when its stream is waited for, and installed stand-ins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from fake_tensorrt import Release
from onnx import TensorProto, helper, numpy_helper

from yoloquant.runtime.core.model_info import ModelInfo, Task
from yoloquant.runtime.device.cuda import Cuda, GpuInfo

INFO = ModelInfo(Task.DETECT, ("cat", "dog"), (8, 8), stride=8, strides=(8,))
ORIN = GpuInfo("Orin", "8.7")
PLANNED = ("stem", "last")


class FakeCuda(Cuda):
    """Everything that is queued happens at ``synchronize``, in order, as on a stream."""

    library = "fake"

    def __init__(self, release: Release | None = None, gpu: GpuInfo = ORIN) -> None:
        self.gpu, self.stream = gpu, 77
        self.memory: dict[int, np.ndarray] = release.memory if release else {}
        self.queue: list[Callable[[], None]] = []
        self.log: list[str] = []
        self.closed = False
        self._shape: tuple[tuple[int, ...], Any] = ((), np.float32)
        if release is not None:
            release.queue = self.queue

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        self._shape = (shape, dtype)
        return np.full(shape, np.nan, dtype)

    def allocate(self, size: int) -> int:
        address = 4096 * (1 + len(self.memory))
        self.memory[address] = np.full(*self._shape[:1], np.nan, self._shape[1])
        assert self.memory[address].nbytes == size
        return address

    def to_device(self, address: int, array: np.ndarray) -> None:
        self._queue("to_device", lambda: np.copyto(self.memory[address], array))

    def to_host(self, array: np.ndarray, address: int) -> None:
        self._queue("to_host", lambda: np.copyto(array, self.memory[address]))

    def _queue(self, what: str, action: Callable[[], None]) -> None:
        assert not self.closed
        self.log.append(what)
        self.queue.append(action)

    def synchronize(self) -> None:
        self.log.append("synchronize")
        for action in self.queue:
            action()
        self.queue.clear()

    def close(self) -> None:
        self.closed = True


def qdq_model(*, quantized: bool = True, batch: int | None = 1) -> onnx.ModelProto:
    """images -> stem -> last -> output0 (1, 6, 64), both convolutions between Q/DQ pairs."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    consts: dict[str, np.ndarray] = {}

    def pair(x: str, name: str, scale: float) -> str:
        if not quantized:
            return x
        consts[f"{name}/scale"], consts[f"{name}/zero_point"] = np.float32(scale), np.int8(0)
        grid = [f"{name}/scale", f"{name}/zero_point"]
        nodes.append(helper.make_node("QuantizeLinear", [x, *grid], [f"{name}/q"], f"{name}/quantize"))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}/q", *grid], [f"{name}/dq"], f"{name}/dequantize"))
        return f"{name}/dq"

    x, channels = "images", 3
    for name, outputs in (("stem", 4), ("last", 6)):
        consts[f"{name}.weight"] = rng.normal(0, 0.2, (outputs, channels, 3, 3)).astype(np.float32)
        consts[f"{name}.bias"] = rng.normal(0, 0.1, outputs).astype(np.float32)
        inputs = [pair(x, f"{name}:in", 0.05), pair(f"{name}.weight", f"{name}:weight", 0.01), f"{name}.bias"]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}_out"], name, pads=[1, 1, 1, 1]))
        x, channels = f"{name}_out", outputs
    consts["shape"] = np.array([1, 6, 64], np.int64)
    nodes.append(helper.make_node("Reshape", [x, "shape"], ["output0"], "view"))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (batch or "batch", 3, 8, 8))],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, (1, 6, 64))],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in consts.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def install(name: str, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Make a stand-in what ``import tensorrt`` finds."""
    from yoloquant.runtime.tensorrt import api

    made = Release(name)
    monkeypatch.setitem(sys.modules, "tensorrt", made.module)
    monkeypatch.setattr(api, "is_installed", lambda: True)
    return made
