"""What the benchmark must show for yolo11n on the COCO subset, held against what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yoloquant.types import Verdict

from .agreement import GOAL as AGREEMENT_GOAL
from .contenders import Kind

Row = Mapping[str, Any]
OVERHEAD_GOAL = 1.3


@dataclass(frozen=True)
class Goal:
    """One goal and its outcome.

    Attributes:
        what: What is measured.
        limit: The goal.
        value: The measurement; None if there is none.
        at_least: Whether the value must reach the limit rather than stay within it.
    """

    what: str
    limit: float
    value: float | None
    at_least: bool = False

    @property
    def verdict(self) -> Verdict:
        """Outcome; what was not measured is an error, never a pass."""
        if self.value is None:
            return Verdict.ERROR
        met = self.value >= self.limit if self.at_least else self.value <= self.limit
        return Verdict.PASS if met else Verdict.FAIL


def _drop(row: Row) -> float | None:
    return row["comparison"]["map_drop"]["value"] if row["comparison"] and row["comparison"]["map_drop"] else None


def _fidelity(row: Row) -> float | None:
    return row["comparison"]["fidelity"]["value"] if row["comparison"] else None


def _ratio(key: str) -> Callable[[Row], float | None]:
    return lambda row: row["latency"][key] if row["latency"] else None


def _lint_errors(row: Row) -> float | None:
    return row["tensorrt"]["lint_errors"] if row["tensorrt"] else None


def _not_int8(row: Row) -> float | None:
    """Planned convolutions that TensorRT-RTX does not run in Int8; None where it could not be asked."""
    rtx = row["tensorrt"]["rtx"] if row["tensorrt"] else {"available": False}
    if not rtx["available"] or not rtx["built"]:
        return None
    return float(len(rtx["float_convs"]) + len(rtx["unseen_convs"]))


_ULTRALYTICS, _FLOAT = "latency against Ultralytics' file", "latency against float in the same runtime"
_GOALS: dict[str, tuple[tuple[str, Callable[[Row], float | None], float, bool], ...]] = {
    "openvino": (
        ("mAP50-95 drop", _drop, 0.005, False),
        (_ULTRALYTICS, _ratio("ratio_ultralytics"), 1.05, False),
    ),
    "onnxruntime": (
        ("mAP50-95 drop", _drop, 0.007, False),
        (_FLOAT, _ratio("ratio_fp32"), 0.75, False),
    ),
    "litert": (
        ("mAP50-95 drop", _drop, 0.005, False),
        ("fidelity", _fidelity, 0.945, True),
        (_ULTRALYTICS, _ratio("ratio_ultralytics"), 1.05, False),
    ),
    "tensorrt": (
        ("mAP50-95 drop", _drop, 0.005, False),
        ("lint errors", _lint_errors, 0, False),
        ("planned convolutions not in Int8 (TensorRT-RTX)", _not_int8, 0, False),
    ),
}


def goals(rows: Sequence[Row], overhead: Mapping[str, Any], *, agreed: bool) -> list[Goal]:
    """Hold a benchmark against its goals.

    Args:
        rows: The table's rows.
        overhead: What ``rows.overhead`` returned.
        agreed: Whether Ultralytics' validator was asked.

    Returns:
        Every goal for every runtime that took part, with its own plan.
    """
    found = []
    for row in rows:
        if row["kind"] != Kind.OURS.value:
            continue
        for what, value, limit, at_least in _GOALS.get(row["runtime"], ()):
            found.append(Goal(f"{row['name']}: {what}", limit, value(row), at_least))
    if agreed:
        for row in rows:
            like = row["agreement"] is not None and not row["agreement"]["twin"]  # else its twin is the one to compare
            if like and row["kind"] in {Kind.OURS.value, Kind.PORTABLE.value}:
                gap = row["agreement"]["difference"]
                what = f"{row['name']}: mAP50-95 difference to YOLO(file).val()"
                found.append(Goal(what, AGREEMENT_GOAL, None if gap is None else abs(gap)))
    found.append(Goal("wall time of a validation against inference and NMS", OVERHEAD_GOAL, overhead["ratio"]))
    return found
