"""What ``edgetpu_compiler`` prints, as data.

The format is that of version 14 to 16 as found in public logs, for instance in
https://github.com/google-coral/edgetpu/issues/461, 512, 601 and 631.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...summarized import from_plain, plain

MAPPED = "Mapped to Edge TPU"
_ROW = re.compile(r"^(?P<kind>[A-Za-z][\w-]*)\s{2,}(?P<count>\d+)\s{2,}(?P<status>\S.*)$")
_HEAD = re.compile(r"^Operator\s+Count\s+Status\s*$")
_SIZE = re.compile(r"^(?P<number>[\d.]+)\s*(?P<unit>[KMGT]?i?B)$")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_FIELDS = {
    "on_chip_used": "On-chip memory used for caching model parameters",
    "on_chip_left": "On-chip memory remaining for caching model parameters",
    "off_chip": "Off-chip memory used for streaming uncached model parameters",
}
_ERROR = re.compile(r"^(ERROR:|Internal compiler error|Compilation failed:|Invalid model|Model (not|could not)|Error)")
_QUIET = "Restored original execution plan"  # follows another error


@dataclass(frozen=True)
class OperatorLine:
    """One line of the compiler's table.

    Attributes:
        kind: Name of the operator.
        count: How many of them.
        status: What the compiler says about them.
    """

    kind: str
    count: int
    status: str

    @property
    def mapped(self) -> bool:
        """Whether they run on the TPU."""
        return self.status == MAPPED


@dataclass(frozen=True)
class CompilerReport:
    """Outcome of one run.

    Attributes:
        version: The compiler's version; empty if it did not say.
        succeeded: Whether it wrote a file.
        operators: Its table.
        on_chip_used: Bytes of parameters that are cached on the chip.
        on_chip_left: Bytes that are left there.
        off_chip: Bytes of parameters that are sent at every inference.
        subgraphs: Number of partitions on the TPU.
        errors: What it complained about.
    """

    version: str = ""
    succeeded: bool = False
    operators: tuple[OperatorLine, ...] = ()
    on_chip_used: int | None = None
    on_chip_left: int | None = None
    off_chip: int | None = None
    subgraphs: int | None = None
    errors: tuple[str, ...] = ()

    @property
    def mapped(self) -> int:
        """Operators that run on the TPU."""
        return sum(line.count for line in self.operators if line.mapped)

    @property
    def total(self) -> int:
        """All operators."""
        return sum(line.count for line in self.operators)

    def reasons(self) -> dict[str, dict[str, int]]:
        """Operators that stay on the host: number of each kind by the compiler's reason."""
        reasons: dict[str, Counter[str]] = {}
        for line in self.operators:
            if not line.mapped:
                reasons.setdefault(line.status, Counter())[line.kind] += line.count
        return {status: dict(sorted(kinds.items())) for status, kinds in reasons.items()}

    def summary(self) -> tuple[str, ...]:
        """What a person should know, in a few sentences."""
        name = f"edgetpu_compiler {self.version}".strip()
        if not self.succeeded:
            return (f"{name} failed: {'; '.join(self.errors) or 'it gave no reason'}",)
        text = [f"{name} mapped {self.mapped} of {self.total} operators"]
        for status, kinds in self.reasons().items():
            text.append(f"{', '.join(f'{n} {kind}' for kind, n in kinds.items())} not mapped: {status}")
        if self.off_chip:
            text.append(f"{self.off_chip / 2**20:.2f} MiB of parameters do not fit on the chip")
        return tuple(text)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**plain(self), "mapped": self.mapped, "total": self.total, "reasons": self.reasons()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CompilerReport:
        """Read what ``to_dict`` returned."""
        return from_plain(cls, data)


def parse_log(text: str) -> CompilerReport:
    """Read what the compiler printed, or the log file that it wrote, or both one after the other.

    If it tried several partitions, the last table counts.
    """
    lines = [line.strip() for line in text.splitlines()]
    heads = [i for i, line in enumerate(lines) if _HEAD.match(line)]
    rows = _table(lines[heads[-1] + 1 :]) if heads else ()
    sizes = {name: _size(_last(lines, label)) for name, label in _FIELDS.items()}
    subgraphs = _last(lines, "Number of Edge TPU subgraphs")
    done = any(line.startswith("Model compiled successfully") for line in lines)
    return CompilerReport(
        version=next((line.rsplit(" ", 1)[-1] for line in lines if line.startswith("Edge TPU Compiler version")), ""),
        succeeded=done,
        operators=rows,
        **sizes,
        subgraphs=int(subgraphs) if subgraphs.isdigit() else None,
        # Complaints of a run that succeeded are those of tries that were given up.
        errors=() if done else tuple(dict.fromkeys(e for e in lines if _ERROR.match(e) and _QUIET not in e)),
    )


def _table(lines: list[str]) -> tuple[OperatorLine, ...]:
    """Rows up to the first line that is neither one nor empty."""
    rows: list[OperatorLine] = []
    for line in lines:
        found = _ROW.match(line)
        if found:
            rows.append(OperatorLine(found["kind"], int(found["count"]), found["status"].strip()))
        elif line:
            break
    return tuple(rows)


def _last(lines: list[str], label: str) -> str:
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(f"{label}:")]
    # The last one, as of the tables: log and output may hold several tries.
    return values[-1] if values else ""


def _size(text: str) -> int | None:
    match = _SIZE.match(text)
    if not match or match["unit"] not in _UNITS:
        return None
    return round(float(match["number"]) * _UNITS[match["unit"]])
