"""A validation as a table: for a terminal, and for pandas."""

from __future__ import annotations

from typing import Any

from ..types import Verdict
from .results import TargetResult, ValidationResult


def table(result: ValidationResult) -> str:
    """Every model in a line with what it did not pass, and the verdict."""
    head = f"{'target':<14} {'mAP50-95':>8} {'drop':>7} {'95 % interval':>16} {'fidelity':>9} {'ms':>8} {'ratio':>6}"
    lines = [f"{head}  verdict"]
    for row in (result.baseline, *result.targets):
        lines.append(_line(row))
        if row.error:
            lines.append(f"  error: {row.error}")
        lines += [f"  {c.verdict.value}: {c.message}" for c in row.checks if c.verdict is not Verdict.PASS]
    lines.append(f"verdict: {result.verdict.value.upper()} by gate '{result.gate}' on {result.images} images")
    return "\n".join(lines)


def _line(row: TargetResult) -> str:
    accuracy, comparison, latency = row.accuracy, row.comparison, row.latency
    drop = comparison.map_drop if comparison else None
    cells = [
        f"{row.target:<14}",
        f"{accuracy.map50_95 * 100:8.2f}" if accuracy else f"{'-':>8}",
        f"{drop.value * 100:+7.2f}" if drop else f"{'-':>7}",
        f"{f'{drop.low * 100:+.2f} to {drop.high * 100:+.2f}':>16}" if drop else f"{'-':>16}",
        f"{comparison.fidelity.value:9.3f}" if comparison else f"{'-':>9}",
        f"{latency.median_ms:8.1f}" if latency else f"{'-':>8}",
        f"{comparison.latency_ratio:6.2f}" if comparison and comparison.latency_ratio else f"{'-':>6}",
        f" {row.verdict.value}",
    ]
    return " ".join(cells)


def rows(result: ValidationResult) -> list[dict[str, Any]]:
    """The same as plain data; what was not measured is None."""
    return [_row(row) for row in (result.baseline, *result.targets)]


def _row(row: TargetResult) -> dict[str, Any]:
    accuracy, comparison, latency = row.accuracy, row.comparison, row.latency
    drop = comparison.map_drop if comparison else None
    return {
        "target": row.target,
        "map50_95": accuracy.map50_95 if accuracy else None,
        "map50": accuracy.map50 if accuracy else None,
        "map_drop": drop.value if drop else None,
        "map_drop_low": drop.low if drop else None,
        "map_drop_high": drop.high if drop else None,
        "fidelity": comparison.fidelity.value if comparison else None,
        "latency_ms": latency.median_ms if latency else None,
        "latency_ratio": comparison.latency_ratio if comparison else None,
        "size_bytes": row.size_bytes,
        "verdict": row.verdict.value,
        "error": row.error,
    }
