"""From measurements to the rows of the table: plain data, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import Evaluation
from yoloquant.evaluation.results import Interval

from .agreement import Agreement
from .contenders import BASELINE, Contender, Field, Kind
from .latency import Timing, ratio

Row = dict[str, Any]


def build_rows(
    entered: Field, comparer: Comparer, timings: Mapping[str, Timing], agreements: Mapping[str, Agreement]
) -> list[Row]:
    """One row per contender: the baseline first, then runtime by runtime.

    Args:
        entered: The contenders.
        comparer: Scores of the evaluated ones.
        timings: Latency by name.
        agreements: Ultralytics' own scores by name.

    Returns:
        Rows with fractions for mAP, drops and fidelity, milliseconds and bytes; None where nothing was measured.
    """
    order = [Kind.BASELINE, Kind.FLOAT, Kind.THEIRS, Kind.OURS, Kind.PORTABLE]
    runtimes = list(dict.fromkeys(c.runtime for c in entered.contenders.values()))

    def place(c: Contender) -> tuple[int, bool, int]:
        return runtimes.index(c.base_runtime), c.runtime != c.base_runtime, order.index(c.kind)

    return [
        {
            "name": c.name,
            "runtime": c.runtime,
            "kind": c.kind.value,
            "file": c.path.name if c.path else "",
            "size_bytes": c.size_bytes,
            "error": c.error,
            **_accuracy(c.name, comparer),
            "latency": _latency(c, entered, timings),
            "agreement": _agreement(agreements.get(c.name)),
            "tensorrt": _tensorrt(c),
            "notes": list(c.notes),
            "twin_of": c.twin_of,
        }
        for c in sorted(entered.contenders.values(), key=place)
    ]


def _accuracy(name: str, comparer: Comparer) -> Row:
    evaluation = comparer.evaluation
    if name not in evaluation.records:
        return {"map50_95": None, "map50": None, "comparison": None, "pass_ms": None}
    scored = comparer.accuracy(name)
    times = list(evaluation.records[name].infer_ms.values())
    return {
        "map50_95": scored.map50_95 if scored else None,
        "map50": scored.map50 if scored else None,
        "comparison": None if name == BASELINE else _comparison(name, comparer),
        "pass_ms": {"median": float(np.median(times)), "p90": float(np.percentile(times, 90)), "runs": len(times)},
    }


def _comparison(name: str, comparer: Comparer) -> Row:
    measured = comparer.compare(name)
    found = measured.comparison
    return {
        "map_drop": _interval(found.map_drop),
        "map50_drop": _interval(found.map50_drop),
        "fidelity": _interval(found.fidelity),
        "confidence_shift": found.confidence_shift,
        "box_iou": found.box_iou,
        "matched": found.matched,
    }


def _interval(value: Interval | None) -> Row | None:
    return None if value is None else asdict(value)


def _latency(contender: Contender, entered: Field, timings: Mapping[str, Timing]) -> Row | None:
    mine = timings.get(contender.name)
    if mine is None:
        return None
    ratios = {}
    for key, kind in (("ratio_fp32", Kind.FLOAT), ("ratio_ultralytics", Kind.THEIRS)):
        other = entered.of(contender.runtime, kind)
        known = other is not None and other.name in timings
        ratios[key] = ratio(mine, timings[other.name]) if other is not None and known else None
    return {"median_ms": mine.median_ms, "p90_ms": mine.p90_ms, "rounds": len(mine.times_ms), **ratios}


def _agreement(found: Agreement | None) -> Row | None:
    return None if found is None else {**asdict(found), "difference": found.difference}


def _tensorrt(contender: Contender) -> Row | None:
    """The linter's and the compiler's findings that the TensorRT target recorded."""
    metadata = contender.exported.metadata if contender.exported and not contender.twin_of else {}
    if "lint" not in metadata:
        return None
    return {
        "lint_errors": metadata["lint"]["errors"],
        "lint_warnings": len(metadata["lint"]["warnings"]),
        "planned_convs": len(metadata["planned_convs"]),
        "rtx": metadata["tensorrt_rtx"],
    }


def overhead(evaluation: Evaluation, statistics_s: float) -> Row:
    """How long a validation took, relative to what cannot be avoided.

    Args:
        evaluation: A pass of the baseline and our exports alone.
        statistics_s: Time that mAP, fidelity and their intervals took.

    Returns:
        Seconds, and the ratio to the sum of pure inference and NMS times, without and with statistics.
    """
    pure = sum(sum(r.infer_ms.values()) + sum(r.select_ms) for r in evaluation.records.values()) / 1e3
    return {
        "models": list(evaluation.records),
        "wall_s": evaluation.seconds,
        "statistics_s": statistics_s,
        "pure_s": pure,
        "ratio_pass": evaluation.seconds / pure,
        "ratio": (evaluation.seconds + statistics_s) / pure,
    }
