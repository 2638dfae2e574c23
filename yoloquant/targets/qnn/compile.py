"""Have Qualcomm's compiler make the form for one chip, and read which operations it was given in which types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import TargetError
from ...runtime.device.snapdragon import Soc
from .compile_worker import COMPILED, TRACE

SECONDS = 1800.0
_SHOWN = 4
_WORKER = f"{__package__}.compile_worker"
# Qnn_DataType_t of QAIRT's QnnTypes.h: 0x3xx are signed and 0x4xx unsigned fixed-point numbers
_FIXED_POINT = frozenset({0x3, 0x4})
_ENDS = frozenset({"Quantize", "Dequantize"})


@dataclass(frozen=True)
class NpuReport:
    """What the NPU was given.

    Attributes:
        soc: Name of the chip.
        title: What the chip is sold as.
        operations: Operations of its graph by kind.
        floats: Operations that compute in float, by kind; the conversions at both ends are not among them.
    """

    soc: str
    title: str
    operations: Mapping[str, int]
    floats: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "operations": dict(self.operations), "floats": dict(self.floats)}

    def summary(self) -> str:
        """One sentence for people."""
        inner = sum(count for kind, count in self.operations.items() if kind not in _ENDS)
        text = f"the NPU of a {self.title} takes all {inner} operations"
        if not self.floats:
            return f"{text}, each in integers"
        few = ", ".join(f"{count} {kind}" for kind, count in self.floats.items())
        return f"{text}, {inner - sum(self.floats.values())} in integers; in float16: {few}"


@dataclass(frozen=True, eq=False)
class CompiledForSoc:
    """A compiled network.

    Attributes:
        content: The ``.onnx`` with what the NPU loads.
        report: What the NPU was given.
    """

    content: bytes
    report: NpuReport


def compile_for_soc(model: Path, soc: Soc, *, seconds: float = SECONDS) -> CompiledForSoc:
    """Compile a network.

    Args:
        model: The ``.onnx``.
        soc: What for.
        seconds: Time limit.

    Raises:
        TargetError: The compiler refuses it, crashed or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="yoloquant-qnn-") as name:
        folder = Path(name)
        try:
            _run([str(model.resolve()), str(soc.model), str(folder)], seconds)
        except TargetError as exc:
            if left := left_out(folder / TRACE):
                raise TargetError(f"the NPU of a {soc.title} cannot run {left}; use another target for it") from exc
            raise
        compiled = folder / COMPILED
        graphs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
        graphs = [graph["graph"] for graph in graphs if "graph" in graph]
        if not compiled.is_file() or len(graphs) != 1:
            raise TargetError(
                f"Qualcomm's compiler made {len(graphs)} graphs for the NPU where one was expected; this release of "
                "onnxruntime-qnn is not known (2.7 is)"
            )
        return CompiledForSoc(compiled.read_bytes(), read_graph(soc, graphs[0]))


def read_graph(soc: Soc, graph: Mapping[str, Any]) -> NpuReport:
    """Count the operations of a graph as the provider wrote it."""
    operations: Counter[str] = Counter()
    floats: Counter[str] = Counter()
    for node in graph["nodes"].values():
        kind = str(node["type"])
        operations[kind] += 1
        types = [int(graph["tensors"][name]["data_type"]) >> 8 for name in node["output_names"]]
        if kind not in _ENDS and not _FIXED_POINT.issuperset(types):
            floats[kind] += 1
    return NpuReport(soc.name, soc.title, dict(operations.most_common()), dict(floats.most_common()))


def left_out(trace: Path) -> str:
    """Which operations the provider would leave to the CPU and why, as it wrote it; empty if none, or nobody knows."""
    if not trace.is_file():
        return ""
    nodes = json.loads(trace.read_text(encoding="utf-8")).get("unsupported_nodes", ())
    found = Counter(f"{node['op_type']} ({node['reason']})" for node in nodes)
    few = ", ".join(f"{count} {what}" for what, count in found.most_common(_SHOWN))
    return f"{few}{', ...' if len(found) > _SHOWN else ''}"


def _run(arguments: list[str], seconds: float) -> None:
    root = str(Path(__file__).resolve().parents[3])
    # the worker must import this very package, also where it runs from a checkout
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-m", _WORKER, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env={**os.environ, "PYTHONPATH": search},
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise TargetError(f"Qualcomm's compiler did not finish within {seconds:g} s; choose a smaller imgsz") from exc
    if done.returncode == 0:
        return
    said = ([line for line in done.stderr.splitlines() if line.strip()] or ["no output"])[-1][-500:]
    raise TargetError(
        said if done.returncode == 1 else f"Qualcomm's compiler crashed (status {done.returncode}): {said}"
    )
