"""What TensorRT says about the layers of an engine, held against what was planned.

The JSON of ``EngineInspector.get_engine_information`` differs between releases (seen: TensorRT 8.4 to 10 in NVIDIA's
trt-engine-explorer examples and issue 4020 of github.com/NVIDIA/TensorRT). A layer is an object only if the engine was
built with detailed profiling verbosity, else just its name. The inspector needs a GPU; a build log tells the same, with
one line for each layer at its end (seen: TensorRT-RTX 1.7.1)::

    Name: /c/Conv_myl0_3, LayerType: correlation, Inputs: [ { Name: .., Datatype: Int8, .. }], Constants: [..],
    Outputs: [..], TacticName: .., Metadata: [ONNX Layer: /c/Conv]<0x1F>[ONNX Layer: x_DQ]

Neither form is documented, so everything but the name and the layer type is optional here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import TargetError

_SEPARATORS = re.compile(r"[\s,(){}\[\]|+]+")
_MYELIN_SUFFIX = re.compile(r"_myl\d+_\d+$")
# Names of nodes may hold brackets themselves.
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\x1e\x1f]*?)\](?=[\x1e\x1f]|\[ONNX Layer: |\s*$)")
_LOG_LAYER = re.compile(r"^(?:.*\bLayers:\s*)?Name: (?P<name>.+?), LayerType: (?P<kind>[^,\s]*)(?P<rest>.*)$")
_LOG_SECTION = re.compile(r", (Inputs|Constants|Outputs): \[|, (TacticName|Metadata): ?|, (?:StreamId|EventId): ?")
_LOG_DATATYPE = re.compile(r"Datatype: (\w+)")
_FOREIGN = re.compile(r"\{ForeignNode\[")
_INT8_TACTIC = re.compile(r"i8i8|_int8_|int8_int8")
# The first that is there counts: releases name it differently, and "Format" alone tells the least.
_TYPE_KEYS = ("Format/Datatype", "Datatype", "DataType", "Format")
# Layers that multiply nothing: they reformat, generate pointwise code, or synchronise streams.
_NO_KERNEL = (
    *("reformat", "kgen", "signal", "wait", "noop", "pointwise", "pointwisev2", "constant"),
    *("shuffle", "slice", "scale", "quantize", "dequantize", "concat"),
)


class Int8Error(TargetError):
    """Layers of an engine do not run in Int8 although that was planned."""


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: The engine's name for it; lists what was fused.
        kind: The engine's layer type.
        inputs: Types of the inputs, as TensorRT words them.
        weights: Types of weights and constants; empty if it does not say.
        nodes: Names of ONNX nodes that it stands for; the main one first.
        tactic: Name of the kernel.
        outputs: Types of the outputs.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    tactic: str = ""
    outputs: tuple[str, ...] = ()

    @property
    def multiplies(self) -> bool:
        """Whether it may be the kernel of a convolution or matrix product."""
        return self.kind.lower() not in _NO_KERNEL and not self.hides_nodes

    @property
    def hides_nodes(self) -> bool:
        """Whether it is a region that another compiler made, whose inside the inspector does not show."""
        return bool(_FOREIGN.search(self.name))

    @property
    def is_int8(self) -> bool:
        """Whether it multiplies an Int8 activation by Int8 weights.

        A ``runtime_fusion`` may read both as Int8, but only to cast them before it multiplies (TensorRT-RTX 1.7.1).
        """
        if self.kind == "runtime_fusion" or not self.inputs or not _int8(self.inputs[0]):
            return False
        others = (*self.inputs[1:], *self.weights)
        if self.weights or len(self.inputs) > 1:
            return any(map(_int8, others)) or bool(_INT8_TACTIC.search(self.tactic))
        return True  # nothing is said of the weights: no kernel takes an Int8 activation and float weights

    def stands_for(self, node: str) -> bool:
        """Whether its name says that it carries out a node."""
        return node in (_MYELIN_SUFFIX.sub("", self.name), *_names(self.name))


@dataclass(frozen=True)
class Int8Report:
    """How an engine runs what was planned for Int8.

    Attributes:
        int8: Planned nodes that run in Int8.
        other: Planned nodes that run in another type.
        hidden: Planned nodes that must lie in a region which the inspector does not show.
        missing: Planned nodes that no layer could be matched with.
        named_only: Whether the inspector told names alone, so that nothing is known.
    """

    int8: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    named_only: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the plan; what the inspector hides does not."""
        return not self.other and not self.missing and not self.named_only

    def summary(self) -> str:
        """One sentence for people; it names every layer that is not as planned."""
        if self.named_only:
            return "the engine inspector tells only the names of layers, so their types cannot be checked"
        planned = len(self.int8) + len(self.other) + len(self.hidden) + len(self.missing)
        text = f"{len(self.int8)} of {planned} planned layers run in Int8"
        for names, what in (
            (self.other, "in another type"),
            (self.missing, "not found in the engine"),
            (self.hidden, "inside a region that the inspector does not show"),
        ):
            if names:
                text += f"; {what}: {', '.join(names)}"
        return text


