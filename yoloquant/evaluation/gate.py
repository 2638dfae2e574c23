"""The gate: limits that a release must hold, read from YAML, and the verdict on each of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import UsageError
from ..types import Verdict
from .compare import Measurements
from .results import Check, Interval, ValidationResult

_ROOTS = Path(__file__).resolve().parents[1:3]  # inside an installed package; the top of a checkout
GATES_FOLDER = next(
    (p for root in _ROOTS if (p := root / "configs" / "gates").is_dir()), _ROOTS[0] / "configs" / "gates"
)


class Rule(str, Enum):
    """How a limit is held against a measurement with an interval."""

    PROVE = "prove"  # the whole interval must be on the good side; inconclusive while it straddles the limit
    VETO = "veto"  # fails only if the whole interval is on the bad side; passes otherwise
    ESTIMATE = "estimate"  # the estimate alone decides


class Unmeasured(str, Enum):
    """What a limit does whose quantity could not be measured."""

    SKIP = "skip"  # it is left out, with a note
    INCONCLUSIVE = "inconclusive"


class Limit(BaseModel):
    """One limit. A plain number in the YAML stands for a limit with the rule ``prove``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: float = Field(allow_inf_nan=False)
    rule: Rule = Rule.PROVE


class Limits(BaseModel):
    """Limits by name; leaving one out, or null, means that it is not checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    map_drop: Limit | None = None
    map50_drop: Limit | None = None
    per_class_drop: Limit | None = None
    fidelity: Limit | None = None
    confidence_shift: Limit | None = None
    latency_ratio: Limit | None = None
    size_ratio: Limit | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"limit": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value


AT_LEAST = frozenset({"fidelity"})
"""Limits that are lower bounds; all others are upper bounds."""
NEEDS_LABELS = frozenset({"map_drop", "map50_drop", "per_class_drop"})
TITLES = {
    "map_drop": "mAP50-95 drop",
    "map50_drop": "mAP50 drop",
    "per_class_drop": "largest AP drop of a class",
    "fidelity": "fidelity to FP32",
    "confidence_shift": "mean confidence shift",
    "latency_ratio": "latency relative to FP32 in the same runtime",
    "size_ratio": "size relative to FP32",
}


class Gate(BaseModel):
    """A gate file.

    Attributes:
        format: Version of the file format.
        name: Name of the gate.
        description: What it is for.
        limits: Limits for every target.
        targets: Limits by target name; a limit given there replaces the general one, null removes it.
        per_class_min_boxes: Classes with fewer labelled boxes are left out of ``per_class_drop``.
        without_labels: What limits that need labels do on an unlabelled source.
        unmeasured: What other limits do that could not be measured (no float model in the same runtime, say).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=1, ge=1, le=1)
    name: str
    description: str = ""
    limits: Limits
    targets: dict[str, Limits] = Field(default_factory=dict)
    per_class_min_boxes: int = Field(default=20, ge=1)
    without_labels: Unmeasured = Unmeasured.INCONCLUSIVE
    unmeasured: Unmeasured = Unmeasured.INCONCLUSIVE

    def limits_for(self, target: str) -> dict[str, Limit]:
        """The limits that hold for one target, by name."""
        general, special = self.limits, self.targets.get(target)
        chosen = {name: getattr(general, name) for name in Limits.model_fields}
        if special is not None:
            chosen.update({name: getattr(special, name) for name in special.model_fields_set})
        return {name: limit for name, limit in chosen.items() if limit is not None}

    def judge(self, target: str, measured: Measurements) -> tuple[tuple[Check, ...], tuple[str, ...]]:
        """Hold an artifact's measurements against the limits.

        Returns:
            One check per limit, and a note for each limit that was skipped. Without a single check there is nothing to
            stand a verdict on; one inconclusive check then says so.
        """
        checks, notes = [], []
        for name, limit in self.limits_for(target).items():
            check = self._check(name, limit, measured)
            if check is not None:
                checks.append(check)
            else:
                notes.append(f"{name} was not checked: {_why_unmeasured(name)}")
        if not checks:
            text = (
                f"gate '{self.name}' has no limit for '{target}' that could be measured; add one, fidelity for instance"
            )
            checks.append(Check("gate", None, 0.0, Verdict.INCONCLUSIVE, None, text))
        return tuple(checks), tuple(notes)

    def _check(self, name: str, limit: Limit, measured: Measurements) -> Check | None:
        value, interval, label = self._measurement(name, limit, measured)
        if value is None:
            policy = self.without_labels if name in NEEDS_LABELS else self.unmeasured
            if policy is Unmeasured.SKIP:
                return None
            text = f"{TITLES[name]} was not measured: {_why_unmeasured(name)}"
            return Check(name, None, limit.limit, Verdict.INCONCLUSIVE, None, text)
        sign = -1.0 if name in AT_LEAST else 1.0
        verdict = decide(value, interval, limit, sign=sign)
        return Check(
            name,
            value,
            limit.limit,
            verdict,
            interval,
            _message(name, label, verdict, limit, measured.images, value, interval, sign),
        )

    def _measurement(
        self, name: str, limit: Limit, measured: Measurements
    ) -> tuple[float | None, Interval | None, str]:
        if name == "per_class_drop":
            return self._worst_class(limit, measured)
        interval = measured.intervals.get(name)
        if name == "confidence_shift" and interval is not None:
            interval = _absolute(interval)
        if interval is not None:
            return interval.value, interval, ""
        value = getattr(measured.comparison, name)
        return (float(value), None, "") if isinstance(value, (int, float)) else (None, None, "")

    def _worst_class(self, limit: Limit, measured: Measurements) -> tuple[float | None, Interval | None, str]:
        """The class that is nearest to failing: by its lower end under ``veto``, else by its upper end or estimate."""
        many = {
            name: drop
            for name, drop in measured.class_drops.items()
            if measured.class_boxes.get(name, 0) >= self.per_class_min_boxes
        }
        if not many:
            return None, None, ""
        key = {Rule.VETO: "low", Rule.PROVE: "high", Rule.ESTIMATE: "value"}[limit.rule]
        worst = max(many, key=lambda name: getattr(many[name], key))
        return many[worst].value, many[worst], worst


