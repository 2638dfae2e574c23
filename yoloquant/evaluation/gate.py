"""The gate: limits that a release must hold, read from YAML, and the verdict on each of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import UsageError
from ..io import parse_yaml
from ..targets.base import INT8, PRECISIONS
from ..types import Task, Verdict
from .checks import Limit, LimitRule, check_limit, decide, images_to_settle
from .compare import Measurements
from .gate_metrics import METRICS
from .results import GateCheck, ValidationResult

__all__ = [
    "GATES_FOLDER",
    "Gate",
    "Limit",
    "LimitRule",
    "Require",
    "Unmeasured",
    "check_gates",
    "check_task",
    "decide",
    "exit_code",
    "images_to_settle",
    "load_gate",
    "load_gates",
    "overall_verdict",
]

_ROOTS = Path(__file__).resolve().parents[1:3]  # inside an installed package; the top of a checkout
GATES_FOLDER = next(
    (p for root in _ROOTS if (p := root / "configs" / "gates").is_dir()), _ROOTS[0] / "configs" / "gates"
)
Limits = dict[str, Limit | None]


class Unmeasured(str, Enum):
    """What a limit does whose quantity could not be measured."""

    SKIP = "skip"  # it is left out, with a note
    INCONCLUSIVE = "inconclusive"


class Require(str, Enum):
    """What every limit asks of an interval."""

    LIMITS = "limits"  # what each limit's own rule says
    PROOF = "proof"  # the whole interval on the good side, whatever the rules say


class Gate(BaseModel):
    """A gate file.

    Attributes:
        format: Version of the file format.
        name: Name of the gate.
        description: What it is for.
        limits: Limits by name (``gate_metrics.METRICS``), for every target; null means that it is not checked.
        targets: Limits by target or device; a limit given there replaces the general one, null removes it. A name
            such as ``openvino:fp16`` is that precision of the target alone.
        require: ``proof`` demands the whole interval of every limit, whatever its rule.
        min_images: With fewer images nothing is proven and nothing fails: intervals by resampling are too narrow.
        min_replicates: The same for replicates of the bootstrap.
        min_detections: The same for the FP32 model's own detections, which fidelity is held against.
        min_boxes: The same for labelled objects, which drops are measured on.
        baseline_map: Least mAP50-95 of the FP32 model on the labels, a fraction of 1. Below it the labels or the model
            are wrong, and no drop from it means anything.
        per_class_min_boxes: Classes with fewer labelled boxes are left out of ``per_class_drop``; with fewer detections
            of the FP32 model, of ``per_class_fidelity``.
        without_labels: What limits that need labels do on an unlabelled source.
        unmeasured: What other limits do that could not be measured (no float model in the same runtime, say).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=1, ge=1, le=1)
    name: str
    description: str = ""
    limits: Limits
    targets: dict[str, Limits] = Field(default_factory=dict)
    require: Require = Require.LIMITS
    min_images: int = Field(default=30, ge=1)
    min_replicates: int = Field(default=100, ge=1)
    min_detections: int = Field(default=10, ge=1)
    min_boxes: int = Field(default=10, ge=1)
    baseline_map: float = Field(default=0.05, ge=0.0, le=0.95, allow_inf_nan=False)
    per_class_min_boxes: int = Field(default=20, ge=1)
    without_labels: Unmeasured = Unmeasured.INCONCLUSIVE
    unmeasured: Unmeasured = Unmeasured.INCONCLUSIVE

    @field_validator("limits", mode="before")
    @classmethod
    def _read_limits(cls, value: Any) -> Any:
        return _checked_limits(value, "limits")

    @field_validator("targets", mode="before")
    @classmethod
    def _read_targets(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("must be limits by target, for instance 'litert: {map_drop: 0.02}'")
        return {name: _checked_limits(limits, f"targets.{name}") for name, limits in value.items()}

    @model_validator(mode="after")
    def _known_targets(self) -> Gate:
        """Device names become targets; a name that is neither is refused, since nothing would ever be held to it."""
        resolved: dict[str, Limits] = {}
        for name, limits in self.targets.items():
            try:
                target = _target_key(str(name))
            except UsageError as exc:
                raise ValueError(f"targets.{name}: {exc}") from exc
            if target in resolved:
                raise ValueError(f"targets.{name}: target '{target}' is given twice; keep one of the entries")
            resolved[target] = limits
        object.__setattr__(self, "targets", resolved)  # pydantic's way to finish a frozen model
        return self

    def limits_for(self, target: str) -> dict[str, Limit]:
        """The limits that hold for one target, by name, in the order of the table of metrics.

        Args:
            target: Its name, with a precision behind a colon unless that is int8.
        """
        plain, _, precision = target.partition(":")
        own = self.targets.get(f"{plain}:{precision or INT8}", {})
        # From the general to the particular: what comes later wins.
        chosen = {**self.limits, **self.targets.get(plain, {}), **own}
        found = {name: limit for name in METRICS if (limit := chosen.get(name)) is not None}
        if self.require is Require.PROOF:
            found = {name: limit.model_copy(update={"rule": LimitRule.PROVE}) for name, limit in found.items()}
        return found

    def check(self, target: str, measured: Measurements) -> tuple[tuple[GateCheck, ...], tuple[str, ...]]:
        """Hold an artifact's measurements against the limits.

        Args:
            target: Name of its target.
            measured: What was measured.

        Returns:
            One check per limit, after one inconclusive check for everything that makes the measurements worthless; and
            a note for each limit that was skipped. Without a single check there is nothing to stand a verdict on; one
            inconclusive check then says so.
        """
        doubts = self._doubts(measured)
        checks, notes = [], []
        for name, limit in self.limits_for(target).items():
            tasks = METRICS[name].tasks
            if measured.task and tasks and measured.task not in tasks:
                continue
            check = check_limit(name, limit, measured, self.per_class_min_boxes)
            if check is None:
                check = self._unmeasured(name, limit, measured)
            if check is not None:
                checks.append(_doubted(check, doubts))
            else:
                notes.append(f"{name} was not checked: {measured.why_unmeasured(name)}")
        # A verdict on nothing would be a pass.
        if not checks:
            text = (
                f"gate '{self.name}' has no limit for '{target}' that could be measured; add one, fidelity for instance"
            )
            checks.append(GateCheck("gate", None, 0.0, Verdict.INCONCLUSIVE, None, text))
        return (*(doubt for doubt, _ in doubts), *checks), tuple(notes)

    def _unmeasured(self, name: str, limit: Limit, measured: Measurements) -> GateCheck | None:
        policy = self.without_labels if METRICS[name].needs_labels and not measured.labelled else self.unmeasured
        if policy is Unmeasured.SKIP:
            return None
        text = f"{METRICS[name].title} was not measured: {measured.why_unmeasured(name)}"
        return GateCheck(name, None, limit.limit, Verdict.INCONCLUSIVE, None, text)

    def _doubts(self, measured: Measurements) -> list[tuple[GateCheck, frozenset[str]]]:
        """What makes measurements worthless, each with the limits that it touches."""
        sampled = frozenset(name for name, metric in METRICS.items() if metric.sampled)
        labelled = frozenset(name for name, metric in METRICS.items() if metric.needs_labels)
        found: list[tuple[GateCheck, frozenset[str]]] = []

        def doubt(name: str, value: float, least: float, touched: frozenset[str], text: str) -> None:
            found.append((GateCheck(name, value, least, Verdict.INCONCLUSIVE, None, text), touched))

        if measured.images < self.min_images:
            few = f"{measured.images} different images prove nothing and fail nothing"
            text = f"{few}; at least {self.min_images} are needed"
            doubt("min_images", measured.images, self.min_images, sampled, text)
        # None: the intervals are not from a bootstrap.
        if measured.replicates is not None and measured.replicates < self.min_replicates:
            text = (
                f"{measured.replicates} replicates make no interval; bootstrap={self.min_replicates} or more is needed"
            )
            doubt("min_replicates", measured.replicates, self.min_replicates, sampled, text)
        if measured.baseline_map is not None and measured.baseline_map < self.baseline_map:
            text = (
                f"the FP32 model itself scores {measured.baseline_map * 100:.1f} points on these labels, of "
                f"{self.baseline_map * 100:g} that are needed (baseline_map); are these the classes, labels and images "
                "that it was trained for?"
            )
            doubt("baseline_map", measured.baseline_map, self.baseline_map, labelled, text)
        boxes = sum(measured.class_boxes.values())
        if measured.labelled and measured.class_boxes and boxes < self.min_boxes:
            few = f"{boxes} labelled objects prove nothing and fail nothing"
            text = f"{few}; at least {self.min_boxes} are needed (min_boxes)"
            doubt("min_boxes", boxes, self.min_boxes, labelled, text)
        if measured.references is not None and measured.references < self.min_detections:
            text = (
                f"the FP32 model itself finds {measured.references} objects on these images, of {self.min_detections} "
                "that are needed to compare with (min_detections); use images that show the model's classes"
            )
            # Limits on labels do not hang on how much the FP32 model finds confidently.
            doubt("min_detections", measured.references, self.min_detections, sampled - labelled, text)
        return found


def _target_key(name: str) -> str:
    """What a target or a device is called among a gate's targets: with its precision where the name says one.

    Raises:
        UsageError: There is no such target, or what stands behind the colon is no precision.
    """
    from .. import targets

    target, variant = targets.get(name), name.partition(":")[2].strip().lower()
    if variant and variant not in PRECISIONS:
        raise UsageError(
            f"limits can differ by target and precision ({', '.join(sorted(PRECISIONS))}), not by '{variant}'; write "
            f"{target.name}"
        )
    return f"{target.name}:{variant}" if variant else target.name


def _doubted(check: GateCheck, doubts: Iterable[tuple[GateCheck, frozenset[str]]]) -> GateCheck:
    """A check that something else makes worthless is neither passed nor failed."""
    if check.verdict not in (Verdict.PASS, Verdict.FAIL):
        return check
    reason = next((doubt for doubt, touched in doubts if check.name in touched), None)
    if reason is None:
        return check
    return replace(check, verdict=Verdict.INCONCLUSIVE, message=f"{check.message}; not decided ({reason.name})")


def _checked_limits(value: Any, where: str) -> dict[str, Any]:
    """Limits of a gate file with known names and limits in range; a plain number stands for its limit.

    Raises:
        ValueError: A name is unknown, or a limit is out of range; the message says what is allowed.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be limits by name, for instance 'map_drop: 0.01'")
    found: dict[str, Any] = {}
    for name, limit in value.items():
        if name not in METRICS:
            near = difflib.get_close_matches(str(name), METRICS, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise ValueError(f"unknown key '{where}.{name}'{hint}; allowed are {', '.join(METRICS)}")
        if isinstance(limit, (int, float)) and not isinstance(limit, bool):
            limit = {"limit": limit}
        number = limit.get("limit") if isinstance(limit, Mapping) else getattr(limit, "limit", None)
        problem = ""
        # NaN is left to pydantic, which refuses it with a message of its own.
        if isinstance(number, (int, float)) and not isinstance(number, bool) and number == number:
            problem = METRICS[name].problem(name, number)
        if problem:
            raise ValueError(f"{where}.{problem}")
        found[name] = limit
    return found


def overall_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst verdict: error, fail, inconclusive, pass; inconclusive if there is none."""
    # What was not measured is worse than a failure: nobody knows what it would have been.
    order = (Verdict.ERROR, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
    return min(verdicts, key=order.index, default=Verdict.INCONCLUSIVE)


def exit_code(result: ValidationResult, inconclusive: int = 3) -> int:
    """Exit code of the command line: 0 pass, 1 fail, 3 inconclusive (or as asked), 4 a target was not measured."""
    return exit_code_of(result.verdict, inconclusive)


def exit_code_of(verdict: Verdict, inconclusive: int = 3) -> int:
    """The same for a verdict."""
    codes = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: inconclusive, Verdict.ERROR: 4}
    return codes[verdict]


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
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise UsageError(f"gate file {path} cannot be read: {exc}") from exc
    return _parse(content, str(path))


def load_gates(gates: Any) -> tuple[Gate, ...]:
    """Read one gate or several: what ``load_gate`` takes, a list of it, or names and paths separated by commas.

    Raises:
        UsageError: See ``load_gate``; or two gates have one name.
    """
    # A path may hold a comma itself; one that exists is taken whole.
    if isinstance(gates, str) and not Path(gates).is_file():
        gates = [part.strip() for part in gates.split(",") if part.strip()] or [gates]
    found = tuple(load_gate(gate) for gate in (gates if isinstance(gates, (list, tuple)) else [gates]))
    names = [gate.name for gate in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two gates are called '{twice}'; give every gate a name of its own")
    return found


def check_task(gates: Sequence[Gate], task: Task) -> tuple[str, ...]:
    """Refuse gates that hold a model of one task to nothing: their limits are all of other tasks' figures.

    A gate may serve several tasks, and the others' limits do not count.

    Args:
        gates: The gates.
        task: The model's task.

    Returns:
        A note for each gate that limits drops of other tasks, and none of this one's.

    Raises:
        UsageError: Every limit of a gate is of a figure that models of the task do not have.
    """
    notes = []
    for gate in gates:
        limits = (gate.limits, *gate.targets.values())
        given = [name for name in METRICS if any(each.get(name) is not None for each in limits)]
        others = [name for name in given if not _has(task, name)]
        drops = [name for name, metric in METRICS.items() if metric.needs_labels and metric.tasks and _has(task, name)]
        if given and given == others:
            raise UsageError(
                f"gate '{gate.name}' limits {', '.join(others)} alone, which a {task.value} model does not have; "
                f"allowed are {', '.join(name for name in METRICS if _has(task, name))}"
            )
        foreign = [name for name in others if METRICS[name].needs_labels]
        if foreign and not set(given) & {*drops, "per_class_drop"}:
            notes.append(
                f"gate '{gate.name}' limits {', '.join(foreign)}, which a {task.value} model does not have, and no "
                f"drop that it has; limits.{drops[0]} would be one"
            )
    return tuple(notes)


def _has(task: Task, name: str) -> bool:
    """Whether models of a task have a figure."""
    return not METRICS[name].tasks or task.value in METRICS[name].tasks


def check_gates(
    gates: Sequence[Gate], target: str, measured: Measurements
) -> tuple[tuple[GateCheck, ...], tuple[str, ...]]:
    """Hold an artifact's measurements against every gate; see ``Gate.check``.

    With several gates every check says which one it is of.
    """
    checks: list[GateCheck] = []
    notes: list[str] = []
    several = len(gates) > 1
    for gate in gates:
        own, told = gate.check(target, measured)
        checks += [replace(check, name=f"{check.name} ({gate.name})") for check in own] if several else own
        notes += [f"{note} ({gate.name})" for note in told] if several else told
    return tuple(checks), tuple(notes)


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
    if error["type"] == "value_error":  # our own sentences name their place
        return str(error["ctx"]["error"])
    if error["type"] != "extra_forbidden":
        return f"{'.'.join(place)}: {error['msg']}"
    model: type[BaseModel] = Gate if len(place) == 1 else Limit
    return f"unknown key '{'.'.join(place)}'; allowed are {', '.join(model.model_fields)}"
