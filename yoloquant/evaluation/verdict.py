"""From measurements to the verdict: builds the result objects that reports and exit codes read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..runtime.device.sensors import memory
from ..types import Verdict
from .bootstrap import BootstrapOptions
from .compare import CONF, Comparer
from .evaluate import Evaluation, RunnerRecord
from .examples import pick_examples
from .gate import Gate, check_gates, overall_verdict
from .match_by import USUAL, MatchBy
from .processors import EMULATED, PROCESSORS
from .results import Example, Interval, Latency, TargetResult, ValidationResult


@dataclass(frozen=True)
class ArtifactInfo:
    """What is known of an artifact besides how it runs.

    Attributes:
        path: Its file or folder.
        scheme: Quantization scheme.
        size_bytes: Size on disk.
        notes: Remarks for people.
        error: Why it could not be built or loaded; empty if it could.
        peak_memory_bytes: Peak resident memory of a process of its own, if that was measured.
        simulated: Whether something else ran it than what it was built for.
        elsewhere: The other processor that it was run on, whose time says nothing; empty for this one.
        target: Name of its target, which chooses its limits; the row's own name if empty.
        sha256: Hash of its content.
        weights: Hash of the float weights that it quantizes; empty if that is not known.
        latency: Its time, if that was measured on what it is for.
        latency_ratio: The ratio to the float model in the same runtime, with its spread.
        latency_note: Why the latency was not measured.
    """

    path: str = ""
    scheme: str = ""
    size_bytes: int = 0
    notes: tuple[str, ...] = ()
    error: str = ""
    peak_memory_bytes: int | None = None
    simulated: bool = False
    elsewhere: str = ""
    target: str = ""
    sha256: str = ""
    weights: str = ""
    latency: Latency | None = None
    latency_ratio: Interval | None = None
    latency_note: str = ""


@dataclass(frozen=True)
class VerdictOptions:
    """How the verdict is reached.

    Attributes:
        bootstrap: How intervals are computed.
        threads: Threads that every runtime was given, as stated in the report.
        examples: Example images per target.
        conf: The confidence that is deployed.
        match: What the matched confidence makes alike.
        environment: Versions, host and hashes for the report.
        notes: What holds for every target.
        same_model: Whether baseline and artifacts are releases that quantize the same float weights.
    """

    bootstrap: BootstrapOptions = field(default_factory=BootstrapOptions)
    threads: int = 0
    examples: int = 3
    conf: float = CONF
    match: MatchBy = USUAL
    environment: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    same_model: bool = False


def reach_verdict(
    evaluation: Evaluation,
    gate: Gate | Sequence[Gate],
    artifacts: Mapping[str, ArtifactInfo],
    options: VerdictOptions | None = None,
) -> ValidationResult:
    """Judge every requested artifact.

    Args:
        evaluation: What was measured.
        gate: The limits; of several gates every one counts.
        artifacts: Every requested artifact by target name, in the order asked, also those that could not be built; the
            baseline's own facts may stand among them under its name.
        options: How to judge.
    """
    options = options or VerdictOptions()
    gates: tuple[Gate, ...] = (gate,) if isinstance(gate, Gate) else tuple(gate)
    # One for all, so that all are compared on the same resamples.
    comparer = Comparer(evaluation, options.bootstrap, options.conf, options.match)
    baseline_name = evaluation.options.baseline
    baseline = _baseline(comparer, artifacts.get(baseline_name, ArtifactInfo()))
    targets: list[TargetResult] = []
    examples: list[Example] = []
    for name, facts in artifacts.items():
        if name == baseline_name:
            continue
        result = _target(comparer, gates, name, facts, baseline.size_bytes, same_model=options.same_model)
        targets.append(result)
        if result.verdict is not Verdict.ERROR:
            examples += pick_examples(evaluation, name, options.examples)
    return ValidationResult(
        verdict=overall_verdict(target.verdict for target in targets),
        baseline=baseline,
        targets=tuple(targets),
        names=evaluation.names,
        images=len(evaluation.data),
        labels=evaluation.data.boxes,
        imgsz=evaluation.imgsz,
        gate=", ".join(each.name for each in gates),
        environment={
            "data": evaluation.data.source,
            "split": evaluation.data.split,
            "data_sha256": evaluation.data.data_hash,
            "threads": options.threads,
            "bootstrap_replicates": options.bootstrap.replicates,
            "bootstrap_seed": options.bootstrap.seed,
            "match": options.match.value,
            **_peak_memory(),
            **options.environment,
        },
        examples=tuple(examples),
        seconds=evaluation.seconds,
        notes=(*options.notes, *evaluation.data.notes),
    )


def _baseline(comparer: Comparer, facts: ArtifactInfo) -> TargetResult:
    name = comparer.evaluation.options.baseline
    return TargetResult(
        target=name,
        path=facts.path,
        scheme=facts.scheme or "fp32",
        # It is held against nothing.
        verdict=Verdict.PASS,
        accuracy=comparer.accuracy(name),
        operating=comparer.operating(name),
        latency=facts.latency,
        size_bytes=facts.size_bytes,
        peak_memory_bytes=facts.peak_memory_bytes,
        notes=facts.notes,
        sha256=facts.sha256,
        latency_note=facts.latency_note,
    )


def _target(
    comparer: Comparer,
    gates: Sequence[Gate],
    name: str,
    facts: ArtifactInfo,
    baseline_bytes: int,
    *,
    same_model: bool,
) -> TargetResult:
    """Judge one artifact."""
    evaluation = comparer.evaluation
    if facts.error or name not in evaluation.records:
        # What was asked for and is not there is an error, and never silence.
        error = facts.error or evaluation.errors.get(name) or "it was asked for, but not measured"
        return TargetResult(
            target=name,
            path=facts.path,
            scheme=facts.scheme,
            verdict=Verdict.ERROR,
            size_bytes=facts.size_bytes,
            error=error,
            notes=facts.notes,
            sha256=facts.sha256,
        )
    # A size of 0 is one that is not known.
    ratio = facts.size_bytes / baseline_bytes if baseline_bytes and facts.size_bytes else None
    reasons = {"latency_ratio": facts.latency_note} if facts.latency_note else {}
    measured = comparer.compare(name, latency_ratio=facts.latency_ratio, size_ratio=ratio, reasons=reasons)
    if same_model:
        measured = measured.of_same_model()
    # By the target and not by the row, whose name may also hold a file and a processor.
    checks, notes = check_gates(gates, facts.target or name, measured)
    # Shown and not judged: the deployed confidence is what is released.
    matched = measured.comparison.matched_conf
    return TargetResult(
        target=name,
        path=facts.path,
        scheme=facts.scheme,
        verdict=overall_verdict(check.verdict for check in checks),
        accuracy=comparer.accuracy(name),
        operating=comparer.operating(name),
        matched=comparer.operating(name, matched.value) if matched else None,
        comparison=measured.comparison,
        latency=facts.latency,
        size_bytes=facts.size_bytes,
        peak_memory_bytes=facts.peak_memory_bytes,
        checks=checks,
        notes=(*facts.notes, *_remarks(facts, evaluation.records[name]), *notes),
        sha256=facts.sha256,
        latency_note=facts.latency_note,
    )


def _remarks(facts: ArtifactInfo, record: RunnerRecord) -> tuple[str, ...]:
    """Notes on what a reader of the numbers must know."""
    remarks = []
    if facts.simulated:
        remarks.append("it was simulated here: its accuracy counts, its latency was not measured")
    if facts.elsewhere:
        remarks.append(f"on {facts.elsewhere}, {PROCESSORS[facts.elsewhere]}: {EMULATED}")
    if not any(len(found) for found in record.detections):
        remarks.append("it detected nothing on any image")
    return tuple(remarks)


def _peak_memory() -> dict[str, int]:
    """Peak resident memory of this process, all runtimes together; empty where the system does not tell."""
    peak = memory()[1]
    return {} if peak is None else {"peak_memory_bytes": round(peak * 1e6)}
