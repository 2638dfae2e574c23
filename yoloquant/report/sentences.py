"""Verdicts and gate checks in words, shared by all formats for people."""

from __future__ import annotations

from ..evaluation.results import OLD, OLD_RELEASE, GateCheck, OperatingPoint, TargetResult, ValidationResult
from ..types import Verdict
from .numbers import DASH, fixed, fraction_interval, is_number, megabytes, milliseconds, points, points_interval, ratio

# A symbol besides the colour, so that the verdict can be told without seeing colours.
SYMBOLS = {Verdict.PASS: "✓", Verdict.FAIL: "✕", Verdict.INCONCLUSIVE: "?", Verdict.ERROR: "!"}
EMOJI = {Verdict.PASS: "✅", Verdict.FAIL: "❌", Verdict.INCONCLUSIVE: "❔", Verdict.ERROR: "⛔"}

SHORT = 12
"""Digits of a hash that people are shown."""

_WHAT = {
    Verdict.PASS: "held every limit",
    Verdict.FAIL: "broke a limit",
    Verdict.INCONCLUSIVE: "cannot be decided on these images",
    Verdict.ERROR: "could not be built or run",
}


def headline(result: ValidationResult) -> str:
    """One sentence that says how many targets ended in which verdict, on what and under which gate."""
    total = len(result.targets)
    if not total:
        return f"No target was measured against gate “{result.gate}”."
    parts = []
    # the worst first: a headline is read to its middle
    for verdict in (Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
        count = sum(t.verdict is verdict for t in result.targets)
        if count:
            parts.append(f"{count} of {total} {_WHAT[verdict]}")
    return f"{'; '.join(parts)} (gate “{result.gate}”, {sample(result)})."


def sample(result: ValidationResult) -> str:
    """What was scored: images and labelled boxes."""
    images = f"{result.images} image{'' if result.images == 1 else 's'}"
    return f"{images}, {result.labels} labelled boxes" if result.labels else f"{images} without labels"


def baseline_name(result: ValidationResult) -> str:
    """Which model everything is held against: its file, and the start of its hash."""
    baseline = result.baseline
    name = baseline.path or baseline.target
    return f"{name} ({baseline.sha256[:SHORT]})" if baseline.sha256 else name


def about_baseline(text: str, result: ValidationResult) -> str:
    """A page's text as it is, or about the old release where that is what the new one is held against."""
    # wording only: every figure is the same comparison, against another baseline
    return text if result.baseline.target != OLD else text.replace("FP32", OLD_RELEASE)


def operating_rows(result: ValidationResult) -> list[tuple[str, OperatingPoint, bool]]:
    """Operating points of every model: its name, the point, and whether it is at the matched confidence."""
    rows = []
    for target in (result.baseline, *result.targets):
        rows += [(target.target, p, again) for p, again in ((target.operating, False), (target.matched, True)) if p]
    return rows


def latency_text(target: TargetResult) -> str:
    """The median latency, or that it was not measured here."""
    if target.latency is not None:
        return milliseconds(target.latency.median_ms)
    return "not measured here" if target.latency_note.startswith("not measured here") else DASH


def check_value(name: str, value: float | None) -> str:
    """A measurement of a gate in the unit that its name implies; drops in points, ratios as factors."""
    if not is_number(value):
        return DASH
    # counts; everything else by what the word in its name measures
    if name in {"min_images", "min_replicates", "min_detections", "min_boxes"}:
        return f"{value:.0f}"
    if "ratio" in name:
        return ratio(value)
    if "drop" in name:
        return f"{points(value, signed=True)} points"
    if name.startswith(("map", "ap", "baseline_map")):
        return f"{points(value)} points"
    if name.endswith("bytes"):
        return megabytes(value)
    if name.endswith("_ms"):
        return milliseconds(value)
    return fixed(value, 3, signed="shift" in name)


def check_interval(check: GateCheck) -> str:
    """The interval of a check in the same unit as its value; empty if it has none."""
    is_points = "drop" in check.metric or check.metric.startswith(("map", "ap"))
    return points_interval(check.interval) if is_points else fraction_interval(check.interval)


def check_limit(check: GateCheck) -> str:
    """The limit with the side on which a value is good."""
    sign = "≥" if higher_is_better(check.metric) else "≤"
    # a limit has no sign: "≤ +0.50 points" reads like a measurement
    return f"{sign} {check_value(check.metric, check.limit).replace('+', '')}"


def higher_is_better(name: str) -> bool:
    """Whether a gate's limit is a lower bound: fidelity, box IoU and mAP itself; all else is an upper bound."""
    if any(word in name for word in ("drop", "ratio", "shift", "loss")):
        return False
    return "fidelity" in name or "iou" in name or name.startswith(("map", "ap", "min", "baseline_map"))


def check_sentence(check: GateCheck) -> str:
    """The check's own message, or the measurement against its limit where it has none."""
    if check.message:
        return check.message
    return f"{check.name} is {check_value(check.metric, check.value)}, allowed is {check_limit(check)}"


def map_drop_limit(target: TargetResult) -> float | None:
    """The gate's limit on the drop of mAP50-95 as a fraction, the strictest of several gates'; None if none is set."""
    return min((c.limit for c in target.checks if c.metric == "map_drop" and is_number(c.limit)), default=None)


def fidelity_limit(target: TargetResult) -> float | None:
    """The gate's limit on fidelity, the strictest of several gates'; None if none is set."""
    return max((c.limit for c in target.checks if c.metric == "fidelity" and is_number(c.limit)), default=None)
