"""Plots as inline SVG that follows the page's colours, drawn by matplotlib without pyplot or global state."""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING, Any

from ..evaluation.results import Interval, TargetResult, ValidationResult
from ..types import Verdict
from .numbers import is_number
from .sentences import fidelity_limit, map_drop_limit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that matplotlib draws with and that become the page's CSS variables, so that dark mode reaches the plots.
_INK, _MUTED, _GRID = "#010203", "#020304", "#030405"
_COLOURS = {Verdict.PASS: "#040506", Verdict.FAIL: "#050607", Verdict.INCONCLUSIVE: "#060708", Verdict.ERROR: "#070809"}
_MARKERS = {Verdict.PASS: "o", Verdict.FAIL: "X", Verdict.INCONCLUSIVE: "D", Verdict.ERROR: "v"}
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "line", **{c: v.value for v, c in _COLOURS.items()}}
_FONT, _SIZE, _WIDTH = "DejaVu Sans", 9.5, 4.9  # ships with matplotlib; size in pt, width in inches
# a minus that people typed as a typographic one in a target's name
_TABLE = {ord("\u2212"): "-"}


def drop_plot(result: ValidationResult) -> str:
    """Drop of mAP50-95 (without labels: fidelity) with its interval and the gate's limit, one row per target.

    Args:
        result: Outcome of a validation.

    Returns:
        An ``<svg>`` element, or an empty string if nothing was measured.
    """
    labelled = result.labels > 0
    rows = [(t, interval) for t in result.targets if (interval := _measurement(t, labelled)) is not None]
    if not rows:
        return ""
    figure = _figure(max(2.6, 0.95 + 0.42 * len(rows)))
    axes = figure.add_subplot()
    factor = 100 if labelled else 1
    for y, (target, interval) in enumerate(rows):
        colour = _COLOURS[target.verdict]
        axes.plot([factor * interval.low, factor * interval.high], [y, y], color=colour, linewidth=2)
        axes.plot(factor * interval.value, y, _MARKERS[target.verdict], color=colour, markersize=8)
        limit = map_drop_limit(target) if labelled else fidelity_limit(target)
        if limit is not None:
            axes.plot([factor * limit] * 2, [y - 0.42, y + 0.42], color=_COLOURS[Verdict.FAIL], linewidth=1.6, ls="--")
    if labelled:
        axes.axvline(0, color=_MUTED, linewidth=1)
    # upside down: the first target on top, as in the table
    axes.set_ylim(len(rows) - 0.4, -0.6)
    _label_rows(axes, [target.target for target, _ in rows])
    _title(axes, x="mAP50-95 drop in points (right is worse)" if labelled else "fidelity (right is better)")
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    return _svg(figure, "drop")


def scatter_plot(result: ValidationResult) -> str:
    """Latency against mAP50-95 (without labels: fidelity), with the FP32 baseline.

    Args:
        result: Outcome of a validation.

    Returns:
        An ``<svg>`` element, or an empty string if no target has both.
    """
    labelled = result.labels > 0
    spots = [(t, _height(t, labelled)) for t in result.targets]
    known = [
        (t, t.latency.median_ms, y) for t, y in spots if t.latency and is_number(t.latency.median_ms) and is_number(y)
    ]
    if not known:
        return ""
    base, base_y = result.baseline, _height(result.baseline, labelled)
    figure = _figure(3.0)
    axes = figure.add_subplot()
    labels: list[tuple[float, float, str]] = []
    if is_number(base_y):
        axes.axhline(base_y, color=_MUTED, linewidth=1, ls=":")
        if base.latency and is_number(base.latency.median_ms):
            axes.plot(base.latency.median_ms, base_y, "s", color=_INK, markersize=7)
            labels.append((base.latency.median_ms, base_y, base.target))
    for target, x, y in known:
        axes.plot(x, y, _MARKERS[target.verdict], color=_COLOURS[target.verdict], markersize=8)
        labels.append((x, y, target.target))
    # room for names beside the spots
    axes.margins(x=0.22, y=0.22)
    # no time is negative
    axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))
    axes.grid(color=_GRID, linewidth=0.8)
    _title(axes, x="median latency in ms (left is better)", y="mAP50-95 in points" if labelled else "fidelity")
    _place(axes, labels)
    return _svg(figure, "scatter")


