"""Which of the head's last convolutions should be quantized? The measurement behind the schemes' choice.

    python tools/compare_heads.py model=../shared/weights/yolo11n.pt data=../shared/data/coco256/coco256.yaml

Every scheme's plan is simulated in PyTorch as it is, and with the last convolutions of the box branch, of the score
branch, and of both the other way round: in float where the scheme quantizes them (weight, operand and, if it has a
point, result), quantized where it leaves them in float. All plans share one observation of training images and are
scored in one pass. The last columns hold a variant against its scheme's own plan, paired by image.

One more variant leaves every weight in float and quantizes activations alone. It shows what is left to win by rounding
weights better, as AdaRound does, whose aim is the output of the float weights. (Rounding that also makes up for the
errors of quantized inputs could pass it in principle.)

Options (``key=value`` or ``--key value``): model, data, imgsz (640), images (128, calibration), split (val), limit
(none; score only so many images), schemes (tensorrt,openvino,onnxruntime,litert,portable), variants (all, or names
separated by ``;``), threads (2), bootstrap (1000), out (a Markdown file; default: printed only).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine

import numpy as np

from tools.bench import simulated
from tools.bench.simulated import BASELINE, Subject, Variant, print_report, progress, scheme_named, score
from yoloquant.data.calibration import CalibrationOptions, calibration_set
from yoloquant.errors import UsageError
from yoloquant.evaluation.bootstrap import BootstrapOptions, interval
from yoloquant.evaluation.compare import Comparer
from yoloquant.graph.trace import QUANTIZATION_AGNOSTIC, Graph
from yoloquant.quantization.bias_overflow import without_bias_overflow
from yoloquant.quantization.calibrate import Solver, observe, solve_plan
from yoloquant.quantization.plan import Plan, Site
from yoloquant.quantization.scheme import Placement, Scheme, derive
from yoloquant.runtime.core.metrics import ap_table, class_scores

DEFAULTS = {
    **simulated.DEFAULTS,
    "schemes": "tensorrt,openvino,onnxruntime,litert,portable",
    "variants": "all",
}
OWN = "own"
WEIGHTS_FLOAT = "weights float"
BRANCHES = {"box": frozenset({"box"}), "score": frozenset({"score"}), "box and score": frozenset({"box", "score"})}
Change = Callable[[Graph, Placement], Placement]


def without(graph: Graph, placement: Placement, ops: frozenset[str]) -> Placement:
    """A placement that leaves weighted operations in float: their weights, their operands and their results.

    Args:
        graph: The canonical graph.
        placement: A scheme's placement.
        ops: Names of the operations.

    Returns:
        The placement without them; a tensor that others read quantized too stays quantized for those.
    """
    only = set(ops)  # and what merely moves values to them alone
    for op in reversed(list(graph.ops.values())):
        users = graph.users[op.name]
        if op.kind in QUANTIZATION_AGNOSTIC and users and only.issuperset(users):
            only.add(op.name)
    sites = []
    for site, reason in placement.sites:
        readers = site.consumers or graph.users[site.tensor]
        left = tuple(r for r in readers if r not in only)
        if site.tensor in only or not left:
            continue
        sites.append((site if len(left) == len(readers) else Site(site.tensor, left), reason))
    return replace(placement, sites=tuple(sites), weighted=tuple(w for w in placement.weighted if w not in ops))


def within(graph: Graph, placement: Placement, ops: frozenset[str]) -> Placement:
    """A placement that quantizes weighted operations as well: their weights and their operands.

    Args:
        graph: The canonical graph.
        placement: A scheme's placement.
        ops: Names of the operations; those that are quantized already stay as they are.
    """
    new = [name for name in graph.ops if name in ops - set(placement.weighted)]
    read = {(s.tensor, c) for s, _ in placement.sites for c in (s.consumers or graph.users[s.tensor])}
    edges = [(graph.ops[name].inputs[0], name) for name in new]
    sites = [
        (Site(source, (name,)), "operand of a head convolution") for source, name in edges if (source, name) not in read
    ]
    return replace(placement, sites=(*placement.sites, *sites), weighted=(*placement.weighted, *new))


def heads(graph: Graph, branches: frozenset[str]) -> frozenset[str]:
    """Names of the last convolutions of some branches."""
    return frozenset(op.name for op in graph.heads if op.branch in branches)


def turned(branches: frozenset[str]) -> Change:
    """Some branches' last convolutions the other way round than the scheme has them."""

    def change(graph: Graph, placement: Placement) -> Placement:
        ops = heads(graph, branches)
        planned = ops & set(placement.weighted)
        return within(graph, without(graph, placement, planned), ops - planned)

    return change


def variants(names: str) -> dict[str, Change]:
    """What is compared, by name; ``all`` for everything. The scheme's own plan is always among them.

    Raises:
        UsageError: A name is unknown.
    """
    known: dict[str, Change] = {OWN: lambda graph, placement: placement}
    known |= {f"{name} turned": turned(branches) for name, branches in BRANCHES.items()}
    known[WEIGHTS_FLOAT] = lambda graph, placement: replace(placement, weighted=())
    if names == "all":
        return known
    wanted = [OWN, *(name.strip() for name in names.split(";") if name.strip())]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UsageError(f"variant '{'; '.join(unknown)}' is unknown; allowed are {'; '.join(known)}")
    return {name: known[name] for name in dict.fromkeys(wanted)}


