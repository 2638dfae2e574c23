"""What is lost at the deployed confidence, and what remains of it at matched confidences: from recorded results.

    python tools/compare_matched.py results=report/results.npz data=set.yaml

``results`` is the ``results.npz`` of a report: its first row is the FP32 model, every other one an artifact. For each
of them: the loss of F1 at the deployed confidence, and at the confidence matched by false alarms and by F1, in common
and class by class. There a confidence is chosen on the images that it is judged on; ``halves`` times it is also chosen
on a random half of them and judged on the other, and the mean loss of those is told.

Options (``key=value`` or ``--key value``): results, data, split (val), conf (0.25), halves (100), seed (0), out (a
Markdown file).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from options import parse_options

from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer, class_confidences
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from yoloquant.evaluation.match_by import MatchBy
from yoloquant.evaluation.operating import rates
from yoloquant.evaluation.results import Interval
from yoloquant.predictions.results_file import ResultsFile

DEFAULTS = {
    "results": "",
    "data": "",
    "split": "val",
    "conf": "0.25",
    "halves": "100",
    "seed": "0",
    "out": "",
}


def recorded(file: ResultsFile, data: str, split: str) -> Evaluation:
    """Every row of the file on the images."""
    images = ValidationSet.open(data, file.header.info, split=split).for_classes(file.header.info.names)
    images = images.require_labels()
    models = {name: file.model(name, images) for name in file.names}
    return evaluate({}, images, EvaluateOptions(baseline=file.names[0]), recorded=models)


def held_out(comparer: Comparer, name: str, halves: int, seed: int) -> tuple[float, float]:
    """Mean loss of F1 on one half of the images, at confidences matched on the other: in common, and per class."""
    evaluation, conf = comparer.evaluation, comparer.conf
    before, after = comparer.counted(evaluation.options.baseline), comparer.counted(name)
    rng, losses, images = np.random.default_rng(seed), [], len(evaluation.data)
    half = Comparer(evaluation, BootstrapOptions(replicates=2), conf, comparer.match)
    for _ in range(halves):
        half.weights = np.zeros((1, images))
        half.weights[0, rng.choice(images, images // 2, replace=False)] = 1
        found, others = half.matched_conf(name), 1 - half.weights
        if found is None:
            continue
        each = class_confidences(evaluation.names, found.value, half.matched_per_class(name))
        wanted = rates(before, conf, others).f1[0]
        own = found.value, np.array(each, np.float32)
        losses.append([float(wanted - rates(after, at, others).f1[0]) for at in own])
    common, per_class = np.mean(losses, axis=0) if losses else (float("nan"), float("nan"))
    return float(common), float(per_class)


def rows(evaluation: Evaluation, conf: float, halves: int, seed: int) -> Iterator[list[str]]:
    """Rows of every artifact: as it is deployed, and for every way to match in common and per class."""
    for name in evaluation.records:
        if name == evaluation.options.baseline:
            continue
        for index, match in enumerate(MatchBy):
            comparer = Comparer(evaluation, BootstrapOptions(), conf, match)
            comparison = comparer.compare(name).comparison
            lost, own, named = comparison.intervals, comparison.matched_conf, comparison.matched_conf_per_class
            if not index:
                shift = f"confidences move by {comparison.confidence_shift:+.3f}"
                yield [name, f"{conf:g}", f"deployed ({shift})", _points(lost["f1_drop"]), ""]
            if own is None:
                continue
            each = class_confidences(evaluation.names, own.value, named)
            common, per_class = (f"{value * 100:+.2f}" for value in held_out(comparer, name, halves, seed))
            title = f"matched by {match.value.replace('_', ' ')}"
            yield [name, f"{own.value:.3f}", title, _points(lost["matched_f1_drop"]), common]
            place, title = f"{min(each):.3f} to {max(each):.3f}", f"{title}, per class ({len(named)})"
            yield [name, place, title, _points(lost["matched_per_class_f1_drop"]), per_class]


def _points(drop: Interval) -> str:
    return f"{drop.value * 100:+.2f} [{drop.low * 100:+.2f}, {drop.high * 100:+.2f}]"


def main(arguments: Sequence[str]) -> int:
    """Print a table."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    if not (options["results"] and options["data"]):
        print("give results= and data=; --help says more", file=sys.stderr)
        return 2
    evaluation = recorded(ResultsFile(Path(options["results"])), options["data"], options["split"])
    conf, halves, seed = float(options["conf"]), int(options["halves"]), int(options["seed"])
    base = Comparer(evaluation, BootstrapOptions(replicates=2), conf).operating(evaluation.options.baseline)
    assert base is not None and base.f1 is not None
    lines = [
        f"FP32 reaches F1 {base.f1.value * 100:.2f} at {conf:g} on {len(evaluation.data)} images.",
        "",
        "| artifact | confidence | | loss of F1, points | on the other half |",
        "|---|---:|---|---:|---:|",
        *(f"| {' | '.join(row)} |" for row in rows(evaluation, conf, halves, seed)),
    ]
    print("\n".join(lines))
    if options["out"]:
        Path(options["out"]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
