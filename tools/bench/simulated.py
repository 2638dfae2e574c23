"""Plans simulated in PyTorch beside the float model, scored in one pass: what the comparison tools share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tools.bench.table import table
from tools.options import parse_options, positive
from yoloquant import targets
from yoloquant.bridge.checkpoint import load_model
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import UsageError, YoloquantError
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import Evaluation, evaluate
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.graph.traced_model import TracedModel
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.scheme import PORTABLE, Scheme
from yoloquant.quantization.simulate import simulate
from yoloquant.runtime.core.runner import Runner

BASELINE = "fp32"
MEASURED = ("fidelity", "[95 %]", "drop, points", "[95 %]", "confidence shift", "box IoU")
DEFAULTS = {
    "model": "yolo11n.pt",
    "data": "coco8.yaml",
    "imgsz": "640",
    "images": "128",
    "split": "val",
    "limit": "none",
    "threads": "2",
    "bootstrap": "1000",
    "out": "",
}


@dataclass(frozen=True)
class Variant:
    """What is simulated.

    Attributes:
        plan: A calibrated plan.
        bias: Bias corrections by module path.
    """

    plan: Plan
    bias: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """What a comparison is made on.

    Attributes:
        artifact: The float model at its input size, without plans.
        data: The images that are scored.
        source: The data yaml that calibration images are drawn from.
        images: How many of them.
        threads: Threads of PyTorch.
        bootstrap: Replicates of the bootstrap.
    """

    artifact: Artifact
    data: ValidationSet
    source: str
    images: int
    threads: int
    bootstrap: int

    @classmethod
    def load(cls, options: Mapping[str, str]) -> Subject:
        """Read the options that every comparison has (``DEFAULTS``).

        Raises:
            YoloquantError: The model or the data cannot be used.
            argparse.ArgumentTypeError: A value is of the wrong type.
        """
        import torch

        threads, images, bootstrap = (positive(options[key]) for key in ("threads", "images", "bootstrap"))
        limit = None if options["limit"] == "none" else positive(options["limit"])
        imgsz = positive(options["imgsz"])
        torch.set_num_threads(threads)
        model = load_model(options["model"])
        artifact = Artifact(TracedModel.of(model, imgsz))
        data = ValidationSet.from_yaml(options["data"], split=options["split"]).take(limit)
        return cls(artifact, data, options["data"], images, threads, bootstrap)

    def introduction(self, schemes: str) -> str:
        """One sentence on how the table was measured."""
        return (
            f"{Path(self.artifact.model.source).name}, {schemes} simulated in PyTorch, calibrated on {self.images} "
            f"training images, scored on {len(self.data)} images of {Path(self.source).name} ({self.data.split}), "
            f"imgsz {self.artifact.info.imgsz[0]}."
        )


def scheme_named(name: str) -> Scheme:
    """A scheme by name.

    Raises:
        UsageError: There is none of that name.
    """
    known = {PORTABLE.name: PORTABLE}
    for target in targets.names():
        known[targets.get(target).scheme.name] = targets.get(target).scheme
    if name not in known:
        raise UsageError(f"scheme '{name}' is unknown; allowed are {', '.join(known)}")
    return known[name]


def score(subject: Subject, plans: Mapping[str, Variant]) -> Evaluation:
    """Simulate every plan beside the float model, image by image."""
    artifact, threads = subject.artifact, subject.threads
    runners: dict[str, Runner] = {BASELINE: TorchRunner(artifact.graph.module, artifact.info, threads)}
    for name, variant in plans.items():
        module = simulate(artifact.graph, variant.plan, bias=variant.bias)
        runners[name] = TorchRunner(module, artifact.info, threads)
    return evaluate(runners, subject.data, progress=progress)


def report(first: str, comparer: Comparer, more: Sequence[tuple[str, Callable[[str], str]]] = ()) -> str:
    """The Markdown table, in the order of the plans.

    Args:
        first: Heading of the first column, which holds the names.
        comparer: The scores.
        more: Further columns: heading, and the cell of a name.
    """
    head = (first, *MEASURED, *(heading for heading, _ in more))
    evaluation = comparer.evaluation
    rows = [
        (name, *_cells(name, comparer), *(cell(name) for _, cell in more))
        for name in evaluation.records
        if name != BASELINE
    ]
    rows += [(name, f"failed: {error}", *[""] * (len(head) - 2)) for name, error in evaluation.errors.items()]
    return table(head, rows)


def _cells(name: str, comparer: Comparer) -> tuple[str, ...]:
    found = comparer.compare(name).comparison
    drop = found.map_drop
    return (
        f"{found.fidelity.value:.3f}",
        f"{found.fidelity.low:.3f} to {found.fidelity.high:.3f}",
        f"{drop.value * 100:+.2f}" if drop else "",
        f"{drop.low * 100:+.2f} to {drop.high * 100:+.2f}" if drop else "",
        f"{found.confidence_shift:+.4f}",
        f"{found.box_iou:.4f}",
    )


def progress(done: int, total: int, what: str) -> None:
    """Draw one line on standard error."""
    print(f"\r{done}/{total} {what:<50.50}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def print_report(
    arguments: Sequence[str], defaults: Mapping[str, str], usage: str, run: Callable[[Mapping[str, str]], str]
) -> int:
    """A comparison tool's ``main``: read options, measure, print, and write the file that ``out`` names.

    Returns:
        The exit code: 2 for an option, a model or data that cannot be used.
    """
    options = parse_options(arguments, defaults, usage)
    try:
        text = run(options)
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print(text)
    if options["out"]:
        Path(options["out"]).write_text(text, encoding="utf-8")
    return 0
