"""One self-contained HTML page for people: no script, no external request, light, dark, phone and print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..evaluation.results import ValidationResult
from ..types import Verdict
from . import numbers
from . import sentences as verdicts
from .bar_charts import class_bars, fidelity_bars, shift_bars, size_bars, size_drop_bars
from .examples import CONFIDENCE, IMAGES, photos
from .plots import drop_plot, scatter_plot
from .text import clean
from .worst_classes import drop_title

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = "report.html.j2"


def to_html(result: ValidationResult) -> str:
    """The report as one HTML page.

    Args:
        result: Outcome of a validation. Its example images are read from disk; one that is absent leaves a note.

    Returns:
        An HTML document as text, with style, plots and images inline.
    """
    from markupsafe import Markup

    page = _environment().get_template(TEMPLATE)
    # before rendering: how many were left out is part of the page
    shown = photos(result)
    total = len({example.image for example in result.examples})
    text = page.render(
        result=result,
        Verdict=Verdict,
        # matplotlib's output: names are drawn as glyph outlines, its comments are removed
        drop_plot=Markup(drop_plot(result)),
        scatter_plot=Markup(scatter_plot(result)),
        size_bars=size_bars(result),
        shift_bars=shift_bars(result),
        photos=shown,
        photos_left=total - len(shown),
        photo_limit=IMAGES,
        confidence=CONFIDENCE,
        operating=verdicts.operating_rows(result),
        environment=_rows(result.environment),
        match=result.environment.get("match", ""),
    )
    # last: characters that no browser can show may come from anywhere
    return clean(verdicts.about_baseline(text, result))


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    env = Environment(
        loader=PackageLoader("yoloquant.report", "templates"),
        # names of classes, files and errors come from users, and are no HTML
        autoescape=True,
        # a typo in the template is an error of the tests instead of an empty cell in a report
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        points=numbers.points,
        points_interval=numbers.points_interval,
        fraction_interval=numbers.fraction_interval,
        fixed=numbers.fixed,
        level=numbers.level,
        mb=numbers.megabytes,
        ms=numbers.milliseconds,
        ratio=numbers.ratio,
        duration=numbers.duration,
        symbol=verdicts.SYMBOLS.__getitem__,
        class_bars=class_bars,
        size_drop_bars=size_drop_bars,
        fidelity_bars=fidelity_bars,
        drop_title=drop_title,
        headline=verdicts.headline,
        baseline_name=verdicts.baseline_name,
        latency_text=verdicts.latency_text,
        measured=lambda check: verdicts.check_value(check.metric, check.value),
        check_interval=verdicts.check_interval,
        check_limit=verdicts.check_limit,
    )
    return env


def _rows(environment: dict[str, Any]) -> list[tuple[str, str]]:
    """The environment as flat rows of text; a nested mapping is flattened by one level."""
    rows: list[tuple[str, str]] = []
    for key, value in environment.items():
        if isinstance(value, dict):
            # one level: what lies deeper is shown as JSON
            rows += [(f"{key} · {inner}", _cell(item)) for inner, item in value.items()]
        else:
            rows.append((str(key), _cell(value)))
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return numbers.DASH if value is None else str(value)
