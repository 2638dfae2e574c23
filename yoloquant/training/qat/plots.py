"""Plots of a run in its folder, drawn by matplotlib without pyplot or global state."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph.traced_model import TracedModel
from ...io import write_text
from ...quantization.artifact import Artifact
from ...quantization.plan import PointKind
from ...quantization.sqnr import Stage
from ..figures import (
    BLUE,
    FONT,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RED,
    SIZE,
    SKY,
    decorate,
    new_figure,
    save_figure,
    short_name,
    text_style,
)
from .history import History
from .plot_data import (
    Curve,
    Noise,
    Trajectory,
    WeightChange,
    measure_noise,
    most_moved,
    score_curves,
    trajectories,
    weight_changes,
    worst_points,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .trainer import QATTrainer

# named ranges, one for each style; points in a panel; grid points up to which single ones can be drawn (five bits)
_NAMED, _ROWS, _FEW_POINTS = 6, 40, 33
_STYLES = tuple(zip((BLUE, RED, GREEN, PURPLE, ORANGE, SKY), "osD^vP", strict=True))


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        history: Its scores and ranges.
        before: Float weights and calibrated plan that it started from.
        after: Weights and plan of the best checkpoint.
        chosen: Epoch that this checkpoint is of; 0 for the calibrated start.
        held_back: Image files that it was scored on.
    """

    history: History
    before: Stage
    after: Stage
    chosen: int
    held_back: tuple[Path, ...]


def run_of(trainer: QATTrainer, artifact: Artifact) -> Run:
    """What to draw of a trainer at its end, whose best checkpoint is given."""
    start = trainer.artifact
    graph = start.graph
    if trainer.resumed_from is not None:  # a resumed run was set up with half-trained weights
        module = copy.deepcopy(trainer.float_model)
        graph = TracedModel(replace(start.model, module=module), start.info).graph
    dataset = trainer.test_loader.dataset
    files = getattr(dataset, "im_files", None) or [sample[0] for sample in getattr(dataset, "samples", ())]
    return Run(
        trainer.history,
        Stage(graph, trainer.plan),
        Stage(artifact.graph, artifact.plans[trainer.plan.scheme]),
        int(artifact.provenance["qat"]["epoch"]),
        tuple(Path(str(file)) for file in files),
    )


