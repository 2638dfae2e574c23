"""What torch and LiteRT's converter make of a network, made once for all tests: each takes seconds, and many ask alike.

A trace depends on the structure of a network alone: who asks for one of other weights gets a copy that holds them. An
ONNX model and a flatbuffer depend on the weights too: only for the same ones they are handed out again, to all
processes. What a caller gets is its own.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import pickle
import types
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import fx, nn

from yoloquant.graph import traced_model
from yoloquant.graph.export_program import export_program
from yoloquant.graph.trace import Graph, trace
from yoloquant.pruning import trace_channels
from yoloquant.targets.litert import build
from yoloquant.targets.litert.convert import _vary_constant_biases, convert
from yoloquant.targets.onnx import emit
from yoloquant.types import ModelInfo

_REAL: dict[tuple[Any, str], Callable[..., Any]] = {
    (traced_model, "trace"): trace,
    (trace_channels, "export_program"): export_program,
    (emit, "_export"): emit._export,
    (build, "convert"): convert,
}
_MOST = 24
"""Traces of a kind that are remembered; files go by content, and take no memory."""
_ORIGIN = frozenset({"args", "pt_path", "task", "names", "yaml", "yaml_file", "criterion", "yoloquant_origin"})
"""Of a model: where it comes from, which no forward reads."""


@contextlib.contextmanager
def each_network_once(folder: Path) -> Iterator[None]:
    """Hand out again what was made of the same.

    Args:
        folder: Where files are kept, for every process of a run.
    """
    graphs, programs = dict[str, Graph](), dict[str, Any]()

    def traced(module: nn.Module, info: ModelInfo) -> Graph:
        key = _structure(module, info)
        if key is None:
            return trace(module, info)
        known = _remembered(graphs, key, lambda: trace(module, info))
        return _with_weights_of(module, known)

    def program_of(module: nn.Module, *form: Any, **options: Any) -> Any:
        key = _structure(module, form, options)
        if key is None:
            return export_program(module, *form, **options)
        # of a trace for pruning only names and shapes are read
        return _remembered(programs, key, lambda: export_program(module, *form, **options))

    def exported(module: fx.GraphModule, graph: Graph) -> onnx.ModelProto:
        made = _kept(folder, _content(module, graph.info), lambda: emit_export(module, graph).SerializeToString())
        return onnx.ModelProto.FromString(made)

    def converted(body: fx.GraphModule, info: ModelInfo, *, raw: bool = False, quantized: bool = True) -> bytes:
        key = _content(body, info, raw, quantized)
        if quantized:  # the caller's graph is left as the converter leaves it
            _vary_constant_biases(body)
        return _kept(folder, key, lambda: convert(body, info, raw=raw, quantized=quantized))

    emit_export = _REAL[emit, "_export"]
    with pytest.MonkeyPatch.context() as patch:
        for (owner, name), instead in zip(_REAL, (traced, program_of, exported, converted), strict=True):
            patch.setattr(owner, name, instead)
        yield


@contextlib.contextmanager
def every_time() -> Iterator[None]:
    """Make everything anew, for tests of what is made itself."""
    with pytest.MonkeyPatch.context() as patch:
        for (owner, name), real in _REAL.items():
            patch.setattr(owner, name, real)
        yield


def _remembered(known: dict[str, Any], key: str, make: Callable[[], Any]) -> Any:
    if key not in known:
        made = make()
        while len(known) >= _MOST:
            known.pop(next(iter(known)))
        known[key] = made
    else:
        known[key] = known.pop(key)  # the last that was asked for
    return known[key]


def _kept(folder: Path, key: str | None, make: Callable[[], bytes]) -> bytes:
    if key is None:
        return make()
    path = folder / key
    if not path.is_file():
        part = folder / f"{key}.{uuid.uuid4().hex}"
        part.write_bytes(make())
        part.replace(path)
    return path.read_bytes()


def _with_weights_of(module: nn.Module, known: Graph) -> Graph:
    """A copy of a graph of the same structure."""
    own, result = module.state_dict(keep_vars=True), copy.deepcopy(known.module)
    with torch.no_grad():
        for name, value in (*result.named_parameters(), *result.named_buffers()):
            if name in own:  # the others are constants of the code
                value.copy_(own[name])
    # a copy's nodes are called otherwise where a name is one of Python's own, as ``max``
    renamed = {one.name: other.name for one, other in zip(known.module.graph.nodes, result.graph.nodes, strict=True)}
    names = {operation: renamed[name] for operation, name in known._fx_names.items()}
    return Graph(result, known.info, names, dict(known.ops))


class _Structure(pickle.Pickler):
    """Writes everything that a network is but the values of its weights."""

    def __init__(self, stream: io.BytesIO, weights: dict[int, int]) -> None:
        super().__init__(stream)
        self.fast = True  # equal structures are equal bytes, whichever of their strings are one object
        self._weights = weights

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, types.MethodType):  # fused layers call another forward of their own
            return str(type(value.__self__)), value.__name__
        if not isinstance(value, torch.Tensor):
            return None
        form = str(value.dtype), tuple(value.shape), value.stride()
        # by their number: a weight in two places is another network than two weights
        number = self._weights.get(id(value))
        return (*form, value.detach().numpy().tobytes() if number is None else number)


def _structure(module: nn.Module, *rest: Any) -> str | None:
    """Of everything that a trace reads; None if that cannot be told."""
    weights: dict[int, int] = {}
    for value in module.state_dict(keep_vars=True).values():
        weights.setdefault(id(value), len(weights))
    stream = io.BytesIO()
    own = {name: value for name, value in vars(module).items() if name not in _ORIGIN}
    try:
        _Structure(stream, weights).dump((type(module), own, rest))
    except Exception:  # whatever cannot be pickled says so in its own way
        return None
    return hashlib.sha256(stream.getbuffer()).hexdigest()


def _content(body: fx.GraphModule, info: ModelInfo, *form: Any) -> str | None:
    """Of everything that a converter reads; None if that cannot be told."""
    found = hashlib.sha256(f"{body.code}{info}{form}".encode())
    for node in body.graph.nodes:
        if node.op == "call_module":
            return None  # whatever the module holds
        if node.op == "get_attr":
            value: Any = body
            for name in str(node.target).split("."):
                value = getattr(value, name)
            if not isinstance(value, torch.Tensor):
                return None
            found.update(f"{value.dtype}{tuple(value.shape)}".encode() + value.detach().numpy().tobytes())
    return found.hexdigest()
