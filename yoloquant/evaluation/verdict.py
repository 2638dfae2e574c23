"""From measurements to the verdict: builds the result objects that reports and exit codes read."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..types import Verdict
from .bootstrap import BootstrapOptions
from .compare import Comparer
from .evaluate import Evaluation, RunnerRecord
from .examples import pick_examples
from .gate import Gate, worst
from .processors import EMULATED, PROCESSORS
from .results import Example, TargetResult, ValidationResult


@dataclass(frozen=True)
class ArtifactFacts:
    """What is known of an artifact besides how it runs.

    Attributes:
        path: Its file or folder.
        scheme: Quantization scheme.
        size_bytes: Size on disk.
        notes: Remarks for people.
        error: Why it could not be built or loaded; empty if it could.
        timing_baseline: Runner of a float model in the same runtime, for the latency ratio.
        peak_memory_bytes: Peak resident memory of a process of its own, if that was measured.
        simulated: Whether it was run by another runtime than the one it was built for, so that its time says nothing.
        elsewhere: The other processor that it was run on, whose time says nothing either; empty for this one.
    """

    path: str = ""
    scheme: str = ""
    size_bytes: int = 0
    notes: tuple[str, ...] = ()
    error: str = ""
    timing_baseline: str | None = None
    peak_memory_bytes: int | None = None
    simulated: bool = False
    elsewhere: str = ""

    @property
    def timed(self) -> bool:
        """Whether its time was measured where it counts."""
        return not (self.simulated or self.elsewhere)


@dataclass(frozen=True)
class JudgeOptions:
    """How the verdict is reached.

    Attributes:
        bootstrap: How intervals are computed.
        threads: Threads that every runtime was given, as stated in the report.
        examples: Example images per target.
        environment: Versions, host and hashes for the report.
    """

    bootstrap: BootstrapOptions = field(default_factory=BootstrapOptions)
    threads: int = 0
    examples: int = 3
    environment: Mapping[str, Any] = field(default_factory=dict)


def judge(
    evaluation: Evaluation,
    gate: Gate,
    artifacts: Mapping[str, ArtifactFacts],
    options: JudgeOptions | None = None,
) -> ValidationResult:
    """Judge every requested artifact.

    Args:
        evaluation: What was measured.
        gate: The limits.
        artifacts: Every requested artifact by target name, in the order asked, also those that could not be built; the
            baseline's own facts may stand among them under its name.
        options: How to judge.
    """
    options = options or JudgeOptions()
    comparer = Comparer(evaluation, options.bootstrap)
    baseline_name = evaluation.options.baseline
    baseline = _baseline(comparer, artifacts.get(baseline_name, ArtifactFacts()), options)
    targets: list[TargetResult] = []
    examples: list[Example] = []
    for name, facts in artifacts.items():
        if name == baseline_name:
            continue
        result = _target(comparer, gate, name, facts, (baseline.size_bytes, options.threads))
        targets.append(result)
        if result.verdict is not Verdict.ERROR:
            examples += pick_examples(evaluation, name, options.examples)
    return ValidationResult(
        verdict=worst(target.verdict for target in targets),
        baseline=baseline,
        targets=tuple(targets),
        names=evaluation.names,
        images=len(evaluation.data),
        labels=evaluation.data.boxes,
        imgsz=evaluation.imgsz,
        gate=gate.name,
        environment={
            "data": evaluation.data.source,
            "split": evaluation.data.split,
            "data_sha256": evaluation.data.data_hash,
            "threads": options.threads,
            "bootstrap_replicates": options.bootstrap.replicates,
            "bootstrap_seed": options.bootstrap.seed,
            **_peak_memory(),
            **options.environment,
        },
        examples=tuple(examples),
        seconds=evaluation.seconds,
    )


def _baseline(comparer: Comparer, facts: ArtifactFacts, options: JudgeOptions) -> TargetResult:
    name = comparer.evaluation.options.baseline
    return TargetResult(
        target=name,
        path=facts.path,
        scheme=facts.scheme or "fp32",
        verdict=Verdict.PASS,
        accuracy=comparer.accuracy(name),
        latency=comparer.latency(name, options.threads),
        size_bytes=facts.size_bytes,
        peak_memory_bytes=facts.peak_memory_bytes,
        notes=facts.notes,
    )


def _target(comparer: Comparer, gate: Gate, name: str, facts: ArtifactFacts, baseline: tuple[int, int]) -> TargetResult:
    """Judge one artifact; ``baseline`` holds the FP32 model's size in bytes and the number of threads."""
    evaluation = comparer.evaluation
    if facts.error or name not in evaluation.records:
        error = facts.error or evaluation.errors.get(name) or "it was asked for, but not measured"
        return TargetResult(
            target=name,
            path=facts.path,
            scheme=facts.scheme,
            verdict=Verdict.ERROR,
            size_bytes=facts.size_bytes,
            error=error,
            notes=facts.notes,
        )
    size, threads = baseline
    ratio = facts.size_bytes / size if size and facts.size_bytes else None
    timing = facts.timing_baseline if facts.timed else None
    measured = comparer.compare(name, timing_baseline=timing, size_ratio=ratio)
    checks, notes = gate.judge(name, measured)
    return TargetResult(
        target=name,
        path=facts.path,
        scheme=facts.scheme,
        verdict=worst(check.verdict for check in checks),
        accuracy=comparer.accuracy(name),
        comparison=measured.comparison,
        latency=comparer.latency(name, threads) if facts.timed else None,
        size_bytes=facts.size_bytes,
        peak_memory_bytes=facts.peak_memory_bytes,
        checks=checks,
        notes=(*facts.notes, *_remarks(facts, evaluation.records[name]), *notes),
    )


def _remarks(facts: ArtifactFacts, record: RunnerRecord) -> tuple[str, ...]:
    """Notes on what a reader of the numbers must know."""
    remarks = []
    if facts.simulated:
        remarks.append("it was simulated by another runtime: its accuracy counts, its latency was not measured")
    if facts.elsewhere:
        remarks.append(f"on {facts.elsewhere}, {PROCESSORS[facts.elsewhere]}: {EMULATED}")
    if not any(len(found) for found in record.detections):
        remarks.append("it detected nothing on any image")
    return tuple(remarks)


def _peak_memory() -> dict[str, int]:
    """Peak resident memory of this process, all runtimes together; empty where the system does not tell."""
    try:
        import resource
    except ImportError:  # not on Windows
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_memory_bytes": int(peak if sys.platform == "darwin" else peak * 1024)}
