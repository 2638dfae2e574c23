"""What an analysis found: frozen data that is printed, plotted, saved, and tells pruning what to protect."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..io import write_text
from ..summarized import Summarized, data_frame, plain

FORMAT = 1


@dataclass(frozen=True)
class SensitivityMeasurement:
    """One part of the model, changed alone.

    Attributes:
        name: Pruning group, or layer or point of a quantization plan.
        ratio: Share of the group that was pruned; None for quantization.
        asked: Requested ratios that were rounded to this one.
        score: What the metric gave; None if it was no number.
        drop: How much worse than the model with nothing changed; None if that is no number.
        how: ``mask`` or ``cut`` (how channels went), or ``quantize``.
    """

    name: str
    ratio: float | None
    asked: tuple[float, ...]
    score: float | None
    drop: float | None
    how: str

    @property
    def loss(self) -> float:
        """The drop, infinite where it was no number."""
        return math.inf if self.drop is None else self.drop


@dataclass(frozen=True, repr=False)
class Sensitivity(Summarized):
    """Drop of every part.

    Attributes:
        kind: ``prune`` or ``quant``.
        metric: ``distill`` (a distance: more is worse; 1 is that of another image's outputs), ``fidelity`` or ``map``
            (0 to 1: less is worse).
        baseline: Score with nothing changed, BatchNorm statistics taken anew if they were for the others.
        points: Everything that was measured, in the order of the model's execution.
        settings: Model, data and options that it belongs to.
    """

    kind: str
    metric: str
    baseline: float
    points: tuple[SensitivityMeasurement, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def parts(self) -> dict[str, tuple[SensitivityMeasurement, ...]]:
        """Measurements by part, milder ratios first."""
        measurements: dict[str, list[SensitivityMeasurement]] = {}
        for point in self.points:
            measurements.setdefault(point.name, []).append(point)
        return {name: tuple(sorted(p, key=lambda m: m.ratio or 0.0)) for name, p in measurements.items()}

    @property
    def ratios(self) -> tuple[float, ...]:
        """Every requested ratio; empty for quantization."""
        return tuple(sorted({r for p in self.points for r in p.asked}))

    def ranking(self) -> tuple[tuple[str, float], ...]:
        """Parts with their mean drop over the requested ratios, the most sensitive first."""
        means = {name: self._mean(found) for name, found in self.parts.items()}
        # By name among equals, so that every run has one order.
        return tuple(sorted(means.items(), key=lambda pair: (-pair[1], pair[0])))

    @staticmethod
    def _mean(found: tuple[SensitivityMeasurement, ...]) -> float:
        # Once for every requested ratio: what two were rounded to counts twice, or groups would not compare.
        drops = [p.loss for p in found for _ in (p.asked or (0.0,))]
        return sum(drops) / len(drops)

    def protected(self, limit: float) -> dict[str, float]:
        """Largest share of every group that may be pruned alone without losing more than a limit.

        Between two measured ratios nothing is assumed: a group gets the largest measured ratio up to which every drop
        stays within the limit, and 0 if even the smallest measured one exceeds it.

        Args:
            limit: Largest drop, in the metric's own unit.

        Returns:
            Shares by group, for ``pruning.criteria.Limits.protected``.

        Raises:
            UsageError: The limit is negative or no number, or this is an analysis of quantization.
        """
        if self.kind != "prune":
            raise UsageError("this is an analysis of quantization; protecting pruning groups needs kind=prune")
        _check_limit(limit)
        return {name: self._share(found, limit) for name, found in self.parts.items()}

    @staticmethod
    def _share(found: tuple[SensitivityMeasurement, ...], limit: float) -> float:
        share = 0.0
        for point in found:
            if point.loss > limit:
                break
            share = point.ratio or 0.0
        return share

    # -- files

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        points = [asdict(p) for p in self.points]
        return {
            "format": FORMAT,
            "kind": self.kind,
            "metric": self.metric,
            "baseline": self.baseline,
            "settings": dict(self.settings),
            "points": points,
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON.

        Raises:
            OutputError: The file cannot be written.
        """
        path = Path(path)
        # A line for each point, which people and diffs can read; the JSON stays the same.
        text = json.dumps(self.to_dict(), allow_nan=False).replace('{"name"', '\n  {"name"')
        write_text(path, text)
        return path

    @classmethod
    def from_dict(cls, data: Any) -> Sensitivity:
        """Read plain data.

        Raises:
            UsageError: It is no such analysis.
        """
        try:
            if data["format"] != FORMAT:
                raise UsageError(f"the analysis has format {data['format']}; this release reads {FORMAT}")
            points = tuple(_measured(p) for p in data["points"])
            baseline, settings = float(data["baseline"]), dict(data["settings"])
            kind, metric = str(data["kind"]), str(data["metric"])
            if kind not in {"prune", "quant"} or not math.isfinite(baseline):
                raise ValueError(f"kind {kind}, baseline {baseline}")
            if kind == "prune" and any(p.ratio is None for p in points):
                raise ValueError("a pruned group without its ratio")
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise UsageError(f"this is no sensitivity analysis ({exc!r}); make one with yoloquant analyze") from exc
        return cls(kind, metric, baseline, points, settings)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sensitivity:
        """Read a saved analysis.

        Raises:
            UsageError: The file is missing, damaged, or no analysis.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as exc:
            raise UsageError(f"the analysis '{path}' cannot be read ({exc}); make one with yoloquant analyze") from exc
        return cls.from_dict(data)

    # -- people

    def summary(self) -> str:
        """The most sensitive parts."""
        return "\n".join(self.table(most=8))

    def to_df(self) -> Any:
        """Every measurement as a ``pandas.DataFrame``, one row each.

        Raises:
            UsageError: pandas is not installed.
        """
        return data_frame([plain(point) for point in self.points])

    def table(self, most: int | None = None) -> list[str]:
        """Lines for people, the most sensitive parts first.

        Args:
            most: Show only so many parts; all by default.
        """
        ratios = self.ratios
        head = ("group" if self.kind == "prune" else "layer or point", *(f"-{r:.0%}" for r in ratios or ()))
        rows = [head if ratios else (*head, "drop")]
        ranking = self.ranking()
        rows += [(name, *self._cells(name)) for name, _ in ranking[:most]]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        left = len(ranking) - len(rows) + 1
        return [self.caption, *lines, *([f"... and {left} that are less sensitive"] if left > 0 else [])]

    @property
    def caption(self) -> str:
        """What the numbers are."""
        what = {
            "distill": "distance of raw outputs to the float model's, less the baseline (1: as far as another image's)",
            "fidelity": "drop of fidelity",
            "map": "drop of mAP50-95",
        }.get(self.metric, self.metric)
        return f"{what}; baseline {self.baseline:.4f}; one part changed at a time, larger is worse"

    def cells(self, name: str) -> tuple[SensitivityMeasurement, ...]:
        """One measurement of a part for every requested ratio, or its only one."""
        found = self.parts[name]
        if not self.ratios:
            return found[:1]
        # What was measured for this ratio; the nearest one where it was not measured.
        return tuple(min(found, key=lambda p: (r not in p.asked, abs((p.ratio or 0.0) - r))) for r in self.ratios)

    def _cells(self, name: str) -> list[str]:
        cells = zip(self.cells(name), self.ratios or (None,), strict=True)
        return ["not finite" if p.drop is None else f"{p.drop:.4f}{_rounded(p, r)}" for p, r in cells]


def _rounded(point: SensitivityMeasurement, asked: float | None) -> str:
    """The ratio that was really measured, where it is another than the column's."""
    if asked is None or point.ratio is None or abs(point.ratio - asked) < 0.005:
        return ""
    return f" (-{point.ratio:.0%})"


def _measured(data: Mapping[str, Any]) -> SensitivityMeasurement:
    numbers = {k: None if data[k] is None else float(data[k]) for k in ("ratio", "score", "drop")}
    if not all(v is None or math.isfinite(v) for v in numbers.values()):
        raise ValueError(f"a number of '{data['name']}' is not finite")
    asked = tuple(float(r) for r in data["asked"])
    return SensitivityMeasurement(
        str(data["name"]), numbers["ratio"], asked, numbers["score"], numbers["drop"], str(data["how"])
    )


def _check_limit(limit: float) -> None:
    # Turned around, so that NaN is refused, too.
    if not limit >= 0:
        raise UsageError(f"limit={limit} is not supported; it is the largest drop, 0 or more, in the metric's own unit")
