"""LiteRT's converter, asked once for each network: it takes seconds, and several tests ask for the same file."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import fx

from yoloquant.targets.litert import build
from yoloquant.targets.litert.convert import _vary_constant_biases, convert
from yoloquant.types import ModelInfo

_made: dict[str, bytes] = {}


@contextlib.contextmanager
def each_network_once() -> Iterator[None]:
    """Hand out again what the converter made of the same graph, constants and form of file."""

    def remembered(body: fx.GraphModule, info: ModelInfo, *, raw: bool = False, quantized: bool = True) -> bytes:
        key = _content(body, info, raw, quantized)
        if key not in _made:
            _made[key] = convert(body, info, raw=raw, quantized=quantized)
        elif quantized:  # the caller's graph is left as the converter leaves it
            _vary_constant_biases(body)
        return _made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "convert", remembered)
        yield


@contextlib.contextmanager
def every_time() -> Iterator[None]:
    """Convert anew, for tests of the converter itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "convert", convert)
        yield


def _content(body: fx.GraphModule, info: ModelInfo, *form: Any) -> str:
    """Of everything that the converter reads."""
    found = hashlib.sha256(f"{body.code}{info}{form}".encode())
    for node in body.graph.nodes:
        assert node.op != "call_module", "what a module holds is not in the key"
        if node.op == "get_attr":
            value: Any = body
            for name in str(node.target).split("."):
                value = getattr(value, name)
            assert isinstance(value, torch.Tensor), node.target
            found.update(f"{value.dtype}{tuple(value.shape)}".encode() + value.detach().numpy().tobytes())
    return found.hexdigest()
