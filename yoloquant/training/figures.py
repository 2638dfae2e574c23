"""How pictures of a run look: colours, fonts and axes, by matplotlib without pyplot or global state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people of every colour vision tell apart (https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN, PURPLE, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
INK, MUTED, _GRID = "#222222", "#666666", "#dddddd"
FONT, SIZE, _DPI = "DejaVu Sans", 9.0, 130  # the font ships with matplotlib; size in pt


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of some inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all.

    Raises:
        OutputError: The place cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def text_style(size: float = SIZE, colour: str = INK) -> dict[str, Any]:
    """Text properties that do not depend on the user's matplotlib settings, and never parse TeX."""
    return {"family": FONT, "size": size, "color": colour, "parse_math": False, "usetex": False}


def decorate(axes: Axes, *, x: str = "", y: str = "") -> None:
    """Grid, frame and the axes' names."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(color=_GRID, lw=0.6)
    axes.set_xlabel(x, **text_style())
    axes.set_ylabel(y, **text_style())
    axes.tick_params(which="both", colors=MUTED, labelcolor=INK, labelsize=SIZE - 1, labelfontfamily=FONT)
    for name, spine in axes.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(MUTED)


def short_name(name: str, limit: int = 36) -> str:
    """A point's name without what every name has, cut in its middle where it is long."""
    text = name.removeprefix("model.").removesuffix(":weight")
    text = text if len(text) <= limit else f"{text[: limit // 2 - 1]}…{text[-limit // 2 :]}"
    # the font has no glyph for every script, and matplotlib warns about each one that it lacks
    return "".join(c if c.isprintable() and (ord(c) < 0x250 or c == "…") else "?" for c in text)