def _measurement(target: TargetResult, labelled: bool) -> Interval | None:
    comparison = target.comparison
    if comparison is None:
        return None
    interval = comparison.map_drop if labelled else comparison.fidelity
    return interval if interval and all(map(is_number, (interval.value, interval.low, interval.high))) else None


def _height(target: TargetResult, labelled: bool) -> float | None:
    if labelled:
        return 100 * target.accuracy.map50_95 if target.accuracy else None
    return target.comparison.fidelity.value if target.comparison else None


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    # Figure and not pyplot, which keeps every figure alive and chooses a backend for the whole process
    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _text(size: float = _SIZE, colour: str = _INK) -> dict[str, Any]:
    """Text properties that do not depend on the user's matplotlib settings, and never parse TeX."""
    return {"family": _FONT, "size": size, "color": colour, "parse_math": False, "usetex": False}


def _drawable(name: str) -> str:
    """A name without characters that the font may lack, cut to fit beside the axes."""
    text = "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in name.translate(_TABLE))
    return text if len(text) <= 20 else text[:19] + "…"


def _label_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [_drawable(name) for name in names], **_text())


def _title(axes: Axes, *, x: str, y: str = "") -> None:
    axes.set_xlabel(x, **_text())
    if y:
        axes.set_ylabel(y, **_text())
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=_SIZE - 0.5, labelfontfamily=_FONT, length=0)
    for name in ("left", "bottom", "top", "right"):
        axes.spines[name].set_visible(name == "bottom")
        axes.spines[name].set_color(_MUTED)
    if not y:
        axes.tick_params(axis="y", labelcolor=_INK, labelsize=_SIZE)


def _place(axes: Axes, labels: list[tuple[float, float, str]]) -> None:
    """Put each name beside its spot where it covers no earlier name, no other spot and stays inside the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    figure = axes.figure
    FigureCanvasAgg(figure).draw()  # settles the layout, so that text extents are known
    spots = [axes.transData.transform((x, y)) for x, y, _ in labels]
    # in pixels, about as large as a marker
    taken = [Bbox.from_bounds(sx - 5, sy - 5, 10, 10) for sx, sy in spots]
    offsets = [(9, 0, "left"), (-9, 0, "right"), (0, 11, "center"), (0, -11, "center")]
    offsets += [
        (9, 11, "left"),
        (-9, 11, "right"),
        (9, -11, "left"),
        (-9, -11, "right"),
        (9, 20, "left"),
        (9, -20, "left"),
    ]
    for index, (x, y, name) in enumerate(labels):
        best: tuple[float, tuple[int, int, str]] = (math.inf, offsets[0])
        note = axes.annotate(_drawable(name), (x, y), xytext=(0, 0), textcoords="offset points", va="center", **_text())
        for dx, dy, side in offsets:
            note.set(position=(dx, dy), ha=side)
            box = note.get_window_extent()
            others = taken[:index] + taken[index + 1 :]
            # outside of the axes is worse than over a name: it would be cut off
            cost = sum(map(box.overlaps, others)) + 2 * (not _inside(box, axes.bbox))
            if cost < best[0]:
                best = (cost, (dx, dy, side))
        dx, dy, side = best[1]
        note.set(position=(dx, dy), ha=side)
        taken.append(note.get_window_extent())


def _inside(box: Any, outer: Any) -> bool:
    return bool(box.x0 >= outer.x0 and box.x1 <= outer.x1 and box.y0 >= outer.y0 and box.y1 <= outer.y1)


def _svg(figure: Figure, prefix: str) -> str:
    """The figure as an ``<svg>`` element: deterministic ids unique in the page, colours as CSS variables."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    # without a date: the same result must give the same page
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # matplotlib draws random ids, and those of two plots in one page could meet
    for number, name in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text))):
        text = re.sub(rf'(\bid="|href="#|url\(#){re.escape(name)}(?=["\)])', rf"\g<1>{prefix}-{number}", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(
        r"<g id=\"[\w-]+\">\s*<path d=\"[^\"]+\" style=\"fill: #ffffff\"/>\s*</g>", "", text, count=1
    )  # paper
    # without its own size it fills the page's column, on phones too
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg ", '<svg class="plot" aria-hidden="true" focusable="false" ', 1).strip()