def write_plots(run: Run, folder: Path) -> list[Path]:
    """Write ``qat_scores.png``, ``qat_ranges.png``, ``qat_sqnr.png``, ``qat_weights.png`` and ``qat_sqnr.json``.

    Args:
        run: What to draw.
        folder: The run folder; every file appears there complete or not at all.

    Returns:
        The files.

    Raises:
        OutputError: The folder cannot be written.
    """
    noise = measure_noise(run.before, run.after, run.held_back)
    figures = {
        "qat_scores.png": draw_scores(score_curves(run.history), run.chosen),
        "qat_ranges.png": draw_ranges(
            trajectories(run.history, run.before.plan, PointKind.WEIGHT),
            trajectories(run.history, run.before.plan, PointKind.ACTIVATION),
        ),
        "qat_sqnr.png": draw_noise(noise),
        "qat_weights.png": draw_weights(weight_changes(run.before, run.after, noise)),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    write_text(folder / "qat_sqnr.json", json.dumps(asdict(noise), indent=1))
    return [*(folder / name for name in figures), folder / "qat_sqnr.json"]


def draw_scores(curves: tuple[Curve, Curve, Curve], chosen: int) -> Figure:
    """Scores over epochs, with the calibrated start and the chosen epoch."""
    quantized, plain, fidelity = curves
    measured = [c for c in (quantized, fidelity) if not all(map(math.isnan, c.values))]
    figure = new_figure(8.0, 1.0 + 2.9 * len(measured))
    panels = figure.subplots(len(measured), 1, sharex=True, squeeze=False)[:, 0]
    for axes, curve in zip(panels, measured, strict=True):
        if curve is quantized and not all(map(math.isnan, plain.values)):
            _curve(axes, plain, color=GREEN, marker="s", ls="--", label="same weights in float")
            axes.axhline(plain.values[0], color=GREEN, lw=1, ls=":", label=f"float start, {plain.values[0]:.4f}")
        _curve(axes, curve, color=BLUE, marker="o", label="quantized")
        axes.axhline(curve.values[0], color=RED, lw=1.2, ls="-.", label=f"calibrated start, {curve.values[0]:.4f}")
        if chosen in curve.epochs:
            best = curve.values[curve.epochs.index(chosen)]
            label = f"chosen: {_epoch(chosen)}, {best:.4f}"
            axes.plot(chosen, best, "o", ms=14, mfc="none", mec=INK, mew=1.6, ls="none", label=label)
        decorate(axes, y=curve.name)
        axes.margins(y=0.15)
        _legend_beside(axes)
    panels[0].set_title("Scores on the held-back images", **text_style(SIZE + 2))
    _epochs(panels[-1], quantized.epochs)
    return figure


def draw_ranges(weights: Sequence[Trajectory], activations: Sequence[Trajectory]) -> Figure:
    """Ranges over epochs, relative to the calibrated ones; those that moved most are named."""
    figure = new_figure(10.0, 7.0)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, found, what in zip(panels, (weights, activations), ("weight", "activation"), strict=True):
        named = most_moved(found, _NAMED)
        for one in found:
            axes.plot(one.epochs, one.values, color="#aaaaaa", lw=0.6, alpha=0.7)
        # the legend from top to bottom as the curves end
        for one, (colour, marker) in sorted(zip(named, _STYLES, strict=False), key=lambda pair: -pair[0].values[-1]):
            shared = f" and {one.shared} tied" if one.shared else ""
            label = f"{short_name(one.name)}{shared}, {100 * (2 ** one.values[-1] - 1):+.2f} %"
            axes.plot(one.epochs, one.values, color=colour, marker=marker, ms=4, lw=1.6, label=label)
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_title(f"{len(found)} {what} ranges", loc="left", **text_style(SIZE + 1))
        decorate(axes, y="log2(scale / calibrated scale)")
        if named:
            _legend_beside(axes, title="moved most up and down, change of the scale")
        else:
            _say(axes, "none moved")
    _epochs(panels[-1], found[0].epochs if found else (0,))
    return figure


def draw_noise(noise: Noise) -> Figure:
    """SQNR before and after, the worst points of each kind."""
    parts = [
        ("weight", noise.weights, "noise: rounding and clipping of the weight, BatchNorm folded in"),
        ("activation", noise.activations, f"noise: distance from the float start on {noise.images} held-back images"),
    ]
    rows = [worst_points(values, _ROWS) for _, values, _ in parts]
    figure = new_figure(13.0, 1.6 + 0.2 * max(5, *map(len, rows)))
    for axes, (what, values, noise_is), chosen in zip(figure.subplots(1, 2), parts, rows, strict=True):
        for y, (_, before, after) in enumerate(chosen):
            axes.plot([before, after], [y, y], color=MUTED, lw=1.4, zorder=1)
        y_all = range(len(chosen))
        axes.plot([r[1] for r in chosen], y_all, "o", color=ORANGE, mec=INK, mew=0.5, ms=6, label="calibrated start")
        axes.plot([r[2] for r in chosen], y_all, "D", color=BLUE, ms=4.5, label="best checkpoint")
        if not chosen:
            axes.set_axis_off()
            _say(axes, f"{what}s: not measured")
            continue
        count = f"worst {len(chosen)} of {len(values)}" if len(chosen) < len(values) else f"all {len(values)}"
        gain = float(np.median([after - before for before, after in values.values()]))
        title = f"{what.capitalize()}s: {count} (median change of all: {gain:+.2f} dB)\n{noise_is}"
        axes.set_title(title, loc="left", **text_style(SIZE))
        decorate(axes, x="SQNR in dB (right is better)")
        # upside down: the worst point on top
        axes.set_ylim(len(chosen) - 0.4, -0.6)
        axes.set_yticks(list(y_all), [short_name(r[0]) for r in chosen], **text_style(SIZE - 1.5))
        axes.legend(loc="lower left", **_legend())
    return figure


def draw_weights(changes: Sequence[WeightChange]) -> Figure:
    """Histograms of weights before and after, over their grid."""
    columns = 2
    lines = max(1, math.ceil(len(changes) / columns))
    figure = new_figure(12.0, 1.0 + 2.6 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, one in zip(panels, changes, strict=False):
        _histogram(axes, one)
    for axes in panels[len(changes) :]:
        axes.set_axis_off()
    if changes:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, **_legend())
    return figure


def _histogram(axes: Axes, one: WeightChange) -> None:
    spec = one.spec
    trained = one.scale_ratio
    span = max(1.02 * spec.qmax, *(float(np.abs(v).max()) for v in (one.before, one.after)))
    few = spec.qmax - spec.qmin < _FEW_POINTS
    width = 1 / 8 if few else 1 if len(one.before) > 4000 else 4  # in steps; small layers would be all gaps
    reach = width * (math.ceil(span / width) + 0.5)
    edges = np.arange(-reach, reach + width / 2, width)
    for values, colour, filled in ((one.before, ORANGE, True), (one.after, BLUE, False)):
        share = np.histogram(values, edges)[0] / max(len(values), 1)
        label = "calibrated start" if filled else "best checkpoint"
        axes.stairs(share, edges, fill=filled, color=colour, alpha=0.55 if filled else 1, lw=1, label=label)
    if few:
        for level in range(spec.qmin, spec.qmax + 1):
            axes.axvline(level * trained, color="#aaaaaa", lw=0.8, zorder=0)
    for factor, colour, style, label in ((1.0, RED, "--", "calibrated clip"), (trained, BLUE, ":", "trained clip")):
        axes.axvline(spec.qmin * factor, color=colour, lw=1.3, ls=style, label=label)
        axes.axvline(spec.qmax * factor, color=colour, lw=1.3, ls=style)
    # most weights lie near zero, and the few at the ends of the range must be seen too
    axes.set_yscale("log")
    before, after = one.sqnr
    axes.set_title(
        f"{short_name(one.name)}\nSQNR {before:.1f} → {after:.1f} dB, weights moved {100 * one.moved:.2g} %, "
        f"{100 * one.changed:.2g} % to another integer, scale {100 * (trained - 1):+.2f} %",
        **text_style(SIZE),
    )
    grid = f"{spec.qmax - spec.qmin + 1} grid points"
    decorate(axes, x=f"weight in calibrated steps ({grid}{', trained: grey' if few else ''})", y="share of weights")
    axes.grid(not few, axis="x")


def _curve(axes: Axes, curve: Curve, **style: Any) -> None:
    axes.plot(curve.epochs, curve.values, ms=4.5, lw=1.6, **style)


def _legend() -> dict[str, Any]:
    return {"prop": {"family": FONT, "size": SIZE - 1}, "frameon": False, "labelcolor": INK}


def _legend_beside(axes: Axes, title: str = "") -> None:
    beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0, "alignment": "left"}
    found = axes.legend(**beside, **_legend(), title=title, title_fontproperties={"family": FONT, "size": SIZE - 1})
    found.get_title().set_color(MUTED)


def _epochs(axes: Axes, epochs: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    axes.set_xlim(min(epochs) - 0.25, max(epochs) + 0.25)
    axes.set_xlabel("epochs done (0: calibrated, before training)", **text_style())


def _epoch(number: int) -> str:
    return f"epoch {number}" if number else "before training"


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.6, text, transform=axes.transAxes, ha="center", va="center", **text_style(SIZE + 1, MUTED))
