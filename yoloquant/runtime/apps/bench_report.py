"""What ``bench`` found out: one row for each artifact, as data and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STEPS = ("preprocess", "inference", "postprocess", "total")
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class BenchMeasurement:
    """What was measured of one artifact.

    Attributes:
        name: Its name.
        facts: What the process said of it: backend, version, input, threads.
        steps_ms: Percentiles (``p50``, ``p90``, ``p99``) and ``mean`` of every step, over all runs.
        fps: Images per second, one after the other.
        cpu_percent: Processor time over wall time; 100 is one core.
        memory_mb: Resident memory of its process in the end.
        model_mb: The part that came with loading the model and its first inferences.
        watts: Mean power of the machine during its turns.
        degrees: Hottest zone after its last turn.
        ratio: Median over the rounds of its time for an image divided by the first artifact's.
        error: Why it could not be measured; everything else is then empty.
    """

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    steps_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    fps: float | None = None
    cpu_percent: float | None = None
    memory_mb: float | None = None
    model_mb: float | None = None
    watts: float | None = None
    degrees: float | None = None
    ratio: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Report:
    """A comparison.

    Attributes:
        environment: The machine and the settings.
        measured: Every artifact, in the order given.
    """

    environment: Mapping[str, Any]
    measured: tuple[BenchMeasurement, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "format": 1,
            "environment": dict(self.environment),
            "artifacts": [dict(vars(m), facts=dict(m.facts)) for m in self.measured],
        }

    def table(self) -> str:
        """A table for people."""
        return _table(self)


def _table(report: Report) -> str:
    rows: list[tuple[str, ...]] = [
        (
            "artifact",
            "runtime",
            "thr",
            "p50 ms",
            "p90",
            "p99",
            "pre",
            "infer",
            "post",
            "FPS",
            "CPU %",
            "MB",
            "W",
            "C",
            "ratio",
        )
    ]
    failed = []
    for m in report.measured:
        if m.error:
            # Below the table: a runtime's message is far wider than a column.
            failed.append(f"{m.name} failed: {m.error}")
            continue
        total = m.steps_ms["total"]
        rows.append(
            (
                m.name,
                str(m.facts.get("runtime", "")),
                str(m.facts.get("threads") or "all"),
                *(f"{total[f'p{p}']:.2f}" for p in PERCENTILES),
                *(f"{m.steps_ms[step]['p50']:.2f}" for step in STEPS[:3]),
                *(_cell(v, d) for v, d in ((m.fps, 1), (m.cpu_percent, 0), (m.memory_mb, 0), (m.watts, 1))),
                *(_cell(v, d) for v, d in ((m.degrees, 0), (m.ratio, 3))),
            )
        )
    # By what is in the table, the heading included: names of artifacts are of any length.
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    env = report.environment
    cores = ",".join(map(str, env["affinity"])) or "unknown"
    measures = {"tegrastats": "power of the module from tegrastats", "rapl": "power of the processor from RAPL"}
    lines += [
        "",
        f"{env['cpu']}, cores {cores}; load average before {_cell(env['load_average'], 2) or 'unknown'}; "
        f"{env['rounds']} rounds of {env['runs']} runs, in turns; "
        + measures.get(env["power_source"], "power unknown"),
        *failed,
    ]
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
