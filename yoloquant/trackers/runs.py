"""What trackers are told of each verb's result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base import TrackedRun

if TYPE_CHECKING:
    from ..evaluation.results import TargetResult, ValidationResult
    from ..pruning.prune import PruneResult
    from ..tuning.results import TuneResult

# what people open and what programs read; artifacts themselves are too large to be sent
REPORT = ("report.html", "report.md", "report.json", "junit.xml", "results.npz")


def of_validation(result: ValidationResult, folder: Path, verb: str = "validate") -> TrackedRun:
    """A validation or comparison whose report lies in a folder."""
    # the baseline among them: a figure means little without it
    metrics: dict[str, Any] = {}
    for row in (result.baseline, *result.targets):
        metrics.update({f"{row.target}/{name}": value for name, value in _figures(row).items()})
    markdown = folder / "report.md"
    parameters = {"gate": result.gate, "images": result.images, "imgsz": result.imgsz, **result.environment}
    return TrackedRun(
        verb,
        str(result.environment.get("model") or folder.parent.name),
        folder,
        {**parameters, "verdict": result.verdict.value},
        numbers(metrics),
        files=tuple(folder / name for name in REPORT),
        text=markdown.read_text(encoding="utf-8") if markdown.is_file() else result.summary(),
    )


def _figures(row: TargetResult) -> dict[str, Any]:
    found: dict[str, Any] = dict(row.accuracy.metrics) if row.accuracy else {}
    comparison = row.comparison
    if comparison is not None:
        found |= {"fidelity": comparison.fidelity.value, "confidence_shift": comparison.confidence_shift}
        found |= {name: value.value for name, value in comparison.intervals.items() if name != "confidence_shift"}
    if row.operating is not None:
        found |= {"f1": row.operating.f1.value if row.operating.f1 else None}
    found |= {"latency_ms": row.latency.median_ms if row.latency else None, "size_mb": row.size_bytes / 1e6 or None}
    return found


def of_pruning(result: PruneResult, model: str) -> TrackedRun:
    """A one-shot pruning that wrote a checkpoint."""
    assert result.path is not None
    plan = result.plan
    metrics = (
        {}
        if plan is None
        else {
            **{f"{name}_before": value for name, value in vars(plan.before).items()},
            **{f"{name}_after": value for name, value in vars(plan.after).items()},
        }
    )
    text = "".join(f"- {line}\n" for line in result.report)
    return TrackedRun("prune", Path(model).stem, result.path.parent, {"model": model}, numbers(metrics), text=text)


def of_study(result: TuneResult) -> TrackedRun:
    """A study: every trial's scores by its number, and what was chosen."""
    series: dict[str, list[tuple[int, float]]] = {}
    for trial in result.trials:
        for name, value in numbers(trial.scores).items():
            # by stage, since trials of the second look count from 0 again
            series.setdefault(f"{trial.stage}/{name}", []).append((trial.number, value))
    chosen = {f"chosen/{name}": value for name, value in result.chosen.scores.items()}
    default = {} if result.default is None else {f"default/{k}": v for k, v in result.default.scores.items()}
    files = ("tune.html", "recipe.yaml", "trials.csv")
    return TrackedRun(
        "tune",
        result.options.name,
        result.folder,
        dict(result.chosen.values),
        numbers({**chosen, **default}),
        series,
        (*(result.folder / name for name in files), *sorted(result.folder.glob("*.png"))),
        f"```text\n{result.summary()}\n```",
    )


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among values."""
    # servers reject NaN and infinity, some of them with the whole run
    plain = {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
    return {key: value for key, value in plain.items() if math.isfinite(value)}
