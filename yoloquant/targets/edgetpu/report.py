"""What an Edge TPU would make of a file: one verdict per operator, and where its partition ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ...summarized import from_plain, plain
from ..litert.flatbuffer import kind_for_people

# "approximately 8 MB of SRAM", https://coral.ai/docs/edgetpu/compiler/#parameter-data-caching
ON_CHIP_BYTES = 8 << 20


class Status(str, Enum):
    """What the documentation lets one expect of an operator taken by itself."""

    MAPPED = "mapped"
    FALLBACK = "cpu"  # against a documented limit: it runs on the host
    UNKNOWN = "unknown"  # no documented limit decides


class Place(str, Enum):
    """Where an operator runs if the compiler makes one partition, as it does by default."""

    TPU = "tpu"
    UNSURE = "unsure"  # on the TPU if every unknown operator before it (and itself) is mapped
    CPU = "cpu"


@dataclass(frozen=True)
class OperatorFinding:
    """The verdict of the rules on one operator.

    Attributes:
        status: Mapped, fallback or unknown.
        reason: Why it is not simply mapped.
    """

    status: Status = Status.MAPPED
    reason: str = ""


@dataclass(frozen=True)
class OperatorVerdict:
    """One operator of a file.

    Attributes:
        index: Its position in execution order.
        kind: Its name in the schema.
        version: Its version.
        name: Name of its result.
        status: The rules' verdict on the operator alone.
        place: Where it runs in the end.
        reason: Why it is not mapped, or may not be; for supported operators behind the partition, that.
        macs: Multiply-accumulates of one inference.
        computed: Whether it multiplies two computed tensors where an ordinary layer has a constant weight.
    """

    index: int
    kind: str
    version: int
    name: str
    status: Status
    place: Place
    reason: str
    macs: int = 0
    computed: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes that compete for the on-chip memory.

    Attributes:
        parameters: Weights and biases of the operators in the partition.
        activations: Largest sum of tensors that are alive at once, at batch 1.
        largest: Largest single activation.
    """

    parameters: int
    activations: int
    largest: int

    @property
    def cached(self) -> bool:
        """Whether all parameters could be cached on the chip if activations needed no room there."""
        return self.parameters <= ON_CHIP_BYTES


@dataclass(frozen=True)
class EdgeTPUReport:
    """The static check of one file.

    Attributes:
        operators: Every operator, in execution order.
        ends: Indices of the operators where the partition is cut: they do not run on the TPU, all before them does.
        memory: What must fit on the chip.
        rejected: Why the compiler refuses the whole file; empty if it should read it.
    """

    operators: tuple[OperatorVerdict, ...]
    ends: tuple[int, ...]
    memory: Memory
    rejected: str = ""

    @property
    def complete(self) -> bool:
        """Whether every operator is mapped for certain."""
        return not self.rejected and all(op.place is Place.TPU for op in self.operators)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(op.macs for op in self.operators)

    def count(self, *places: Place) -> int:
        """Number of operators in some places."""
        return sum(op.place in places for op in self.operators)

    def share(self, *places: Place) -> float:
        """Share of the multiply-accumulates in some places; 0 if there are none."""
        return self._share(op for op in self.operators if op.place in places)

    @property
    def supported_share(self) -> float:
        """Share of the multiply-accumulates in mapped operators, wherever they are.

        What several partitions could reach at best (the compiler's experimental ``-a``).
        """
        return self._share(op for op in self.operators if op.status is Status.MAPPED)

    def _share(self, chosen: Iterable[OperatorVerdict]) -> float:
        # Nothing of a file runs on the TPU that its compiler refuses.
        if self.rejected or not self.macs:
            return 0.0
        return sum(op.macs for op in chosen) / self.macs

    def summary(self) -> tuple[str, ...]:
        """What a person should know, in a few sentences."""
        if self.rejected:
            return (f"the Edge TPU compiler refuses this file: {self.rejected}",)
        where = f"{self.count(Place.TPU)} of {len(self.operators)} operators"
        text = [f"{where} with {self.share(Place.TPU):.1%} of the multiply-accumulates map to an Edge TPU"]
        if self.ends:
            fallen = [op for op in self.operators if op.status is Status.FALLBACK]
            left = Counter(kind_for_people(op.kind, computed=op.computed) for op in fallen)
            named = ", ".join(f"{number} {kind}" for kind, number in sorted(left.items()))
            if named:
                text.append(f"an Edge TPU does not run {named}")
            text += [f"its partition ends at {self._end(index)}" for index in self.ends]
        unsure = Counter(op.kind for op in self.operators if op.status is Status.UNKNOWN)
        if unsure:
            named = ", ".join(f"{number} {kind}" for kind, number in sorted(unsure.items()))
            text.append(f"the documentation does not decide about {named}")
        if not self.memory.cached:
            text.append(
                f"{self.memory.parameters / 2**20:.1f} MiB of parameters exceed the {ON_CHIP_BYTES >> 20} MiB on the "
                "chip: the rest is sent at every inference"
            )
        return tuple(text)

    def _end(self, index: int) -> str:
        op = self.operators[index]
        return f"operator {index}, {op.kind}: {op.reason}"

    def table(self, *, every: bool = False) -> str:
        """A text table: operators in groups of equal kind, version, place and reason, or every single one."""
        head = ("#" if every else "count", "operator", "version", "runs on", "MMAC", "reason")
        rows = [_row(op) for op in self.operators] if every else _grouped(self.operators)
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)]
        return "\n".join([*lines, "", *self.summary()])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "complete": self.complete,
            "rejected": self.rejected,
            "operators_on_tpu": self.count(Place.TPU),
            "operators_total": len(self.operators),
            "macs": self.macs,
            "macs_on_tpu": round(self.share(Place.TPU), 6),
            "macs_unsure": round(self.share(Place.UNSURE), 6),
            "macs_supported": round(self.supported_share, 6),
            "ends": list(self.ends),
            "memory": plain(self.memory),
            "operators": plain(self.operators),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EdgeTPUReport:
        """Read what ``to_dict`` returned."""
        return from_plain(cls, data)


def _row(op: OperatorVerdict) -> tuple[str, ...]:
    return str(op.index), op.kind, str(op.version), op.place.value, f"{op.macs / 1e6:.1f}", op.reason


def _grouped(operators: Iterable[OperatorVerdict]) -> list[tuple[str, ...]]:
    groups: dict[tuple[str, int, Place, str], list[OperatorVerdict]] = {}
    for op in operators:
        groups.setdefault((op.kind, op.version, op.place, op.reason), []).append(op)
    order = {Place.TPU: 0, Place.UNSURE: 1, Place.CPU: 2}
    return [
        (str(len(ops)), kind, str(version), place.value, f"{sum(o.macs for o in ops) / 1e6:.1f}", reason)
        for (kind, version, place, reason), ops in sorted(groups.items(), key=lambda g: (order[g[0][2]], g[0][0]))
    ]
