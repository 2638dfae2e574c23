"""How often the release gate errs: the command itself, release after release, on results that were recorded once.

    python tools/study_releases.py models=yolo11n.pt,yolov8n.pt,yolo26n.pt data=coco256.yaml cache=found work=releases

``tools/simulate_gate.py`` says what its artifacts find on all images of a data set (``cache=`` keeps it); each of them
becomes a ``results.npz``, as a report leaves one. Then releases are drawn: one model, an *old* artifact that is sound
(FP32, rounded weights, a plan), a *new* one, and ``size`` different images. Each is judged by ``yoloquant compare
old=... new=... data=...``, whose exit code is counted.

What is true is what holds on all images, for every figure that the gate limits: a release is *harmless* if none exceeds
its limit, *harmful* if one is twice its limit or more (of a fidelity, what is missing to 1 counts). Releases of either
kind take turns; those between are not drawn, since no sample tells a loss of 0.9 points from one of 1.1. Wrong is a
pass of a harmful one and a fail of a harmless one.

Options (``key=value`` or ``--key value``): models, data (a yaml, or one for each model), split (val), imgsz (320),
calibration (16 images), cache, gate (release), trials (200), size (64 images), bootstrap (200), seed (0), work (a
folder, study_releases), out (a Markdown file).
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.options import parse_options
from tools.simulate_gate import QUANTIZED, TWIN, WRONG, detections
from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.host_model import model_info
from yoloquant.cli.main import main as command
from yoloquant.data.dataset import LabelledImage
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from yoloquant.evaluation.gate import Gate, load_gate
from yoloquant.evaluation.gate_metrics import SAME_MODEL
from yoloquant.evaluation.keep_results import keep_results
from yoloquant.evaluation.results import Accuracy
from yoloquant.evaluation.verdict import ArtifactInfo
from yoloquant.predictions.results_file import ResultsFile
from yoloquant.types import ModelInfo

DEFAULTS = {
    "models": "yolo11n.pt",
    "data": "coco8.yaml",
    "split": "val",
    "imgsz": "320",
    "calibration": "16",
    "cache": "",
    "gate": "release",
    "trials": "200",
    "size": "64",
    "bootstrap": "200",
    "seed": "0",
    "work": "study_releases",
    "out": "",
}
SOUND = ("fp32", *QUANTIZED)
"""What anybody would have released."""
KINDS = ("harmless", "harmful")
VERDICTS = {0: "pass", 1: "fail", 3: "inconclusive"}
"""Verdicts by the command's exit code."""


@dataclass(frozen=True)
class Population:
    """What every artifact of one model finds, and is worth, on all images.

    Attributes:
        model: The model's name.
        evaluation: What was found.
        worth: Accuracy of every artifact, by its name.
        boxes: Labelled boxes by class.
        files: The ``results.npz`` of every artifact, by its name.
        fidelity: Fidelity of a new artifact to an old one of the same FP32 model, by both their names.
    """

    model: str
    evaluation: Evaluation
    worth: Mapping[str, Accuracy]
    boxes: Mapping[str, int]
    files: Mapping[str, Path]
    fidelity: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Release:
    """One pair that can be drawn.

    Attributes:
        population: The model that both are artifacts of.
        old: Name of the last release.
        new: Name of the new one.
        drop: What the new one truly loses of mAP50-95.
    """

    population: Population
    old: str
    new: str
    drop: float


def population(name: str, evaluation: Evaluation, info: ModelInfo, work: Path, weights: str = "") -> Population:
    """Write every artifact's results as a report would leave them, and note what they are worth on all images.

    Args:
        name: The model's name.
        evaluation: What was found.
        info: The model.
        work: Where the results go.
        weights: Hash of its weights, as exports state it; without it nothing is known to be of one model.
    """
    comparer = Comparer(evaluation, BootstrapOptions(replicates=2))
    worth, files = {}, {}
    for index, (artifact, record) in enumerate(evaluation.records.items()):
        accuracy = comparer.accuracy(artifact)
        assert accuracy is not None, "the data have labels"
        worth[artifact] = accuracy
        # Alone in its file and called alike everywhere, so that any two can be compared.
        alone = replace(
            evaluation, records={"release": record}, options=replace(evaluation.options, baseline="release")
        )
        own = "another model's" if weights and artifact == WRONG[1] else weights
        facts = {"release": ArtifactInfo(weights=own)}
        file = keep_results(work / name / str(index), alone, facts, info, {"artifact": artifact})
        if file is None:
            raise SystemExit(f"error: results of {name} cannot be kept (masks); give models without masks")
        files[artifact] = file
    boxes = comparer.class_boxes(comparer.weights[0])
    return Population(name, evaluation, worth, boxes, files, fidelities(evaluation, files) if weights else {})


