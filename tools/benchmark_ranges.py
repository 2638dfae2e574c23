"""What calibration costs: every runtime's plan, simulated, with and without ranges that see the score.

Each model is calibrated once on the first data set's training images and solved twice per scheme: as errors of values
(``plain``) and by what they do to the detections (``aware``, the default of ``yoloquant quantize``). All plans are then
scored against the float model on the validation images of every data set, alone and pooled.

    python tools/benchmark_ranges.py models=yolo11n.pt,yolov8n.pt data=a.yaml,b.yaml cache=/tmp/ranges

A model's name may end in ``@end2end`` or ``@nms`` to choose the head of a model that has both.

Options (``key=value`` or ``--key value``): models, data, schemes (tensorrt,litert,openvino), recipes (plain,aware),
imgsz (640), images (128, calibration), limit (none; score only so many images of each set), threads (2), bootstrap
(1000), cache (a folder; what it holds is not run again, so that an interrupted run goes on), out (a Markdown file).
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tools.bench.simulated import BASELINE, print_report, progress, scheme_named
from tools.bench.table import table
from tools.options import positive
from yoloquant.bridge.checkpoint import load_model
from yoloquant.data.calibration import CalibrationOptions, calibration_set
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import UsageError
from yoloquant.evaluation.bootstrap import BootstrapOptions, image_weights, interval
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.graph.traced_model import TracedModel
from yoloquant.io import atomic_path
from yoloquant.quantization.bias_overflow import with_bias_room
from yoloquant.quantization.calibrate import Solver, observe, solve_plan
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.range_options import CalibrationRecipe
from yoloquant.quantization.scheme import derive
from yoloquant.quantization.simulate import simulate
from yoloquant.runtime.core.detections import Selection
from yoloquant.targets.base import Runner
from yoloquant.types import HeadLayout

DEFAULTS = {
    "models": "yolo11n.pt",
    "data": "coco8.yaml",
    "schemes": "tensorrt,litert,openvino",
    "recipes": "plain,aware",
    "imgsz": "640",
    "images": "128",
    "limit": "none",
    "threads": "2",
    "bootstrap": "1000",
    "cache": "",
    "out": "",
}
RECIPES = {"plain": CalibrationRecipe(output_aware=False), "aware": CalibrationRecipe()}
HEADS = {"end2end": True, "nms": False}
CONFIDENCE = 0.25  # where F1 is taken, of detections matched at an IoU of 0.5
HEAD = ("model", "images", "plan", "drop, points [95 %]", "fidelity [95 %]", "confidence shift", "F1 at 0.25 [95 %]")


class CachedRunner(Runner):
    """Another runner whose outputs are kept on disk, by what it computes and by the image.

    Args:
        inner: Computes what the cache lacks.
        folder: Where outputs are kept; None to keep none.
    """

    def __init__(self, inner: Runner, folder: Path | None) -> None:
        self.inner, self.folder = inner, folder
        self.info, self.layout = inner.info, inner.layout

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """The drop-in output, without anchors that no selection would look at."""
        if self.folder is None:
            return (self._computed(image),)
        path = self.folder / f"{hashlib.sha256(image.tobytes()).hexdigest()[:24]}.npy"
        if path.is_file():
            return (np.load(path),)
        array = self._computed(image)
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
        return (array,)

    def _computed(self, image: np.ndarray) -> np.ndarray:
        array = np.asarray(self.inner(image)[0], np.float32)
        if self.layout is HeadLayout.END2END:
            return array
        return np.ascontiguousarray(array[:, :, array[0, 4:].max(0) > Selection().conf])


@dataclass(frozen=True)
class Subject:
    """One model and its plans.

    Attributes:
        name: As in the table.
        traced: The float model.
        plans: Calibrated plans by their name in the table.
        seconds: What calibration took, by step.
    """

    name: str
    traced: TracedModel
    plans: Mapping[str, Plan]
    seconds: Mapping[str, float]


def prepare(name: str, options: Mapping[str, str]) -> Subject:
    """Load a model, observe its calibration images once, and solve every scheme with every recipe.

    Raises:
        YoloquantError: The model, the data or an option cannot be used.
    """
    path, _, head = name.partition("@")
    model = load_model(path)
    if head:
        if head not in HEADS:
            raise UsageError(f"'{name}' names the head '{head}'; allowed are {', '.join(HEADS)}")
        model.module.end2end = HEADS[head]
    recipes = _chosen(options["recipes"])
    traced = TracedModel.of(model, positive(options["imgsz"]))
    derived = [derive(traced.graph, scheme_named(scheme)) for scheme in options["schemes"].split(",")]
    sample = calibration_set(options["data"].split(",")[0], CalibrationOptions(images=positive(options["images"])))
    start = time.perf_counter()
    seen = observe(
        traced.graph,
        derived,
        sample.tensors(traced.info.imgsz, traced.info.task),
        progress=lambda done, what: progress(done, len(sample), f"{Path(path).stem} {what}"),
    )
    seconds = {"observe": time.perf_counter() - start}
    plans: dict[str, Plan] = {}
    for label, recipe in recipes.items():
        start, solver = time.perf_counter(), Solver(seen, recipe)
        for plan in derived:
            solved = solve_plan(traced.graph, plan, seen, solver=solver)
            plans[f"{plan.scheme} {label}"] = with_bias_room(traced.graph, solved)
        seconds[label] = time.perf_counter() - start
    stem = Path(path).stem + (f" {head}" if head else "")
    return Subject(stem, traced, plans, seconds)


def _chosen(names: str) -> dict[str, CalibrationRecipe]:
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in RECIPES]
    if unknown:
        raise UsageError(f"recipe '{unknown[0]}' is unknown; allowed are {', '.join(RECIPES)}")
    return {name: RECIPES[name] for name in wanted}


def score(subject: Subject, data: ValidationSet, options: Mapping[str, str]) -> Evaluation:
    """Run the float model and every simulated plan over the images that the cache lacks."""
    threads, graph = positive(options["threads"]), subject.traced.graph
    cache = Path(options["cache"]) if options["cache"] else None
    runners: dict[str, Runner] = {}
    for name, module in [(BASELINE, graph.module), *((n, simulate(graph, p)) for n, p in subject.plans.items())]:
        plan = subject.plans[name].digest() if name != BASELINE else "float"
        computed = f"{subject.traced.model.sha256}{subject.traced.info.end2end}{subject.traced.info.imgsz}{plan}"
        folder = cache / hashlib.sha256(computed.encode()).hexdigest()[:24] if cache else None
        runners[name] = CachedRunner(TorchRunner(module, subject.traced.info, threads), folder)
    label = f"{subject.name} {Path(data.source).stem}"
    tick = lambda done, total, _: progress(done, total, label)  # noqa: E731
    return evaluate(runners, data, EvaluateOptions(warmup=0), progress=tick)


def pooled(parts: Sequence[Evaluation]) -> Evaluation:
    """Several evaluations of the same runners as one.

    Raises:
        UsageError: A runner failed on one of the sets.
    """
    first = parts[0]
    names = [name for name in first.records if all(name in part.records for part in parts)]
    images = tuple(image for part in parts for image in part.data.images)
    data = replace(first.data, images=images, source="all")
    records = {
        name: replace(
            first.records[name],
            detections=[d for p in parts for d in p.records[name].detections],
            label_matches=[m for p in parts for m in p.records[name].label_matches],
            reference_matches=[m for p in parts for m in p.records[name].reference_matches],
            infer_ms={},
            select_ms=[],
        )
        for name in names
    }
    return replace(
        first,
        data=data,
        letterboxes=[b for p in parts for b in p.letterboxes],
        labels=[t for p in parts for t in p.labels],
        references=[t for p in parts for t in p.references],
        records=records,
    )


def f1(evaluation: Evaluation, name: str, weights: np.ndarray) -> np.ndarray:
    """F1 over all classes of the detections above 0.25, per row of image weights (rows, images), in points."""
    record = evaluation.records[name]
    counts = np.zeros((3, len(evaluation.data)))
    for i, (found, matches) in enumerate(zip(record.detections, record.label_matches, strict=True)):
        sure = found.confidence > CONFIDENCE
        counts[:, i] = (sure & (matches.partner >= 0)).sum(), sure.sum(), len(evaluation.labels[i].classes)
    right, said, there = weights @ counts.T[:, 0], weights @ counts.T[:, 1], weights @ counts.T[:, 2]
    return 200 * right / np.maximum(said + there, 1e-9)


def rows(subject: Subject, evaluation: Evaluation, bootstrap: BootstrapOptions) -> list[tuple[str, ...]]:
    """The table's rows of one model on one set."""
    comparer = Comparer(evaluation, bootstrap)
    weights = image_weights(len(evaluation.data), bootstrap)
    base = f1(evaluation, BASELINE, weights)
    source = Path(evaluation.data.source).stem
    lines = []
    for name in (n for n in evaluation.records if n != BASELINE):
        found = comparer.compare(name).comparison
        change = interval(f1(evaluation, name, weights) - base, bootstrap.level)
        drop, fidelity = found.map_drop, found.fidelity
        lines.append(
            (
                subject.name,
                f"{len(evaluation.data)} {source}",
                name,
                f"{drop.value * 100:+.2f} [{drop.low * 100:+.2f}, {drop.high * 100:+.2f}]" if drop else "",
                f"{fidelity.value:.3f} [{fidelity.low:.3f}, {fidelity.high:.3f}]",
                f"{found.confidence_shift:+.4f}",
                f"{change.value:+.2f} [{change.low:+.2f}, {change.high:+.2f}]",
            )
        )
    return lines


