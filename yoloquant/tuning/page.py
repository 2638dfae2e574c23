"""One self-contained HTML page about a study: no script, no external request."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from ..io import write_text
from .results import TrialRecord, TuneResult

_MOST = 200  # rows of the table; all trials are in trials.csv


def write_page(result: TuneResult, plots: Sequence[Path]) -> Path:
    """Write ``tune.html`` into the study's folder.

    Args:
        result: What was found.
        plots: Pictures to put in.

    Raises:
        OutputError: The folder cannot be written.
    """
    # where it is used: not every install draws pages
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("yoloquant.tuning", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = [o.value for o in result.options.measured]
    text = environment.get_template("tune.html.j2").render(
        result=result,
        names=names,
        shown=_shown(result),
        left=max(len(result.trials) - _MOST, 0),
        values=list(result.chosen.values),
        # inside the page as data: it is mailed and kept without its folder
        pictures=[(p.stem.replace("_", " "), base64.b64encode(p.read_bytes()).decode()) for p in plots],
        recipe=result.recipe.read_text(encoding="utf-8"),
        number=lambda value: "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value),
    )
    path = result.folder / "tune.html"
    write_text(path, text)
    return path


def _shown(result: TuneResult) -> list[TrialRecord]:
    """Trials of the table: those that were measured with everything first, failed ones last."""
    order = {"measured": 0, "stopped": 1, "running": 2, "waiting": 3, "lost": 4, "failed": 5}
    # False sorts first: the second look, with everything, stands above the search
    return sorted(result.trials, key=lambda t: (t.stage == "search", order[t.state], t.number))[:_MOST]
