"""What calibration costs: every runtime's plan, simulated, with and without ranges that see the score.

Each model is calibrated once on the first data set's training images and solved once per scheme and recipe: as errors
of values (``plain``), by what they do to the detections (``aware``), and that with class scores shifted back
(``default``, what ``yoloquant quantize`` does). All plans are then scored against the float model on the validation
images of every data set, alone and pooled.

    python tools/benchmark_ranges.py models=yolo11n.pt,yolov8n.pt data=a.yaml,b.yaml cache=/tmp/ranges

What ``yoloquant export`` has made of the models is scored beside it (``exports=``): each file by its own runtime,
TensorRT's by the grid that it holds, since no CPU runs an engine. ``recipes=none`` scores nothing else.

A model's name may end in ``@end2end`` or ``@nms`` to choose the head of a model that has both.

Options (``key=value`` or ``--key value``): models, data, schemes (tensorrt,litert,openvino,onnxruntime), recipes
(plain,default), exports (none; an export folder of each model, in the same order), imgsz (640), images (128,
calibration), limit (none; score only so many images of each set), threads (2), bootstrap (1000), cache (a folder; plans
and predictions that it holds are not made again, so that an interrupted run goes on; plans are kept by this program's
own source, so that a changed calibration is run anew), out (a Markdown file).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tools.bench.grid_runner import GridFile, GridRunner
from tools.bench.pooled import pooled
from tools.bench.simulated import BASELINE, print_report, progress, scheme_named
from tools.bench.table import table
from tools.options import positive
from yoloquant.bridge.checkpoint import load_model
from yoloquant.data.calibration import CalibrationOptions, CalibrationSet, calibration_set
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import UsageError
from yoloquant.evaluation.bootstrap import BootstrapOptions, image_weights, interval
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from yoloquant.graph.traced_model import TracedModel
from yoloquant.io import atomic_path, write_text
from yoloquant.quantization.bias_overflow import without_bias_overflow
from yoloquant.quantization.calibrate import Solver, observe, solve_plan
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.range_options import CalibrationRecipe
from yoloquant.quantization.saturation import IMAGES as SAFE_IMAGES
from yoloquant.quantization.saturation import with_safe_weights
from yoloquant.quantization.scheme import derive
from yoloquant.quantization.score_shift import IMAGES as SHIFT_IMAGES
from yoloquant.quantization.score_shift import score_shifts
from yoloquant.runtime.core.detections import Selection
from yoloquant.targets import registry as targets
from yoloquant.targets.base import Runner
from yoloquant.targets.exports import content_sha256, load_exports
from yoloquant.types import ExportedModel, HeadLayout

DEFAULTS = {
    "models": "yolo11n.pt",
    "data": "coco8.yaml",
    "schemes": "tensorrt,litert,openvino,onnxruntime",
    "recipes": "plain,default",
    "exports": "none",
    "imgsz": "640",
    "images": "128",
    "limit": "none",
    "threads": "2",
    "bootstrap": "1000",
    "cache": "",
    "out": "",
}
RECIPES = {
    "plain": CalibrationRecipe(output_aware=False, score_shift=False),
    "aware": CalibrationRecipe(score_shift=False),
    "default": CalibrationRecipe(),
}
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
        bias: What each adds to biases.
        seconds: What calibration took, by step; empty where it was made before.
    """

    name: str
    traced: TracedModel
    plans: Mapping[str, Plan]
    bias: Mapping[str, Mapping[str, np.ndarray]]
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
    stem = Path(path).stem + (f" {head}" if head else "")
    sample = calibration_set(options["data"].split(",")[0], CalibrationOptions(images=positive(options["images"])))
    asked = [source_hash(), model.sha256, head, str(traced.info.imgsz), sample.sha256, options["schemes"], str(recipes)]
    kept = Path(options["cache"]) / f"plans-{_digest(*asked)}.json" if options["cache"] else None
    if kept is not None and kept.is_file():
        stored = json.loads(kept.read_text())
        bias = {k: {p: np.float32(v) for p, v in b.items()} for k, b in stored["bias"].items()}
        return Subject(stem, traced, {k: Plan.from_json(v) for k, v in stored["plans"].items()}, bias, {})
    subject = calibrated(stem, traced, sample, options["schemes"].split(","), recipes)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        plans = {k: p.to_json() for k, p in subject.plans.items()}
        lists = {k: {p: v.tolist() for p, v in b.items()} for k, b in subject.bias.items()}
        write_text(kept, json.dumps({"plans": plans, "bias": lists}))
    return subject


