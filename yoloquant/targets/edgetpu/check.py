"""Which operators of a file an Edge TPU runs, checked without its compiler.

By default the compiler makes one partition: what does not depend on an operator that it cannot map. At the first such
operator the network goes back to the host, and all behind it stays there
(https://coral.ai/docs/edgetpu/models-intro/#compiling; partitions follow the graph, not the order of the file, because
the compiler works as a TensorFlow Lite delegate).
"""

from __future__ import annotations

from pathlib import Path

from ..litert.flatbuffer import Flatbuffer, OpInfo
from .cost import macs, memory
from .report import EdgeTPUReport, OperatorFinding, OperatorVerdict, Place, Status
from .rules import check_operator, refused

BEHIND = "behind the end of the partition"


def check(source: bytes | Path | Flatbuffer) -> EdgeTPUReport:
    """Judge every operator of a ``.tflite`` and find where the TPU's partition ends.

    Args:
        source: The file, its bytes, or what was read from it.

    Raises:
        ArtifactError: It is missing, unreadable or no ``.tflite``.
    """
    if isinstance(source, bytes):
        source = Flatbuffer(source)
    file = source if isinstance(source, Flatbuffer) else Flatbuffer.read(source)
    findings = [check_operator(file, op) for op in file.ops]
    places = _places(file, findings)
    operators = tuple(_verdict(file, op, findings[op.index], places[op.index]) for op in file.ops)
    rejected = refused(file)
    # Parameters of what stays on the host are not cached on the chip.
    inside = {op.index for op in operators if op.place is Place.TPU}
    return EdgeTPUReport(operators, _ends(file, places), memory(file, inside), rejected)


def _places(file: Flatbuffer, findings: list[OperatorFinding]) -> list[Place]:
    """Where each operator runs: never on a better place than what it reads."""
    rank = {Place.TPU: 0, Place.UNSURE: 1, Place.CPU: 2}
    own = {Status.MAPPED: Place.TPU, Status.UNKNOWN: Place.UNSURE, Status.FALLBACK: Place.CPU}
    places: list[Place] = []
    for op in file.ops:
        before = [places[file.producers[i].index] for i in file.operands(op) if i in file.producers]
        # The worst of its own and its operands': behind the end of the partition nothing comes back (see the module).
        places.append(max((own[findings[op.index].status], *before), key=rank.__getitem__))
    return places


def _ends(file: Flatbuffer, places: list[Place]) -> tuple[int, ...]:
    """Operators on the host that read nothing from an operator on the host."""
    return tuple(
        op.index
        for op in file.ops
        if places[op.index] is Place.CPU
        and all(places[file.producers[i].index] is not Place.CPU for i in file.operands(op) if i in file.producers)
    )


def _verdict(file: Flatbuffer, op: OpInfo, found: OperatorFinding, place: Place) -> OperatorVerdict:
    reason = found.reason or {Place.TPU: "", Place.UNSURE: "behind an operator that may not be mapped"}.get(
        place, BEHIND
    )
    name = file.tensors[op.outputs[0]].name
    computed = file.multiplies_computed(op)
    return OperatorVerdict(op.index, op.kind, op.version, name, found.status, place, reason, macs(file, op), computed)
