"""Markdown fit for a pull-request comment: the verdict, one table, and what needs attention.

Kept well below GitHub's limit of 65,536 characters per comment; what is cut is in ``report.json``.
"""

from __future__ import annotations

from html import escape

from ..evaluation.results import Interval, TargetResult, ValidationResult
from ..types import Verdict
from .numbers import DASH, fixed, level, megabytes, points, points_interval, ratio
from .sentences import EMOJI, about_baseline, baseline_name, check_sentence, headline, latency_text, operating_rows
from .text import clean, markdown, shorten
from .worst_classes import drop_title, worst_classes

CLASSES = 20
# characters of a message: a stack trace in a comment hides the verdict
_MESSAGE = 600
_HEAD = ("Target", "Verdict", "mAP50-95", "Drop", "Fidelity", "Latency", "Size")


def to_markdown(result: ValidationResult) -> str:
    """The summary of a validation as GitHub-flavoured Markdown.

    Args:
        result: Outcome of a validation.

    Returns:
        Markdown text; names and messages from outside are escaped.
    """
    rows = [_baseline_row(result.baseline), *(_row(target) for target in result.targets)]
    table = [_line(_HEAD), _line(("---", "---", "---:", "---:", "---:", "---:", "---:")), *map(_line, rows)]
    blocks = [
        f"### {EMOJI[result.verdict]} yoloquant: {result.verdict.value.upper()}",
        markdown(headline(result)),
        f"Baseline: {markdown(baseline_name(result))}",
        "\n".join(table),
        _caption(result),
        _operating(result),
        _attention(result),
        *(_classes(target) for target in result.targets),
    ]
    # once over the whole text instead of at every place that says FP32
    return about_baseline("\n\n".join(block for block in blocks if block) + "\n", result)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _baseline_row(target: TargetResult) -> tuple[str, ...]:
    accuracy = target.accuracy
    return (
        markdown(target.target),
        "baseline",
        points(accuracy.map50_95 if accuracy else None),
        DASH,
        DASH,
        latency_text(target),
        megabytes(target.size_bytes),
    )


def _row(target: TargetResult) -> tuple[str, ...]:
    comparison, accuracy = target.comparison, target.accuracy
    return (
        f"**{markdown(target.target)}**",
        f"{EMOJI[target.verdict]} {target.verdict.value}",
        points(accuracy.map50_95 if accuracy else None),
        _drop(comparison.map_drop if comparison else None),
        fixed(comparison.fidelity.value if comparison else None, 3),
        _with_ratio(latency_text(target), comparison.latency_ratio if comparison else None),
        _with_ratio(megabytes(target.size_bytes), comparison.size_ratio if comparison else None),
    )


def _drop(interval: Interval | None) -> str:
    ends = points_interval(interval)
    value = points(interval.value if interval else None, signed=True)
    return f"{value} ({ends})" if ends else value


def _with_ratio(text: str, factor: float | None) -> str:
    shown = ratio(factor)
    return text if shown == DASH else f"{text} ({shown})"


def _caption(result: ValidationResult) -> str:
    drop = next((t.comparison.map_drop for t in result.targets if t.comparison and t.comparison.map_drop), None)
    parts = ["mAP50-95 and its drop in points, positive is worse"]
    if drop is not None:
        parts.append(f"in brackets the {level(drop)} interval")
    parts.append("fidelity 1 is identical to FP32")
    parts.append("× is the ratio to FP32 (latency: in the same runtime)")  # noqa: RUF001
    return f"<sub>{'; '.join(parts)}.</sub>"


def _operating(result: ValidationResult) -> str:
    """What every model does at the confidence that is deployed."""
    rows = operating_rows(result)
    if not rows:
        return ""
    head = ("Target", "Confidence", "Precision", "Recall", "F1", "False alarms", "Detections")
    lines = ["#### At the deployed confidence", "", _line(head), _line(("---", *["---:"] * 6))]
    for name, point, matched in rows:
        shown = [points(value.value if value else None) for value in (point.precision, point.recall, point.f1)]
        alarms = fixed(point.false_alarms.value if point.false_alarms else None, 2)
        title = f"{markdown(name)} (matched)" if matched else markdown(name)
        lines.append(_line((title, fixed(point.conf, 3), *shown, alarms, fixed(point.detections.value, 2))))
    caption = "<sub>Pooled over classes at IoU 0.5; false alarms and detections per image.</sub>"
    return "\n".join([*lines, "", caption])


def _attention(result: ValidationResult) -> str:
    """Failed and inconclusive checks, errors, and notes, one line each."""
    lines = [f"- note: {markdown(shorten(note, _MESSAGE))}" for note in result.notes]
    for target in result.targets:
        name = markdown(target.target)
        if target.error or target.verdict is Verdict.ERROR:
            reason = markdown(shorten(target.error, _MESSAGE)) or "asked for and not measured"
            lines.append(f"- {EMOJI[Verdict.ERROR]} **{name}** could not be built or run: {reason}")
        for check in target.checks:
            if check.verdict is not Verdict.PASS:
                sentence = markdown(shorten(check_sentence(check), _MESSAGE))
                lines.append(f"- {EMOJI[check.verdict]} **{name}** {markdown(check.name)}: {sentence}")
        # the first five: what has more to say is a reason to open the report
        lines += [f"- **{name}** note: {markdown(shorten(note, _MESSAGE))}" for note in target.notes[:5]]
    return "\n".join(["#### Needs attention", "", *lines]) if lines else ""


def _classes(target: TargetResult) -> str:
    """The classes that lost most, folded away."""
    drops, left = worst_classes(target, CLASSES)
    if not drops:
        return ""
    name = markdown(target.target)
    # folded: eighty classes would push the verdict off the screen
    lines = [f"<details><summary>Per-class drop: {escape(clean(target.target))}</summary>", ""]
    lines += [_line(("Class", drop_title(target), "Fidelity")), _line(("---", "---:", "---:"))]
    fidelity = target.comparison.fidelity_per_class if target.comparison else {}
    lines += [
        _line((markdown(shorten(cls, 80)), points(drop, signed=True), fixed(fidelity.get(cls), 3)))
        for cls, drop in drops
    ]
    if left:
        lines += ["", f"{left} more classes of {name} are in `report.json`."]
    return "\n".join([*lines, "", "</details>"])
