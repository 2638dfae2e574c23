"""Which algorithm should find the ranges? The measurement behind the defaults of ``CalibrationRecipe``.

    python tools/compare_ranges.py model=../shared/weights/yolo11n.pt data=../shared/data/coco256/coco256.yaml

Every recipe solves the ranges of one scheme's plan from the same observation of training images; the plan is simulated
in PyTorch and all simulations are scored in one pass, by fidelity (mAP50-95 against the FP32 model's own detections)
and mAP drop. First one algorithm everywhere, then the default, then the default with one role changed.

Options (``key=value`` or ``--key value``): model, data, imgsz (640), images (128, calibration), split (val), limit
(none; score only so many images), scheme (litert), recipes (all, or names of the table's first column, separated by
``;``), threads (2), bootstrap (1000), out (a Markdown file; default: printed only).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine

import numpy as np

from tools.bench.table import table
from tools.options import parse_options
from yoloquant import targets
from yoloquant.artifact import Artifact
from yoloquant.calibration import CalibrationOptions, calibration_set
from yoloquant.errors import UsageError, YoloquantError
from yoloquant.float_runner import TorchRunner
from yoloquant.host import check_imgsz, load_model, model_info
from yoloquant.options import positive
from yoloquant.quant.calibrate import observe, solve_plan
from yoloquant.quant.observers import Algorithm, CalibrationRecipe
from yoloquant.quant.plan import Plan
from yoloquant.quant.repair import correct_bias
from yoloquant.quant.scheme import PORTABLE, Scheme, derive
from yoloquant.quant.simulate import simulate
from yoloquant.targets.base import Runner
from yoloquant.validation.bootstrap import BootstrapOptions
from yoloquant.validation.compare import Comparer
from yoloquant.validation.data import ValidationSet
from yoloquant.validation.engine import Evaluation, evaluate

BASELINE = "fp32"
DEFAULT = "default"
DEFAULTS = {
    "model": "yolo11n.pt",
    "data": "coco8.yaml",
    "imgsz": "640",
    "images": "128",
    "split": "val",
    "limit": "none",
    "scheme": "litert",
    "recipes": "all",
    "threads": "2",
    "bootstrap": "1000",
    "out": "",
}
CORRECTED = f"{DEFAULT}, bias correction"
REPAIR_IMAGES = 16
HEAD = ("ranges", "fidelity", "[95 %]", "drop, points", "[95 %]", "confidence shift", "box IoU")
EVERYWHERE = (Algorithm.MINMAX, Algorithm.PERCENTILE, Algorithm.ENTROPY, Algorithm.MSE)
AFTER = {"pre_activation": (Algorithm.MSE_SILU,), "score": (Algorithm.MSE_SIGMOID,)}
"""Algorithms that only make sense for one role: they know which function follows."""


@dataclass(frozen=True)
class Variant:
    """What is simulated.

    Attributes:
        plan: A calibrated plan.
        bias: Bias corrections by module path.
    """

    plan: Plan
    bias: dict[str, np.ndarray]


def everywhere(algorithm: Algorithm) -> CalibrationRecipe:
    """One algorithm for every kind of point; weights take it where they can, and min-max else."""
    weight = algorithm if algorithm in {Algorithm.MINMAX, Algorithm.MSE} else Algorithm.MINMAX
    return CalibrationRecipe(
        activation=algorithm, pre_activation=algorithm, score=algorithm, head=algorithm, weight=weight
    )


def recipes() -> dict[str, CalibrationRecipe]:
    """The recipes that are compared, by name."""
    default = CalibrationRecipe()
    found = {f"{algorithm.value} everywhere": everywhere(algorithm) for algorithm in EVERYWHERE}
    found["percentile 99.999 everywhere"] = replace(everywhere(Algorithm.PERCENTILE), percentile=99.999)
    found[DEFAULT] = default
    for role in (f.name for f in fields(CalibrationRecipe) if f.name != "percentile"):
        choices = (Algorithm.MINMAX, Algorithm.MSE) if role == "weight" else (*EVERYWHERE, *AFTER.get(role, ()))
        for algorithm in choices:
            if algorithm is not getattr(default, role):
                found[f"{DEFAULT}, {role} {algorithm.value}"] = replace(default, **{role: algorithm})  # type: ignore[arg-type]
    found[CORRECTED] = default
    return found


def chosen(names: str) -> dict[str, CalibrationRecipe]:
    """Recipes by name; ``all`` for every one. Names are separated by ``;`` because some hold a comma.

    Raises:
        UsageError: A name is unknown.
    """
    known = recipes()
    if names == "all":
        return known
    wanted = [name.strip() for name in names.split(";") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise UsageError(f"recipe '{'; '.join(unknown)}' is unknown; allowed are {'; '.join(known)}")
    return {name: known[name] for name in wanted}


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


def solve_all(
    artifact: Artifact, scheme: Scheme, wanted: Mapping[str, CalibrationRecipe], data: str, images: int
) -> dict[str, Variant]:
    """The scheme's plan with the ranges of every recipe, from one observation.

    Raises:
        DataError: There are no usable training images.
        CalibrationError: There are too few.
    """
    sample = calibration_set(data, CalibrationOptions(images=images))
    plan = derive(artifact.graph, scheme)
    seen = observe(
        artifact.graph,
        [plan],
        sample.tensors(artifact.info.imgsz),
        progress=lambda done, what: progress(done, len(sample), what),
    )
    plans: dict[str, Variant] = {}
    for index, (name, recipe) in enumerate(wanted.items(), start=1):
        solved = solve_plan(artifact.graph, plan, seen, recipe)
        few = islice(sample.tensors(artifact.info.imgsz), REPAIR_IMAGES)
        plans[name] = Variant(solved, correct_bias(artifact.graph, solved, few) if name == CORRECTED else {})
        progress(index, len(wanted), f"solved {name}")
    return plans


def score(artifact: Artifact, plans: Mapping[str, Variant], data: ValidationSet, threads: int) -> Evaluation:
    """Simulate every plan beside the float model."""
    runners: dict[str, Runner] = {BASELINE: TorchRunner(artifact.graph.module, artifact.info, threads)}
    for name, variant in plans.items():
        module = simulate(artifact.graph, variant.plan, bias=variant.bias)
        runners[name] = TorchRunner(module, artifact.info, threads)
    return evaluate(runners, data, progress=progress)


def report(evaluation: Evaluation, bootstrap: int) -> str:
    """The Markdown table, in the order of the recipes."""
    comparer = Comparer(evaluation, BootstrapOptions(replicates=bootstrap))
    rows: list[tuple[str, ...]] = []
    for name in evaluation.records:
        if name == BASELINE:
            continue
        found = comparer.compare(name).comparison
        drop = found.map_drop
        rows.append(
            (
                name,
                f"{found.fidelity.value:.3f}",
                f"{found.fidelity.low:.3f} to {found.fidelity.high:.3f}",
                f"{drop.value * 100:+.2f}" if drop else "",
                f"{drop.low * 100:+.2f} to {drop.high * 100:+.2f}" if drop else "",
                f"{found.confidence_shift:+.4f}",
                f"{found.box_iou:.4f}",
            )
        )
    rows += [(name, f"failed: {error}", *[""] * (len(HEAD) - 2)) for name, error in evaluation.errors.items()]
    return table(HEAD, rows)


def progress(done: int, total: int, what: str) -> None:
    """Draw one line on standard error."""
    print(f"\r{done}/{total} {what:<50.50}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def run(options: Mapping[str, str]) -> str:
    """Measure.

    Returns:
        The report.

    Raises:
        YoloquantError: The model, the data or an option cannot be used.
        argparse.ArgumentTypeError: A value is of the wrong type.
    """
    import torch

    threads, images, bootstrap = (positive(options[key]) for key in ("threads", "images", "bootstrap"))
    limit = None if options["limit"] == "none" else positive(options["limit"])
    wanted, scheme = chosen(options["recipes"]), scheme_named(options["scheme"])
    torch.set_num_threads(threads)
    model = load_model(options["model"])
    artifact = Artifact(model, model_info(model, check_imgsz(positive(options["imgsz"]), model.stride)), {})
    data = ValidationSet.from_yaml(options["data"], split=options["split"]).take(limit)
    plans = solve_all(artifact, scheme, wanted, options["data"], images)
    text = report(score(artifact, plans, data, threads), bootstrap)
    intro = (
        f"{Path(options['model']).name}, scheme {scheme.name} simulated in PyTorch, calibrated on {images} training "
        f"images, scored on {len(data)} images of {Path(options['data']).name} ({data.split}), imgsz "
        f"{options['imgsz']}."
    )
    return f"{intro}\n\n{text}\n"


def main(arguments: Sequence[str]) -> int:
    """Run the comparison and print its table."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    try:
        text = run(options)
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print(text)
    if options["out"]:
        Path(options["out"]).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