def run(options: Mapping[str, str]) -> str:
    """Measure.

    Returns:
        The report.

    Raises:
        YoloquantError: A model, the data or an option cannot be used.
        argparse.ArgumentTypeError: A value is of the wrong type.
    """
    import torch

    torch.set_num_threads(positive(options["threads"]))
    bootstrap = BootstrapOptions(replicates=positive(options["bootstrap"]))
    limit = None if options["limit"] == "none" else positive(options["limit"])
    sets = [ValidationSet.from_yaml(source).take(limit) for source in options["data"].split(",")]
    lines: list[tuple[str, ...]] = []
    spent = []
    for name in options["models"].split(","):
        subject = prepare(name, options)
        parts = [score(subject, data, options) for data in sets]
        for evaluation in [*parts, *([pooled(parts)] if len(parts) > 1 else [])]:
            lines += rows(subject, evaluation, bootstrap)
        spent.append(f"{subject.name} " + ", ".join(f"{what} {s:.0f} s" for what, s in subject.seconds.items()))
    text = f"Simulated in PyTorch at {options['imgsz']} pixels, calibrated on {options['images']} training images "
    return f"{text}({'; '.join(spent)}).\n\n{table(HEAD, lines)}\n"


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and print its table."""
    return print_report(arguments, DEFAULTS, __doc__ or "", run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
