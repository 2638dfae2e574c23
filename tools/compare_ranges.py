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

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine

from tools.bench import simulated
from tools.bench.simulated import Subject, Variant, print_report, progress, scheme_named, score
from yoloquant.data.calibration import CalibrationOptions, calibration_set
from yoloquant.errors import UsageError
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.quantization.calibrate import observe, solve_plan
from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe
from yoloquant.quantization.scheme import Scheme, derive

DEFAULT = "default"
DEFAULTS = {**simulated.DEFAULTS, "scheme": "litert", "recipes": "all"}
EVERYWHERE = (Algorithm.MINMAX, Algorithm.PERCENTILE, Algorithm.ENTROPY, Algorithm.MSE)
NOT_ROLES = frozenset({"percentile", "output_aware", "score_shift"})
AFTER = {"pre_activation": (Algorithm.MSE_SILU,), "score": (Algorithm.MSE_SIGMOID,)}
"""Algorithms that only make sense for one role: they know which function follows."""


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
    for role in (f.name for f in fields(CalibrationRecipe) if f.name not in NOT_ROLES):
        choices = (Algorithm.MINMAX, Algorithm.MSE) if role == "weight" else (*EVERYWHERE, *AFTER.get(role, ()))
        for algorithm in choices:
            if algorithm is not getattr(default, role):
                found[f"{DEFAULT}, {role} {algorithm.value}"] = replace(default, **{role: algorithm})  # type: ignore[arg-type]
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


def solve_all(subject: Subject, scheme: Scheme, wanted: Mapping[str, CalibrationRecipe]) -> dict[str, Variant]:
    """The scheme's plan with the ranges of every recipe, from one observation.

    Raises:
        DataError: There are no usable training images.
        CalibrationError: There are too few.
    """
    graph, imgsz = subject.artifact.graph, subject.artifact.info.imgsz
    sample = calibration_set(subject.source, CalibrationOptions(images=subject.images))
    plan = derive(graph, scheme)
    seen = observe(graph, [plan], sample.tensors(imgsz), progress=lambda done, what: progress(done, len(sample), what))
    plans: dict[str, Variant] = {}
    for index, (name, recipe) in enumerate(wanted.items(), start=1):
        solved = solve_plan(graph, plan, seen, recipe)
        plans[name] = Variant(solved)
        progress(index, len(wanted), f"solved {name}")
    return plans


def run(options: Mapping[str, str]) -> str:
    """Measure.

    Returns:
        The report.

    Raises:
        YoloquantError: The model, the data or an option cannot be used.
        argparse.ArgumentTypeError: A value is of the wrong type.
    """
    wanted, scheme = chosen(options["recipes"]), scheme_named(options["scheme"])
    subject = Subject.load(options)
    evaluation = score(subject, solve_all(subject, scheme, wanted))
    comparer = Comparer(evaluation, BootstrapOptions(replicates=subject.bootstrap))
    return f"{subject.introduction(f'scheme {scheme.name}')}\n\n{simulated.report('ranges', comparer)}\n"


def main(arguments: Sequence[str]) -> int:
    """Run the comparison and print its table."""
    return print_report(arguments, DEFAULTS, __doc__ or "", run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
