"""How often ``yoloquant compare`` errs: many samples of the images, from results that were recorded once.

Usage: python tools/simulate_releases.py old=a/results.npz new=b/results.npz data=set.yaml [key=value ...]

``old`` and ``new`` are ``results.npz`` of two reports (the last row of each; ``results.npz:row`` names another). The
images are the population: samples of them are drawn with replacement, judged as ``compare`` judges them and counted:
the verdicts, in how many ``compare`` would say "no difference beyond" the gate's margin, and in how many the 95 %
interval of a drop holds 0.

Options: data, split (val), gate (release), trials (200), size (images of a sample; as many as there are if empty),
replicates (200), seed (0), conf (0.25).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from options import parse_options
from simulate_gate import sample_weights, verdict_of

from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.conclusion import ALIKE, conclusion
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from yoloquant.evaluation.gate import Gate, load_gate
from yoloquant.evaluation.results import Comparison
from yoloquant.predictions.results_file import ResultsFile

DEFAULTS = {
    "old": "",
    "new": "",
    "data": "",
    "split": "val",
    "gate": "release",
    "trials": "200",
    "size": "",
    "replicates": "200",
    "seed": "0",
    "conf": "0.25",
}
OLD, NEW = "old", "new"


def recorded(old: str, new: str, data: str, split: str) -> tuple[Evaluation, bool]:
    """Both releases on the images, matched with the labels and with each other; and whether of the same weights."""
    models, weights = {}, []
    images: ValidationSet | None = None
    for name, text in ((OLD, old), (NEW, new)):
        path, _, row = text.partition(".npz:")
        file = ResultsFile(Path(f"{path}.npz" if row else text))
        if images is None:
            info = file.header.info
            images = ValidationSet.open(data, info, split=split).for_classes(info.names).require_labels()
        models[name] = file.model(row or file.names[-1], images)
        weights.append(file.row(row or file.names[-1]).weights)
    assert images is not None
    evaluation = evaluate({}, images, EvaluateOptions(baseline=OLD), recorded=models)
    return evaluation, bool(weights[0]) and weights[0] == weights[1]


def samples(
    comparer: Comparer, gate: Gate, trials: int, size: int, replicates: int, seed: int, *, same_model: bool
) -> Counter[str]:
    """Verdicts by name, "no difference", and how many intervals hold 0 by the name of what they are of."""
    found: Counter[str] = Counter()
    images = len(comparer.evaluation.data)
    for trial in range(trials):
        weights = sample_weights(images, size, replicates, np.random.default_rng([seed, size, trial]))
        resampled = comparer.resampled(NEW, weights)
        measured = comparer.measurements(Comparison(None, None, resampled.intervals["fidelity"]), resampled, weights)
        if same_model:
            measured = measured.of_same_model()
        found[verdict_of(gate, measured)[0].value] += 1
        text = conclusion(gate.check("simulated", measured)[0], comparer.evaluation.task.metrics[0])
        found[f'said "{ALIKE} ..."'] += text.startswith(ALIKE)
        for name, interval in resampled.intervals.items():
            found[f"{name} holds 0"] += name.endswith("_drop") and interval.low <= 0 <= interval.high
    return found


def main(arguments: Sequence[str]) -> int:
    """Print a table."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    if not (options["old"] and options["new"] and options["data"]):
        print("give old=, new= and data=; --help says more", file=sys.stderr)
        return 2
    evaluation, same_model = recorded(options["old"], options["new"], options["data"], options["split"])
    comparer = Comparer(evaluation, BootstrapOptions(replicates=1000), float(options["conf"]))
    trials, size = int(options["trials"]), int(options["size"] or len(evaluation.data))
    comparison = comparer.compare(NEW).comparison
    drop = comparison.map_drop
    assert drop is not None
    print(
        f"{len(evaluation.data)} images: mAP50-95 drop {drop.value * 100:+.2f} points ({drop.low * 100:+.2f} to "
        f"{drop.high * 100:+.2f}), fidelity {comparison.fidelity.value:.4f}"
    )
    replicates, seed = int(options["replicates"]), int(options["seed"])
    counts = samples(comparer, load_gate(options["gate"]), trials, size, replicates, seed, same_model=same_model)
    print(f"{trials} samples of {size} images, gate {options['gate']}:")
    for name, count in sorted(counts.items()):
        if count:
            print(f"- {name}: {count} ({count / trials:.1%})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