def fidelities(evaluation: Evaluation, files: Mapping[str, Path]) -> dict[tuple[str, str], float]:
    """Fidelity of every artifact to every sound one, on all images."""
    # Without labels, which fidelity does not ask for, nothing else is scored.
    bare = tuple(LabelledImage(each.path, each.classes[:0], each.boxes[:0]) for each in evaluation.data.images)
    images = replace(evaluation.data, images=bare)
    kin = {name: ResultsFile(file).model("release", images) for name, file in files.items() if name != WRONG[1]}
    found = {}
    for old in (name for name in kin if name.removesuffix(TWIN) in SOUND):
        comparer = Comparer(evaluate({}, images, EvaluateOptions(baseline=old), recorded=kin))
        whole = np.ones((1, len(images)))
        for new in kin:
            if new != old:
                found[old, new] = comparer.resampled(new, whole).intervals["fidelity"].value
    return found


def excess(found: Population, old: str, new: str, gate: Gate) -> float:
    """The largest of the true losses that the gate limits, each divided by its limit."""
    before, after = found.worth[old], found.worth[new]
    drops = {m.drop: before.metrics[m.name] - after.metrics[m.name] for m in found.evaluation.task.metrics}
    drops["per_class_drop"] = max(
        (
            value - after.per_class[name]
            for name, value in before.per_class.items()
            if found.boxes.get(name, 0) >= gate.per_class_min_boxes
        ),
        default=0.0,
    )
    limits = gate.limits_for("")
    shares = [drops[name] / limits[name].limit for name in drops if name in limits]
    if SAME_MODEL in limits and (old, new) in found.fidelity:
        shares.append((1 - found.fidelity[old, new]) / (1 - limits[SAME_MODEL].limit))
    return max(shares)


def pairs_by_kind(populations: Sequence[Population], gate: Gate) -> dict[str, list[Release]]:
    """Every release that may be drawn, by what it truly is."""
    found: dict[str, list[Release]] = {kind: [] for kind in KINDS}
    for each in populations:
        for old in (name for name in each.worth if name.removesuffix(TWIN) in SOUND):
            for new in each.worth:
                over = excess(each, old, new, gate)
                kind = "harmless" if over <= 1 else "harmful" if over >= 2 else ""
                # What computing in bfloat16 alone changes is no release.
                if kind and old != new:
                    drop = each.worth[old].map50_95 - each.worth[new].map50_95
                    found[kind].append(Release(each, old, new, drop))
    return found


def judged(release: Release, gate: str, chosen: Sequence[int], work: Path, bootstrap: int = 200) -> str:
    """The command's verdict on a release, by some of the images."""
    images = release.population.evaluation.data
    names = work / "images.txt"
    names.write_text("".join(f"{images.images[i].path.resolve()}\n" for i in chosen), encoding="utf-8")
    content = {
        "path": str(work.resolve()),
        "train": names.name,
        "val": names.name,
        "names": dict(enumerate(images.names)),
    }
    (work / "data.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    files = release.population.files
    words = [f"old={files[release.old]}", f"new={files[release.new]}", f"data={work / 'data.yaml'}", f"gate={gate}"]
    said, complaints = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaints):
        code = command(["compare", *words, f"output={work / 'report'}", f"bootstrap={bootstrap}", "latency=false"])
    if code not in VERDICTS:
        raise SystemExit(f"error: compare ended with {code}: {complaints.getvalue()}")
    return VERDICTS[code]


