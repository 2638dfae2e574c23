"""One self-contained page about releases: a line for each artifact, no script, no external request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .numbers import DASH
from .text import clean

TEMPLATE = "history.html.j2"
WIDTH, HEIGHT, LEFT, BOTTOM = 560.0, 200.0, 62.0, 26.0
PAD = 10.0
COLOURS = 6  # classes of the style; further lines repeat them with another dash


@dataclass(frozen=True)
class Line:
    """One artifact's figures over releases.

    Attributes:
        name: The artifact.
        style: Number of its colour.
        runs: Neighbouring releases with a figure, each as a text of points for a polyline.
        dots: x, y and what a reader of the dot is told.
    """

    name: str
    style: int
    runs: tuple[str, ...]
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Chart:
    """One figure over releases.

    Attributes:
        title: What it is.
        lines: One for each artifact that has it.
        ticks: y and text of each mark.
    """

    title: str
    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]


FIGURES = (
    ("fidelity", "Fidelity to the baseline", 1.0, ".4f"),
    ("map50_95", "mAP50-95 in points", 100.0, ".2f"),
    ("latency_ms", "Median latency in ms", 1.0, ".2f"),
    ("size_bytes", "Size in MB", 1e-6, ".2f"),
)
"""Key, title, factor and format of what is plotted."""


def to_html(releases: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The page.

    Args:
        releases: Names in order.
        rows: A ``HistoryPoint`` each, as plain data.
    """
    # where it is used, as every heavy package
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("yoloquant.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # in the order of their first release: an artifact keeps its colour when others come later
    names = list(dict.fromkeys(row["target"] for row in rows))
    found = [_chart(key, title, factor, form, releases, rows, names) for key, title, factor, form in FIGURES]
    text = environment.get_template(TEMPLATE).render(
        releases=releases,
        rows=rows,
        names=[(name, i % COLOURS) for i, name in enumerate(names)],
        # without labels there is no mAP, and on some machines no latency
        charts=[chart for chart in found if chart.lines],
        marks=[(_x(i, len(releases)), name) for i, name in enumerate(releases)],
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        bottom=BOTTOM,
        changed=_changed(releases, rows),
        shown=lambda value, form, factor=1.0: DASH if value is None else format(value * factor, form),
    )
    return clean(text)


def _chart(
    key: str,
    title: str,
    factor: float,
    form: str,
    releases: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
) -> Chart:
    known = {(r["release"], r["target"]): r[key] * factor for r in rows if r[key] is not None}
    if not known:
        return Chart(title, (), ())
    low, high = min(known.values()), max(known.values())
    # also where all values are one, or the line would lie on the frame
    room = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - room, high + room

    def place(value: float) -> float:
        return float(round(PAD + (HEIGHT - PAD) * (high - value) / (high - low), 1))

    lines = []
    for style, name in enumerate(names):
        runs: list[list[str]] = [[]]
        dots = []
        for index, release in enumerate(releases):
            value = known.get((release, name))
            if value is None:
                # a gap: a line across a release without a figure would claim one
                runs.append([])
                continue
            x, y = _x(index, len(releases)), place(value)
            runs[-1].append(f"{x},{y}")
            dots.append((x, y, f"{name}, {release}: {format(value, form)}"))
        if dots:
            lines.append(Line(name, style % COLOURS, tuple(" ".join(r) for r in runs if len(r) > 1), tuple(dots)))
    # least, middle and most of what was measured
    steps = [low + room + (high - low - 2 * room) * k / 2 for k in range(3)]
    return Chart(title, tuple(lines), tuple((place(s), format(s, form)) for s in dict.fromkeys(steps)))


def _x(index: int, count: int) -> float:
    return round(LEFT + (WIDTH - LEFT - 2 * PAD) * (index + 0.5) / count, 1)


def _changed(releases: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Releases that were judged on other images or labels than the one before."""
    data = {row["release"]: row["data"] for row in rows}
    return [b for a, b in pairwise(releases) if data[a] != data[b]]
