"""Read the engine layers out of TensorRT-RTX's verbose build log.

The builder ends its log with one line per engine layer when the profiling verbosity is DETAILED::

    Name: /c/Conv_myl0_3, LayerType: correlation, Inputs: [ { Name: .., Datatype: Int8, .. }], Constants: [..],
    Outputs: [..], TacticName: .., Metadata: [ONNX Layer: /c/Conv]<0x1F>[ONNX Layer: x_DQ]

The engine inspector tells the same, but needs a GPU; the log does not. The format is undocumented (seen with
TensorRT-RTX 1.7.1), so everything but the name and the layer type is optional here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

_LAYER = re.compile(r"^(?:.*\bLayers:\s*)?Name: (?P<name>.+?), LayerType: (?P<type>[^,\s]*)(?P<rest>.*)$")
_SECTION = re.compile(r", (Inputs|Constants|Outputs): \[|, (?:TacticName|StreamId|EventId|Metadata): ?")
_DATATYPE = re.compile(r"Datatype: (\w+)")
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\x1f]*?)\](?=\x1f|\[ONNX Layer: |\s*$)")
_ENGINE_SUFFIX = re.compile(r"_myl\d+_\d+$")
# Myelin prints everything that it generates itself (pointwise, casts, copies) as "kgen" and its stream
# synchronisation as "signal" and "wait"; none of these multiplies matrices.
_NO_KERNEL = frozenset({"kgen", "signal", "wait"})


@dataclass(frozen=True)
class EngineLayer:
    """One layer of the engine, as the builder printed it.

    Attributes:
        name: The engine's own name.
        kind: The engine's layer type: ``correlation`` (a convolution), ``gemm``, ``kgen`` (generated), ...
        inputs: Data types of the inputs, for instance ``Int8`` or ``Float``.
        constants: Data types of the weights and other constants.
        outputs: Data types of the outputs.
        nodes: Names of the ONNX nodes it came from; the main one first.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def root(self) -> str:
        """Its name without the suffix that the engine appends."""
        return _ENGINE_SUFFIX.sub("", self.name)

    @property
    def is_int8(self) -> bool:
        """Whether it multiplies an 8-bit activation by 8-bit weights.

        A ``runtime_fusion`` may read both as Int8, but only to cast them to float before it multiplies.
        """
        if self.kind == "runtime_fusion":
            return False
        return self.inputs[:1] == ("Int8",) and "Int8" in (*self.inputs[1:], *self.constants)


def parse_layers(lines: Iterable[str]) -> tuple[EngineLayer, ...]:
    """Find every engine layer in a build log.

    Args:
        lines: Lines of the log; lines of other kinds are skipped.

    Returns:
        The layers in the order of the engine; empty if the log holds none.
    """
    matches = (_LAYER.match(line.rstrip("\n")) for line in lines)
    return tuple(_layer(m["name"], m["type"], m["rest"]) for m in matches if m)


def _layer(name: str, kind: str, rest: str) -> EngineLayer:
    # By the sections' own headings: names of layers and tensors may hold commas and brackets.
    marks = list(_SECTION.finditer(rest))
    ends = [m.start() for m in marks[1:]] + [len(rest)]
    text = {m[1]: rest[m.end() : end] for m, end in zip(marks, ends, strict=True) if m[1]}
    types = {k: tuple(_DATATYPE.findall(text.get(k, ""))) for k in ("Inputs", "Constants", "Outputs")}
    metadata = rest.partition("Metadata: ")[2]
    return EngineLayer(
        name, kind, types["Inputs"], types["Constants"], types["Outputs"], tuple(_ONNX_NODE.findall(metadata))
    )


def find_kernels(layers: Iterable[EngineLayer], nodes: Collection[str]) -> Mapping[str, tuple[EngineLayer, ...]]:
    """Find the engine layers that carry out given ONNX nodes.

    A node's name also appears in the metadata of its neighbours (the pointwise kernel behind a convolution applies the
    convolution's scales and bias), so kernels count that are named after the node or list it first; only where there is
    none, kernels that list it at all do (convolutions merged into one).

    Args:
        layers: Layers of the engine.
        nodes: Names of convolution or matrix multiplication nodes.

    Returns:
        For each node its kernels; empty where the engine shows none.
    """
    kernels = [layer for layer in layers if layer.kind not in _NO_KERNEL]
    own = {node: [k for k in kernels if node in (k.root, *k.nodes[:1])] for node in nodes}
    return {node: tuple(found or [k for k in kernels if node in k.nodes]) for node, found in own.items()}
