"""Small Q/DQ networks for the TensorRT tests, built node by node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SCALE = 0.05


class Net:
    """Builds an ONNX graph; every method returns the name of the tensor it made."""

    def __init__(self, opset: int = 17, size: int = 8) -> None:
        self.opset, self.size = opset, size
        self.nodes: list[onnx.NodeProto] = []
        self.consts: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(0)

    def const(self, name: str, value: Any) -> str:
        self.consts[name] = np.asarray(value)
        return name

    def op(self, kind: str, *inputs: str, name: str = "", **attrs: Any) -> str:
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{name}_out"], name=name, **attrs))
        return f"{name}_out"

    def qdq(self, tensor: str, scale: Any = SCALE, *, name: str = "", axis: int | None = None) -> str:
        name = name or f"{tensor}_{sum(n.op_type == 'QuantizeLinear' for n in self.nodes)}"
        scale = np.asarray(scale, np.float32)
        self.const(f"{name}_scale", scale)
        self.const(f"{name}_zero_point", np.zeros(scale.shape, np.int8))
        attrs = {} if axis is None else {"axis": axis}
        q = self.op("QuantizeLinear", tensor, f"{name}_scale", f"{name}_zero_point", name=f"{name}_Q", **attrs)
        return self.op("DequantizeLinear", q, f"{name}_scale", f"{name}_zero_point", name=f"{name}_DQ", **attrs)

    def weight(self, name: str, shape: tuple[int, ...], axis: int | None) -> str:
        """An fp32 weight behind a per-channel (axis) or per-tensor (None) Q/DQ pair."""
        value = self.rng.normal(0, 0.2, shape).astype(np.float32)
        over = None if axis is None else tuple(i for i in range(len(shape)) if i != axis)
        scale = np.abs(value).max(axis=over) / 127
        return self.qdq(self.const(f"{name}.weight", value), scale, name=f"{name}.weight", axis=axis)

    def conv(self, name: str, x: str, cin: int = 8, cout: int = 8, *, quantized: bool = True) -> str:
        """A 3x3 convolution with bias; x must already come from a DQ if it is to run in Int8."""
        weight = self.weight(name, (cout, cin, 3, 3), 0) if quantized else self._float_weight(name, (cout, cin, 3, 3))
        bias = self.const(f"{name}.bias", self.rng.normal(0, 0.1, cout).astype(np.float32))
        return self.op("Conv", x, weight, bias, name=name, pads=[1, 1, 1, 1])

    def _float_weight(self, name: str, shape: tuple[int, ...]) -> str:
        return self.const(f"{name}.weight", self.rng.normal(0, 0.2, shape).astype(np.float32))

    def silu(self, x: str, name: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x, name=f"{name}_sigmoid"), name=f"{name}_mul")

    def model(self, output: str, shape: tuple[int, ...] = (1, 8, 8, 8), channels: int = 8) -> onnx.ModelProto:
        size = self.size
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, channels, size, size))],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(value, name) for name, value in self.consts.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def _good() -> Net:
    """Conv-SiLU, a residual block, SPPF-like pooling, a tied Concat and a float head convolution."""
    net = Net()
    stem = net.silu(net.conv("stem", net.qdq("images", name="images")), "stem_act")
    identity = net.qdq(stem, name="identity")
    branch = net.silu(net.conv("cv1", identity), "cv1_act")
    branch = net.silu(net.conv("cv2", net.qdq(branch, name="branch")), "cv2_act")
    total = net.op("Add", identity, branch, name="residual")
    left = net.qdq(total, name="left")
    right = net.op("MaxPool", left, name="pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    both = net.op("Concat", left, net.qdq(right, name="right"), name="concat", axis=1)
    head = net.conv("last", net.qdq(both, name="both"), cin=16)
    net.conv("head", head, quantized=False)
    return net


@pytest.fixture(scope="session")
def new_net() -> Callable[..., Net]:
    """The builder itself."""
    return Net


@pytest.fixture
def good_net() -> Net:
    """A network that follows every rule; its result is ``head_out``."""
    return _good()
