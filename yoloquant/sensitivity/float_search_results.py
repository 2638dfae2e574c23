"""What a search for the layers that must stay in float measured and found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..evaluation.results import Interval
from ..quantization.artifact import Artifact
from ..summarized import Summarized, plain
from .float_search_options import FloatSearchOptions

PERCENT = 100.0


@dataclass(frozen=True)
class ExportFigures:
    """What the runtime makes of a plan's real export.

    Attributes:
        fidelity: mAP50-95 against the float model's detections; None if it was not asked for.
        map_drop: Loss of mAP50-95 in points; None if it was not asked for.
        ratio: Its time divided by that of the plan without float layers; None if it was not asked for.
        milliseconds: Time of one image of both, by ``integers`` and ``found``; empty if it was not asked for.
    """

    fidelity: float | None
    map_drop: float | None
    ratio: Interval | None = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FloatTrial:
    """A plan that was measured.

    Attributes:
        layers: Layers in float.
        share: Their share of the multiplications.
        fidelity: mAP50-95 against the float model's detections; None if it was not asked for.
        map_drop: Loss of mAP50-95 in points; None if it was not asked for.
        exported: The same of its real export; None if it was simulated alone.
    """

    layers: tuple[str, ...]
    share: float
    fidelity: float | None
    map_drop: float | None
    exported: ExportFigures | None = None

    def __str__(self) -> str:
        scores = ", ".join(scores_of(self))
        return f"{len(self.layers)} layers, {self.share:.1%} of the multiplications: {scores}"


def scores_of(measured: FloatTrial | ExportFigures) -> list[str]:
    """What was measured of accuracy, for people."""
    scores = [] if measured.fidelity is None else [f"fidelity {measured.fidelity:.4f}"]
    return scores + ([] if measured.map_drop is None else [f"mAP drop {measured.map_drop:.2f} points"])


def budgets_of(options: FloatSearchOptions) -> list[str]:
    """What is asked for, for people."""
    asked = [] if options.fidelity is None else [f"fidelity {options.fidelity:g}"]
    asked += [] if options.map_drop is None else [f"mAP drop {options.map_drop:g} points"]
    return asked + ([] if options.slower is None else [f"{1 + options.slower / PERCENT:g} of the time"])


@dataclass(frozen=True, repr=False)
class FloatSearch(Summarized):
    """What a search found.

    Attributes:
        scheme: The scheme.
        whole: The plan with no layer in float.
        best: The smallest plan that meets the budget, or the best one where none does.
        met: Whether it meets the budget.
        gains: How much nearer each layer in float brings the raw outputs to the float model's, best first.
        trials: Every plan that was measured, in order.
        options: What was asked for.
        threads: Threads of the real exports.
        simulated: Why nothing was exported, where the scheme's runtime is not here; else empty.
        artifact: The model with the plan that was found.
    """

    scheme: str
    whole: FloatTrial
    best: FloatTrial
    met: bool
    gains: tuple[tuple[str, float], ...]
    trials: tuple[FloatTrial, ...]
    options: FloatSearchOptions
    threads: int
    simulated: str
    artifact: Artifact = field(compare=False)

    def summary(self) -> str:
        """Before and after, which layers, and what the real export does."""
        lines = [f"plan '{self.scheme}', all layers in integers: {self.whole}"]
        if self.best.layers:
            lines.append(f"{'found' if self.met else 'not enough, the best found'}: {self.best}")
            lines += [f"  {layer}" for layer in self.best.layers]
        else:
            lines.append("no layer has to stay in float" if self.met else "no layer in float helps")
        lines.append(self._exported())
        return "\n".join(lines)

    def _exported(self) -> str:
        """What the real export does, beside what is asked for."""
        figures = self.best.exported
        if figures is None:
            return f"not exported: {self.simulated}; these figures are of the simulated plan"
        found = scores_of(figures)
        if figures.ratio is not None:
            took = figures.ratio
            found.append(
                f"{took.value:.3f} [{took.low:.3f}, {took.high:.3f}] of the time of the plan without float layers"
            )
        asked = ", ".join(budgets_of(self.options))
        text = f"its {self.scheme} export, on the same images, threads={self.threads}: {', '.join(found)}"
        return f"{text}; asked for: {asked}" + ("" if self.met else "; no set of layers was found that meets it all")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the model."""
        found: dict[str, Any] = plain(replace(self, artifact=None))  # type: ignore[arg-type]
        return {key: value for key, value in found.items() if key != "artifact"}
