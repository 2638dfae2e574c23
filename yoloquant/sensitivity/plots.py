"""Plots of an analysis: a heat map of drop against ratio, and bars."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..evaluation.sensitivity import Sensitivity
from ..io import output_folder
from ..training.figures import BLUE, INK, MUTED, RED, SIZE, decorate, new_figure, save_figure, short_name, text_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROWS = 80  # parts in one picture, the most sensitive ones


def write_plots(found: Sensitivity, folder: Path) -> list[Path]:
    """Write ``sensitivity_heatmap.png`` (pruning) or ``sensitivity_bars.png`` (quantization).

    Args:
        found: The analysis.
        folder: Where; every file appears there complete or not at all.

    Returns:
        The files.

    Raises:
        OutputError: The folder cannot be written.
    """
    draw, name = (draw_heatmap, "heatmap") if found.kind == "prune" else (draw_bars, "bars")
    path = output_folder(folder) / f"sensitivity_{name}.png"
    save_figure(draw(found), path)
    return [path]


def draw_heatmap(found: Sensitivity) -> Figure:
    """Drop of every pruning group against the share that was pruned, the most sensitive group on top."""
    names = [name for name, _ in found.ranking()][:_ROWS]
    drops = np.array([[_finite(p.drop) for p in found.cells(name)] for name in names])
    figure = new_figure(4.6 + 1.1 * len(found.ratios), 1.8 + 0.2 * len(names))
    axes = figure.subplots()
    # not 0: a model that loses nothing anywhere is drawn pale, not divided by zero
    top = max(float(np.nanmax(np.abs(drops), initial=0.0)), 1e-9)
    # a square root shows the mild end too, where the decision lies
    shades = np.sqrt(np.clip(np.nan_to_num(drops, nan=top), 0, None) / top)
    axes.imshow(shades, aspect="auto", cmap="cividis_r", vmin=0, vmax=1)
    for y, name in enumerate(names):
        for x, (point, ratio) in enumerate(zip(found.cells(name), found.ratios, strict=True)):
            text = "not finite" if point.drop is None else f"{point.drop:.3f}"
            # what was rounded to multiples of channels is said, where it differs visibly
            if point.ratio is not None and abs(point.ratio - ratio) >= 0.005:
                text += f" (-{point.ratio:.0%})"
            # readable on either end of the colour map
            colour = "white" if shades[y, x] > 0.55 else INK
            axes.text(x, y, text, ha="center", va="center", **text_style(SIZE - 2, colour))
    _rows(axes, names)
    axes.set_xticks(range(len(found.ratios)), [f"-{r:.0%}" for r in found.ratios])
    decorate(axes, x="share of the group that is pruned")
    axes.grid(False)
    axes.set_title(_title(found, len(names)), loc="left", **text_style(SIZE))
    return figure


def draw_bars(found: Sensitivity) -> Figure:
    """Drop of every layer or point that was quantized alone, the most sensitive one on top."""
    ranking = found.ranking()[:_ROWS]
    names = [name for name, _ in ranking]
    drops = [_finite(found.parts[name][0].drop) for name in names]
    figure = new_figure(9.0, 1.8 + 0.2 * len(names))
    axes = figure.subplots()
    widths = [0.0 if math.isnan(d) else d for d in drops]
    axes.barh(range(len(names)), widths, color=[RED if w > 0 else BLUE for w in widths], height=0.7)
    for y, drop in enumerate(drops):
        text = " not finite" if math.isnan(drop) else f" {drop:.4g}"
        axes.text(max(widths[y], 0.0), y, text, va="center", **text_style(SIZE - 2, MUTED))
    _rows(axes, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.12)
    decorate(axes, x="drop (red: worse, blue: no worse)")
    axes.set_title(_title(found, len(names)), loc="left", **text_style(SIZE))
    return figure


def _rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [short_name(n, 44) for n in names], **text_style(SIZE - 1.5))


def _title(found: Sensitivity, shown: int) -> str:
    count = len(found.parts)
    which = f"the {shown} most sensitive of {count}" if shown < count else f"all {count}"
    caption = found.caption[0].upper() + found.caption[1:]
    return caption.replace("; baseline", f";\n{which} parts; baseline")


def _finite(value: float | None) -> float:
    return math.nan if value is None else value