def table(counts: Mapping[tuple[str, str], Counter[str]], drops: Mapping[tuple[str, str], list[float]]) -> list[str]:
    """Releases by what they truly are and by the new artifact, as Markdown."""
    lines = [
        "| the new release | | releases | true drop of mAP50-95, points | pass | fail | inconclusive |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for (kind, new), found in sorted(counts.items()):
        low, high = min(drops[kind, new]) * 100, max(drops[kind, new]) * 100
        shown = " | ".join(str(found[verdict]) for verdict in VERDICTS.values())
        lines.append(f"| {new} | {kind} | {found.total()} | {low:+.2f} to {high:+.2f} | {shown} |")
    return lines


def summary(counts: Mapping[tuple[str, str], Counter[str]]) -> list[str]:
    """Shares of the verdicts by what releases truly are, and of wrong ones."""
    lines, wrong = ["| | releases | pass | fail | inconclusive |", "|---|---:|---:|---:|---:|"], 0
    for kind in KINDS:
        total = sum((found for (each, _), found in counts.items() if each == kind), Counter[str]())
        wrong += total["pass" if kind == "harmful" else "fail"]
        shown = " | ".join(f"{100 * total[verdict] / max(1, total.total()):.1f} %" for verdict in VERDICTS.values())
        lines.append(f"| {kind} | {total.total()} | {shown} |")
    every = sum(found.total() for found in counts.values())
    return [*lines, "", f"Wrong verdicts: {wrong} of {every} ({100 * wrong / max(1, every):.1f} %)."]


def agreement(populations: Sequence[Population]) -> list[str]:
    """Fidelity of every kind of new release to sound old ones of the same FP32 model, as Markdown."""
    found: dict[str, list[float]] = {}
    for each in populations:
        for (_, new), value in each.fidelity.items():
            found.setdefault("a sound one" if new.removesuffix(TWIN) in SOUND else new, []).append(value)
    lines = ["| the new release | pairs | fidelity to the old one, all images |", "|---|---:|---:|"]
    ranked = sorted(found.items(), key=lambda item: -min(item[1]))
    return lines + [f"| {new} | {len(v)} | {min(v):.3f} to {max(v):.3f} |" for new, v in ranked]


def main(arguments: Sequence[str]) -> int:
    """Draw the releases, judge them, print the tables."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    models = [path for path in options["models"].split(",") if path]
    sets = options["data"].split(",")
    sets = sets if len(sets) == len(models) else sets * len(models)
    gate, work = load_gate(options["gate"]), Path(options["work"])
    work.mkdir(parents=True, exist_ok=True)
    populations = []
    for index, (model, data) in enumerate(zip(models, sets, strict=True)):
        beside = [models[i] for i in [*range(index + 1, len(models)), *range(index)] if sets[i] == data]
        evaluation = detections(model, beside[0] if beside else None, data, {**options, "limit": ""})
        host = load_model(model)
        info = model_info(host, host.resolve_imgsz(int(options["imgsz"])))
        populations.append(population(Path(model).stem, evaluation, info, work, host.origin.weights))
    found = pairs_by_kind(populations, gate)
    counts: dict[tuple[str, str], Counter[str]] = {}
    drops: dict[tuple[str, str], list[float]] = {}
    trials = int(options["trials"])
    for trial in range(trials):
        rng, kind = np.random.default_rng([int(options["seed"]), trial]), KINDS[trial % 2]
        release = found[kind][rng.integers(len(found[kind]))]
        images = len(release.population.evaluation.data)
        chosen = rng.choice(images, min(images, int(options["size"])), replace=False)
        verdict = judged(release, options["gate"], sorted(chosen.tolist()), work, int(options["bootstrap"]))
        key = kind, release.new
        counts.setdefault(key, Counter())[verdict] += 1
        drops.setdefault(key, []).append(release.drop)
        if verdict == {"harmless": "fail", "harmful": "pass"}[kind]:
            text = f"{release.population.model}, {release.old} to {release.new}: {verdict}, {release.drop * 100:+.2f}"
            print(f"wrong: {text}", file=sys.stderr, flush=True)
        if trial % 20 == 19:
            print(f"judged {trial + 1} of {trials} releases", file=sys.stderr, flush=True)
    head = (
        f"Gate `{gate.name}`, {trials} releases of {', '.join(Path(m).stem for m in models)} at {options['imgsz']} px, "
        f"each judged by `yoloquant compare` on {options['size']} images."
    )
    text = "\n".join([head, "", *summary(counts), "", *table(counts, drops), "", *agreement(populations)])
    print(text)
    if options["out"]:
        Path(options["out"]).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