def decide(value: float, interval: Interval | None, limit: Limit, *, sign: float = 1.0) -> Verdict:
    """Verdict of one limit.

    Args:
        value: The estimate.
        interval: Its interval; None where it has none, and then the estimate decides.
        limit: The limit and its rule.
        sign: 1 if the limit is an upper bound, -1 if it is a lower bound.
    """
    bound = sign * limit.limit
    if interval is None or limit.rule is Rule.ESTIMATE:
        return Verdict.PASS if sign * value <= bound else Verdict.FAIL
    low, high = sorted((sign * interval.low, sign * interval.high))
    if low > bound:
        return Verdict.FAIL
    if limit.rule is Rule.VETO or high <= bound:
        return Verdict.PASS
    return Verdict.INCONCLUSIVE


def images_to_settle(value: float, interval: Interval, limit: float, images: int) -> int | None:
    """How many more images would move the interval off the limit, if the estimate stays where it is.

    The interval's width falls as 1/sqrt(images).

    Returns:
        The number, or None if the estimate lies on the limit.
    """
    gap = abs(value - limit)
    reach = abs((interval.high if value < limit else interval.low) - value)
    if gap <= 1e-9 or not math.isfinite(reach / gap):
        return None
    return max(1, math.ceil(images * (reach / gap) ** 2) - images)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst verdict: error, fail, inconclusive, pass; inconclusive if there is none."""
    order = (Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
    return min(verdicts, key=order.index, default=Verdict.INCONCLUSIVE)


def exit_code(result: ValidationResult, inconclusive: int = 3) -> int:
    """Exit code of the command line: 0 pass, 1 fail, 3 inconclusive (or as asked), 4 a target was not measured."""
    codes = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: inconclusive, Verdict.ERROR: 4}
    return codes[result.verdict]


def load_gate(gate: str | Path | Mapping[str, Any] | Gate) -> Gate:
    """Read a gate.

    Args:
        gate: Path of a YAML file, name of one in ``configs/gates``, the content itself, or a gate.

    Raises:
        UsageError: It does not exist, or holds unknown keys or bad values.
    """
    if isinstance(gate, Gate):
        return gate
    if isinstance(gate, Mapping):
        return _parse(dict(gate), "gate")
    path = Path(gate)
    if not path.is_file() and path.suffix == "":
        path = GATES_FOLDER / f"{gate}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in GATES_FOLDER.glob("*.yaml"))) or "none"
        raise UsageError(f"gate '{gate}' does not exist; name a yaml file or one of: {known}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise UsageError(f"gate file {path} cannot be read: {exc}") from exc
    return _parse(content, str(path))


def _parse(content: Any, where: str) -> Gate:
    if not isinstance(content, dict):
        raise UsageError(f"{where}: a gate holds the keys {', '.join(Gate.model_fields)}")
    try:
        return Gate.model_validate(content)
    except ValidationError as exc:
        raise UsageError(f"{where}: " + "; ".join(_problem(error) for error in exc.errors())) from exc


def _problem(error: Any) -> str:
    """One of pydantic's errors as a sentence that names the allowed keys."""
    place = [str(part) for part in error["loc"]]
    text = f"{'.'.join(place)}: {error['msg']}"
    if error["type"] != "extra_forbidden":
        return text
    depth = len(place) - (1 if place[0] == "targets" else 0)
    model: type[BaseModel] = Gate if len(place) == 1 else Limits if depth == 2 else Limit
    return f"unknown key '{'.'.join(place)}'; allowed are {', '.join(model.model_fields)}"


def _absolute(interval: Interval) -> Interval:
    """Interval of the absolute value of something whose interval is known."""
    low, high = abs(interval.low), abs(interval.high)
    inner = 0.0 if interval.low <= 0 <= interval.high else min(low, high)
    return Interval(abs(interval.value), inner, max(low, high), interval.level, interval.std)


def _why_unmeasured(name: str) -> str:
    if name == "per_class_drop":
        return "no class has enough labelled boxes"
    if name in NEEDS_LABELS:
        return "the images have no labels"
    if name == "latency_ratio":
        return "no float model was timed in the same runtime"
    return "it is not known for this artifact"


def _message(
    name: str,
    label: str,
    verdict: Verdict,
    limit: Limit,
    images: int,
    value: float,
    interval: Interval | None,
    sign: float,
) -> str:
    relation = "at least" if sign < 0 else "at most"
    text = f"{TITLES[name]}{f' ({label})' if label else ''} is {value:.4f}, allowed is {relation} {limit.limit:g}"
    if interval is None or limit.rule is Rule.ESTIMATE:
        return text
    text += f" ({interval.level:.0%} interval {interval.low:.4f} to {interval.high:.4f})"
    if verdict is Verdict.INCONCLUSIVE:
        more = images_to_settle(value, interval, limit.limit, images)
        text += (
            f"; about {more} more images would settle it" if more else "; it lies on the limit, images cannot settle it"
        )
    elif verdict is Verdict.PASS and limit.rule is Rule.VETO and sign * value > sign * limit.limit:
        text += "; the excess is within the noise of this many images"
    return text