def parse(text: str) -> tuple[Layer, ...]:
    """Layers from the inspector's JSON.

    Raises:
        TargetError: It is none.
    """
    try:
        data = json.loads(text, strict=False)  # names may hold control characters
        entries: Sequence[Any] = data["Layers"]
        return tuple(Layer(e, "") if isinstance(e, str) else _layer(e) for e in entries)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise TargetError(f"the engine inspector's answer is not understood ({exc!r}): {text[:200]!r}") from exc


def parse_log(lines: Iterable[str]) -> tuple[Layer, ...]:
    """Layers from a verbose build log, in the order of the engine; none if the log lists none.

    Args:
        lines: Lines of the log; those of other kinds are skipped.
    """
    matches = (_LOG_LAYER.match(line.rstrip("\n")) for line in lines)
    return tuple(_logged(m["name"], m["kind"], m["rest"]) for m in matches if m)


def _logged(name: str, kind: str, rest: str) -> Layer:
    # By the sections' own headings: names of layers and tensors may hold commas and brackets.
    marks = list(_LOG_SECTION.finditer(rest))
    ends = [m.start() for m in marks[1:]] + [len(rest)]
    text = {m[1] or m[2]: rest[m.end() : end] for m, end in zip(marks, ends)}
    inputs, constants, outputs = (
        tuple(_LOG_DATATYPE.findall(text.get(section, ""))) for section in ("Inputs", "Constants", "Outputs")
    )
    nodes = tuple(_ONNX_LAYER.findall(rest.partition("Metadata: ")[2]))
    return Layer(name, kind, inputs, constants, nodes, text.get("TacticName", ""), outputs)


def _layer(entry: Mapping[str, Any]) -> Layer:
    weights = [entry[key] for key in ("Weights", "ConvWeights") if isinstance(entry.get(key), dict)]
    types = [str(w.get("Type", "")) for w in weights] + [_type(c) for c in _list(entry, "Constants")]
    return Layer(
        name=str(entry["Name"]),
        kind=str(entry.get("LayerType", "")),
        inputs=tuple(_type(i) for i in _list(entry, "Inputs")),
        weights=tuple(types),
        nodes=tuple(_ONNX_LAYER.findall(str(entry.get("Metadata", "")))),
        tactic=str(entry.get("TacticName", "")),
        outputs=tuple(_type(o) for o in _list(entry, "Outputs")),
    )


def _list(entry: Mapping[str, Any], key: str) -> list[Any]:
    entries = entry.get(key)
    return [x for x in entries if isinstance(x, dict)] if isinstance(entries, list) else []


def _type(tensor: Mapping[str, Any]) -> str:
    return next((str(tensor[key]) for key in _TYPE_KEYS if key in tensor), "")


def _int8(text: str) -> bool:
    return "int8" in text.lower()


def _names(layer: str) -> tuple[str, ...]:
    return tuple(_MYELIN_SUFFIX.sub("", name) for name in _SEPARATORS.split(layer) if name)


def check(layers: Iterable[Layer], planned: Iterable[str]) -> Int8Report:
    """Hold the layers of an engine against the plan.

    Args:
        layers: What ``parse`` or ``parse_log`` returned.
        planned: Names of the ONNX nodes that are meant to run in Int8.

    Returns:
        What became of each.
    """
    layers = tuple(layers)
    if layers and not any(layer.kind for layer in layers):
        return Int8Report(named_only=True)
    regions = any(layer.hides_nodes for layer in layers)
    int8: list[str] = []
    other: list[str] = []
    unseen: list[str] = []
    for node, kernels in find_kernels(layers, planned).items():
        if kernels:
            # All of them: a convolution that was split is Int8 only if no part of it runs in float.
            (int8 if all(k.is_int8 for k in kernels) else other).append(node)
        else:
            unseen.append(node)
    # A node that no layer names may lie in a region that shows nothing: that proves nothing against the plan.
    hidden, missing = (unseen, []) if regions else ([], unseen)
    return Int8Report(tuple(int8), tuple(other), tuple(hidden), tuple(missing))


def find_kernels(layers: Iterable[Layer], nodes: Iterable[str]) -> dict[str, tuple[Layer, ...]]:
    """Find the layers that carry out given ONNX nodes.

    A node's name also appears in the metadata of its neighbours (the pointwise kernel behind a convolution applies the
    convolution's scales and bias), so kernels count that are named after the node; where there is none, those that list
    it first; and else those that list it at all (convolutions merged into one).

    Args:
        layers: Layers of the engine.
        nodes: Names of convolution or matrix multiplication nodes.

    Returns:
        For each node its kernels; none where the engine shows none.
    """
    kernels = [layer for layer in layers if layer.multiplies]

    def own(node: str) -> list[Layer]:
        return (
            [k for k in kernels if k.stands_for(node)]
            or [k for k in kernels if k.nodes[:1] == (node,)]
            or [k for k in kernels if node in k.nodes]
        )

    return {node: tuple(own(node)) for node in nodes}


def inspect(trt: Any, engine: Any) -> tuple[Layer, ...]:
    """Ask an engine for its layers.

    Args:
        trt: The TensorRT module.
        engine: A deserialized engine.

    Raises:
        TargetError: The answer is not understood.
    """
    inspector = engine.create_engine_inspector()
    return parse(str(inspector.get_engine_information(trt.LayerInformationFormat.JSON)))