def named(graph: Graph, scheme: Scheme, change: str) -> str:
    """What a variant is called: which convolutions are in float or int8 rather than that they were turned."""
    if not change.endswith(" turned"):
        return change
    branch = change.removesuffix(" turned")
    planned = heads(graph, BRANCHES[branch]) & set(scheme.place(graph).weighted)
    return f"{branch} {'float' if planned else 'int8'}"


def plans(graph: Graph, schemes: Sequence[Scheme], changes: Mapping[str, Change]) -> dict[tuple[str, str], Plan]:
    """Plans without ranges by scheme and variant; a variant that changes nothing is left out.

    Args:
        graph: The canonical graph.
        schemes: Schemes.
        changes: What ``variants`` returned.
    """
    found: dict[tuple[str, str], Plan] = {}
    for scheme in schemes:
        for name, change in changes.items():
            place: Callable[[Graph], Placement] = lambda g, s=scheme, c=change: c(g, s.place(g))  # type: ignore[misc]  # noqa: E731
            plan = derive(graph, replace(scheme, place=place))
            if name == OWN or plan != found[scheme.name, OWN]:
                found[scheme.name, named(graph, scheme, name)] = plan
    return found


def solve_all(subject: Subject, open_plans: Mapping[tuple[str, str], Plan]) -> dict[str, Variant]:
    """All plans with their ranges, from one observation.

    Raises:
        DataError: There are no usable training images.
        CalibrationError: There are too few.
    """
    graph = subject.artifact.graph
    sample = calibration_set(subject.source, CalibrationOptions(images=subject.images))
    seen = observe(
        graph,
        list(open_plans.values()),
        sample.tensors(subject.artifact.info.imgsz),
        progress=lambda done, what: progress(done, len(sample), what),
    )
    solver = Solver(seen)
    found = {}
    for index, ((scheme, name), plan) in enumerate(open_plans.items(), start=1):
        found[f"{scheme}: {name}"] = Variant(without_bias_overflow(graph, solve_plan(graph, plan, seen, solver=solver)))
        progress(index, len(open_plans), f"solved {scheme}: {name}")
    return found


class Paired:
    """How much more a variant keeps than its scheme's own plan, paired by image.

    Args:
        comparer: The scores.
    """

    def __init__(self, comparer: Comparer) -> None:
        self.comparer = comparer
        self._known: dict[tuple[str, bool], np.ndarray] = {}

    def cell(self, name: str, *, labelled: bool) -> str:
        """A gain with its interval: of mAP50-95 in points if ``labelled``, else of fidelity."""
        own = f"{name.split(': ', 1)[0]}: {OWN}"
        evaluation = self.comparer.evaluation
        if name == own or own not in evaluation.records or (labelled and not evaluation.data.labelled):
            return ""
        gain = interval(self._resampled(name, labelled) - self._resampled(own, labelled), self.comparer.options.level)
        factor, form = (100, "+.2f") if labelled else (1, "+.4f")
        middle, low, high = (format(v * factor, form) for v in (gain.value, gain.low, gain.high))
        return f"{middle} [{low}, {high}]"

    def _resampled(self, name: str, labelled: bool) -> np.ndarray:
        if (name, labelled) not in self._known:
            evaluation = self.comparer.evaluation
            record = evaluation.records[name]
            matches, truths = (
                (record.label_matches, evaluation.labels)
                if labelled
                else (record.reference_matches, evaluation.references)
            )
            scores = class_scores(record.detections, matches, truths)
            self._known[name, labelled] = ap_table(scores, self.comparer.weights).map50_95
        return self._known[name, labelled]


def run(options: Mapping[str, str]) -> str:
    """Measure.

    Returns:
        The report.

    Raises:
        YoloquantError: The model, the data or an option cannot be used.
        argparse.ArgumentTypeError: A value is of the wrong type.
    """
    schemes = [scheme_named(name.strip()) for name in options["schemes"].split(",")]
    changes = variants(options["variants"])
    subject = Subject.load(options)
    wanted = plans(subject.artifact.graph, schemes, changes)
    evaluation = score(subject, solve_all(subject, wanted))
    comparer = Comparer(evaluation, BootstrapOptions(replicates=subject.bootstrap))
    paired = Paired(comparer)
    columns = (
        ("fidelity more than own [95 %]", lambda name: paired.cell(name, labelled=False)),
        ("points more than own [95 %]", lambda name: paired.cell(name, labelled=True)),
    )
    accuracy = comparer.accuracy(BASELINE)
    float_map = f" FP32 mAP50-95 {accuracy.map50_95:.4f}." if accuracy else ""
    intro = subject.introduction(f"schemes {', '.join(s.name for s in schemes)}") + float_map
    return f"{intro}\n\n{simulated.report('scheme: variant', comparer, columns)}\n"


def main(arguments: Sequence[str]) -> int:
    """Run the comparison and print its table."""
    return print_report(arguments, DEFAULTS, __doc__ or "", run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
