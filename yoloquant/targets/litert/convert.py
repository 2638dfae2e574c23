"""From a graph with explicit quantize/dequantize pairs to the bytes of a ``.tflite``.

Everything that depends on litert-torch's semi-internal interface is in this file: ``QuantConfig`` with a static PT2E
configuration only switches the converter to turning quantize/dequantize pairs into quantized tensors; the quantizer
object itself is never used.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...errors import TargetError
from ...graph.decompositions import nodewise_decompositions
from ...types import ModelInfo
from .qdq import QUANTIZE
from .tail import decode_tail

aten = torch.ops.aten

_BIASED = frozenset({aten.conv2d.default, aten.conv2d.padding, aten.linear.default, aten.conv_transpose2d.input})


class _Exportable(nn.Module):
    """The quantized body with its layout adapters, and the float tail unless the head stays raw."""

    def __init__(self, body: fx.GraphModule, tail: nn.Module | None) -> None:
        super().__init__()
        self.body, self.tail = body, tail

    def forward(self, image: Tensor) -> Any:
        if self.tail is None:
            raw = self.body(image.permute(0, 3, 1, 2))
            return tuple(level.permute(0, 2, 3, 1) if level.dim() == 4 else level for level in raw)
        return self.tail(self.body(image))


def cut_body(module: fx.GraphModule, heads: Sequence[str]) -> fx.GraphModule:
    """A copy of the graph that ends at the given operations' quantized values.

    Args:
        module: Graph with quantize/dequantize pairs.
        heads: Names of the fx nodes whose results are wanted, in order.

    Returns:
        A graph module that returns a tuple of those results, dequantized.

    Raises:
        TargetError: A node is missing.
    """
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(module.graph, copied)
    by_name = {source.name: node for source, node in copied.items()}
    missing = [name for name in heads if name not in by_name]
    if missing:
        raise TargetError(f"the graph has no operation {missing[0]}; the plan was made for another model")
    graph.output(tuple(_dequantized(by_name[name]) for name in heads))
    graph.eliminate_dead_code()
    body = fx.GraphModule(module, graph)
    body.delete_all_unused_submodules()
    return body


def _dequantized(node: fx.Node) -> fx.Node:
    for first in node.users:
        # the pair belongs to the result: cutting before it would leave the output in float
        if first.target in QUANTIZE and len(first.users) == 1:
            return next(iter(first.users))
    return node


def convert(body: fx.GraphModule, info: ModelInfo, *, raw: bool = False, quantized: bool = True) -> bytes:
    """Convert a quantized body to a flatbuffer.

    Args:
        body: Graph from NCHW image to the raw outputs, see ``graph.head_levels``.
        info: The model.
        raw: Leave the decode tail away, take the image and return the outputs as NHWC.
        quantized: Turn quantize/dequantize pairs into quantized tensors; without it the body must have none.

    Returns:
        The ``.tflite`` as the converter writes it. It strips the quantize operation at the input (and the dequantize
        operations at raw outputs), so those tensors of a quantized body are int8.

    Raises:
        TargetError: The converter failed.
    """
    if quantized:
        _vary_constant_biases(body)
    tail = None if raw else decode_tail(info)
    height, width = info.imgsz
    shape = (1, height, width, info.channels) if raw else (1, info.channels, height, width)
    with torch.no_grad(), _quiet() as printed:
        import litert_torch
        from litert_torch.quantize import pt2e_quantizer
        from litert_torch.quantize.quant_config import QuantConfig

        static = pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
        config = QuantConfig(pt2e_quantizer=pt2e_quantizer.PT2EQuantizer().set_global(static)) if quantized else None
        try:
            with nodewise_decompositions():
                model = litert_torch.convert(_Exportable(body, tail).eval(), (torch.zeros(shape),), quant_config=config)
            return bytes(model.model_content())
        except Exception as exc:  # the converter raises whatever its layers raise
            detail = printed.getvalue().strip()[-500:]
            raise TargetError(f"litert-torch could not convert the model: {exc} {detail}".strip()) from exc


def _vary_constant_biases(body: fx.GraphModule) -> None:
    """Move one channel of every constant bias by the smallest float step.

    litert-torch 0.10 stores a bias whose channels are all equal as a single value and converts it with the first
    channel's step, which makes every other channel wrong. Heads start training with such biases.
    """
    for node in body.graph.nodes:
        bias = node.args[2] if node.target in _BIASED and len(node.args) > 2 else None
        if not isinstance(bias, fx.Node) or bias.op != "get_attr":
            continue
        values = body.get_parameter(str(bias.target)).data
        if values.numel() > 1 and bool((values == values[0]).all()) and float(values[0]) != 0:
            # the smallest change there is: far below one step of the int32 bias
            values[-1] = torch.nextafter(values[-1], torch.tensor(torch.inf))


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Keep the converter's progress lines and third-party warnings off the terminal."""
    # setdefault: who sets these wants to see it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    printed = io.StringIO()
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("ignore")
            yield printed
    finally:
        logging.disable(before)
