"""What the tools that compare training with calibration share: cached runs, rows, one paired pass, a table."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yoloquant import api, targets
from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import evaluate
from yoloquant.quantization.artifact import Artifact
from yoloquant.runtime.core.runner import Runner

from .held import held_out

logger = logging.getLogger(__name__)

BASELINE = "fp32"


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        model: The float checkpoint.
        data: Data yaml; part of its train split chooses the best epoch.
        qat: Options of ours.
        arguments: Ultralytics' training arguments.
        select_images: Images of the train split that are held back.
    """

    model: Path
    data: str
    qat: dict[str, Any]
    arguments: dict[str, Any]
    select_images: int = 24


def train(run: Run, folder: Path) -> Artifact:
    """Train, or take the finished run that a folder holds."""
    folder = folder.resolve()
    best, mark = folder / "weights" / "best.pt", folder / "wanted.json"
    wanted = json.loads(json.dumps({"qat": run.qat, "arguments": run.arguments, "held": run.select_images}))
    if best.is_file() and mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == wanted:
        logger.info("using the finished run in %s", folder)
        return Artifact.load(best)
    data = held_out(run.data, folder.with_name(f"{folder.name}_data"), run.select_images)
    result = api.train(
        run.model,
        data=data,
        qat=run.qat,
        project=str(folder.parent),
        name=folder.name,
        exist_ok=True,
        **run.arguments,
    )
    mark.write_text(json.dumps(wanted), encoding="utf-8")
    return result.artifact


@dataclass
class Entry:
    """One row: a method in a runtime.

    Attributes:
        runtime: Name of the target; empty in PyTorch.
        method: How it was quantized.
        runner: What is scored; None if it could not be made.
        error: Why not.
        scales: Learned scales read back from the artifact: equal ones and all; None where nothing was learned.
    """

    runtime: str
    method: str
    runner: Runner | None = None
    error: str = ""
    scales: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Unique name."""
        return f"{self.method} / {self.runtime}" if self.runtime else self.method


def score(entries: Sequence[Entry], data: ValidationSet, replicates: int) -> list[dict[str, Any]]:
    """Score every entry on the same images in one interleaved pass; the baseline's name is BASELINE.

    Returns:
        Rows with fractions for mAP, drops and fidelity, and 95 % paired intervals.
    """
    runners = {e.name: e.runner for e in entries if e.runner is not None}
    try:
        evaluation = evaluate(runners, data, progress=progress)
    finally:
        for runner in runners.values():
            runner.close()
    comparer = Comparer(evaluation, BootstrapOptions(replicates=replicates))
    return [_row(e, comparer, evaluation.errors.get(e.name, e.error)) for e in entries]


def _row(entry: Entry, comparer: Comparer, error: str) -> dict[str, Any]:
    row: dict[str, Any] = {"runtime": entry.runtime, "method": entry.method, "error": error, "scales": entry.scales}
    if error or entry.runner is None:
        return row
    scored = comparer.accuracy(entry.name)
    row["map50_95"] = scored.map50_95 if scored else None
    found = comparer.compare(entry.name).comparison if entry.method != BASELINE else None
    if found is not None:
        row["map_drop"] = asdict(found.map_drop) if found.map_drop else None
        row["fidelity"] = asdict(found.fidelity) if found.fidelity else None
    row["further"] = {}
    for similarity in comparer.evaluation.task.similarities[1:]:
        prefix, intervals = similarity.prefix, {} if found is None else found.intervals
        numbers = {name: intervals.get(f"{prefix}{name}") for name in ("map_drop", "fidelity")}
        row["further"][similarity.title] = {
            "map50_95": scored.metrics.get(f"{prefix}map50_95") if scored else None,
            **{name: asdict(value) if value else None for name, value in numbers.items()},
        }
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The table; drops in points, fidelity to the FP32 model, 95 % paired intervals."""
    lines = [
        "| runtime | method | mAP50-95 | drop in points | fidelity | learned scales read back |",
        "|---|---|---|---|---|---|",
    ]
    order = {name: i for i, name in enumerate(["", *targets.names()])}
    for row in sorted(rows, key=lambda r: order[r["runtime"]]):
        if row["error"]:
            lines.append(f"| {row['runtime']} | {row['method']} | {row['error']} | | | |")
            continue
        scales = row["scales"]
        cells = [
            row["runtime"] or "PyTorch",
            row["method"],
            *_cells(row),
            f"{scales[0]} of {scales[1]}" if scales else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        # masks and keypoints have a line of their own, below the boxes'
        lines += [f"| | {what} | {' | '.join(_cells(f))} | |" for what, f in row.get("further", {}).items()]
    return "\n".join(lines) + "\n"


def _cells(measured: dict[str, Any]) -> list[str]:
    """The figure of a similarity, its drop and its fidelity."""
    figure, drop, fidelity = (measured.get(key) for key in ("map50_95", "map_drop", "fidelity"))
    return [
        f"{figure:.4f}" if figure is not None else "",
        f"{drop['value'] * 100:+.2f} ({drop['low'] * 100:+.2f} to {drop['high'] * 100:+.2f})" if drop else "",
        f"{fidelity['value']:.3f} ({fidelity['low']:.3f} to {fidelity['high']:.3f})" if fidelity else "",
    ]


def progress(done: int, total: int, what: str) -> None:
    """A progress bar on standard error."""
    print(f"\r{done}/{total} {what:<40.40}", end="\n" if done == total else "", file=sys.stderr, flush=True)