def calibrated(
    name: str,
    traced: TracedModel,
    sample: CalibrationSet,
    schemes: Sequence[str],
    recipes: Mapping[str, CalibrationRecipe],
) -> Subject:
    """Solve every scheme with every recipe, from one observation of the calibration images."""
    graph = traced.graph
    derived = [derive(graph, scheme_named(scheme)) for scheme in schemes]
    start = time.perf_counter()

    def few(count: int) -> Iterator[np.ndarray]:
        return islice(sample.tensors(traced.info.imgsz, traced.info.task), count)

    def safe(plan: Plan) -> Plan:
        clamps = scheme_named(plan.scheme).sums_in_16_bits
        return without_bias_overflow(graph, with_safe_weights(graph, [plan], few(SAFE_IMAGES))[0] if clamps else plan)

    tensors = sample.tensors(traced.info.imgsz, traced.info.task)
    plans: dict[str, Plan] = {}
    bias: dict[str, Mapping[str, np.ndarray]] = {}
    if not recipes:
        return Subject(name, traced, plans, bias, {})
    seen = observe(graph, derived, tensors, progress=lambda done, what: progress(done, len(sample), f"{name} {what}"))
    seconds = {"observe": time.perf_counter() - start}
    for label, recipe in recipes.items():
        start, solver = time.perf_counter(), Solver(seen, recipe)
        solved = [safe(solve_plan(graph, plan, seen, solver=solver)) for plan in derived]
        plans |= {f"{plan.scheme} {label}": plan for plan in solved}
        if recipe.score_shift:
            shifts = score_shifts(graph, solved, few(SHIFT_IMAGES))
            bias |= {f"{scheme} {label}": found for scheme, found in shifts.items()}
        seconds[label] = time.perf_counter() - start
    return Subject(name, traced, plans, bias, seconds)


def source_hash() -> str:
    """SHA-256 of the code that calibrates."""
    package = Path(__file__).resolve().parents[1] / "yoloquant"
    files = [f for part in ("quantization", "graph", "targets") for f in sorted((package / part).rglob("*.py"))]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _chosen(names: str) -> dict[str, CalibrationRecipe]:
    if names == "none":
        return {}
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in RECIPES]
    if unknown:
        raise UsageError(f"recipe '{unknown[0]}' is unknown; allowed are {', '.join(RECIPES)}")
    return {name: RECIPES[name] for name in wanted}


def opened_by(exported: ExportedModel, threads: int) -> Runner:
    """An artifact in its own runtime."""
    return targets.get(exported.target).load(exported, threads)


def score(
    subject: Subject, exports: Sequence[ExportedModel], data: ValidationSet, options: Mapping[str, str]
) -> Evaluation:
    """Run the float model, every simulated plan and every artifact over the images that the cache lacks."""
    threads, graph = positive(options["threads"]), subject.traced.graph
    cache = Path(options["cache"]) if options["cache"] else None
    info, model = subject.traced.info, f"{subject.traced.model.sha256}{subject.traced.info.end2end}"
    grids = {BASELINE: (GridRunner(graph, None, threads), "float")}
    for name, plan in subject.plans.items():
        bias = subject.bias.get(name, {})
        moved = "".join(f"{path}{value.tolist()}" for path, value in sorted(bias.items()))
        grids[name] = GridRunner(graph, plan, threads, bias), plan.digest() + moved
    runners: dict[str, Runner] = {}
    for name, (grid, computed) in grids.items():
        runners[name] = CachedRunner(grid, cache / _digest(model, str(info.imgsz), computed) if cache else None)
    for exported in exports:
        opened = GridFile(exported, threads) if exported.target == "tensorrt" else opened_by(exported, threads)
        kept = cache / _digest("artifact", content_sha256(exported.path)) if cache else None
        runners[f"{exported.name} artifact"] = CachedRunner(opened, kept)
    label = f"{subject.name} {Path(data.source).stem}"
    tick = lambda done, total, _: progress(done, total, label)  # noqa: E731
    return evaluate(runners, data, EvaluateOptions(), progress=tick)


def f1(evaluation: Evaluation, name: str, weights: np.ndarray) -> np.ndarray:
    """F1 over all classes of the detections above 0.25, per row of image weights (rows, images), in points."""
    record = evaluation.records[name]
    counts = np.zeros((3, len(evaluation.data)))
    for i, (found, matches) in enumerate(zip(record.detections, record.label_matches, strict=True)):
        confident = found.confidence > CONFIDENCE
        counts[:, i] = (confident & (matches.partner >= 0)).sum(), confident.sum(), len(evaluation.labels[i].classes)
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
    models = options["models"].split(",")
    folders = [None] * len(models) if options["exports"] == "none" else options["exports"].split(",")
    if len(folders) != len(models):
        raise UsageError(f"exports= names {len(folders)} folders and models= {len(models)} models; give one for each")
    for name, exported in zip(models, folders, strict=True):
        subject = prepare(name, options)
        found = load_exports(exported) if exported else ()
        parts = [score(subject, found, data, options) for data in sets]
        for evaluation in [*parts, *([pooled(parts)] if len(parts) > 1 else [])]:
            lines += rows(subject, evaluation, bootstrap)
        if subject.seconds:
            spent.append(f"{subject.name} " + ", ".join(f"{what} {s:.0f} s" for what, s in subject.seconds.items()))
    size, images = options["imgsz"], options["images"]
    text = f"Simulated (the grid in float) at {size} pixels, calibrated on {images} training images"
    return f"{text}{' (' + '; '.join(spent) + ')' if spent else ''}.\n\n{table(HEAD, lines)}\n"


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and print its table."""
    return print_report(arguments, DEFAULTS, __doc__ or "", run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
