"""How often does a gate pass a harmful artifact, and fail a harmless one?

For every model it runs FP32, harmless and harmful artifacts once over all images of a data set. The images are then the
population. It draws many samples of a size (with replacement), judges each of them exactly as ``yoloquant validate``
would, with labels and without, and counts the verdicts. True drop, fidelity and shift are those on all images.

    python tools/simulate_gate.py models=yolo11n.pt,yolov8n.pt data=coco256.yaml

Some mistakes come in several strengths: those that harm a little more than is allowed are the hardest to see. An
artifact is *harmless* if it is a quantized one that loses at most ``MAX_DROP`` of mAP and moves confidences by at most
``MAX_SHIFT``. It is *harmful* if it loses twice one of those, or if it is a mistake that no figure excuses (swapped
classes, another model's artifact). What lies between is shown and not counted: no sample tells a loss of 0.9 points
from one of 1.1.

Options (``key=value`` or ``--key value``): models, data (a yaml, or one for each model), split (val), gate (default),
imgsz (320), limit (images of the population; all by default), size (images of a sample; as many as the population if
not given), trials (200), replicates (200), seed (0), calibration (16 images), cache (folder that keeps the detections,
so that a run that was ended goes on), judge (true; false fills the cache alone), out (a Markdown file).
"""

from __future__ import annotations

import copy
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.options import boolean, parse_options
from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.host_model import model_info
from yoloquant.data.calibration import CalibrationOptions, calibration_set
from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer, Measurements, Resampled
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, RunnerRecord, evaluate
from yoloquant.evaluation.gate import Gate, load_gate, overall_verdict
from yoloquant.evaluation.results import Comparison
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.graph.ops import OpKind
from yoloquant.graph.trace import Graph
from yoloquant.graph.traced_model import TracedModel
from yoloquant.io import atomic_path
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.ptq import quantize
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.quantization.simulate import simulate
from yoloquant.runtime.core.runner import Runner
from yoloquant.targets.schemes import resolve_schemes
from yoloquant.types import Verdict

DEFAULTS = {
    "models": "yolo11n.pt",
    "data": "coco8.yaml",
    "split": "val",
    "gate": "default",
    "imgsz": "320",
    "limit": "",
    "size": "",
    "trials": "200",
    "replicates": "200",
    "seed": "0",
    "calibration": "16",
    "cache": "",
    "judge": "true",
    "out": "",
}
SCHEMES = ("openvino", "tensorrt", "litert")
TWIN = ", bfloat16"
"""Ends the name of what differs from an artifact by the precision of what is float alone."""
QUANTIZED = ("weights rounded", *(f"{name} plan" for name in SCHEMES))
"""What any quantization does; everything else that is simulated is a mistake, or a twin."""
WRONG = ("two classes swapped", "another checkpoint")
"""Mistakes that no figure excuses."""
CHUNK = 8
"""Images that are run between two writes to the cache."""
MAX_DROP = 0.01
"""Users call a loss of more than a point harm."""
MAX_SHIFT = 0.03
"""A point of F1 at a fixed confidence of 0.25: YOLO26n lost 0.9 points at -0.020, 1.5 at -0.05 and 3.2 at -0.104."""


class Changed(Runner):
    """A runner whose image or output is changed on the way.

    Args:
        runner: The runner.
        image: Changes the image, (1, 3, height, width).
        output: Changes the decoded head output, (1, 4 + nc, anchors).
    """

    def __init__(
        self,
        runner: Runner,
        image: Callable[[np.ndarray], np.ndarray] | None = None,
        output: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.runner, self.image, self.output = runner, image, output
        self.info, self.layout = runner.info, runner.layout

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run it."""
        image = np.ascontiguousarray(self.image(image)) if self.image else image
        first, *rest = self.runner.infer(image)
        return (self.output(first.copy()) if self.output else first, *rest)


def twin(artifact: str) -> str:
    """Name of the same artifact where what is float is computed in bfloat16."""
    return artifact + TWIN


def kind_of(artifact: str, drop: float, shift: float) -> str:
    """What users would call an artifact that has lost this much: harmless, harmful, or something between."""
    if artifact in WRONG or drop >= 2 * MAX_DROP or abs(shift) >= 2 * MAX_SHIFT:
        return "harmful"
    quantization = artifact.removesuffix(TWIN) in ("fp32", *QUANTIZED)
    return "harmless" if quantization and drop <= MAX_DROP and abs(shift) <= MAX_SHIFT else "between"


def quantized(model: str, data: str, options: Mapping[str, str], kept: Path | None) -> Artifact:
    """The model with ranges for every simulated scheme.

    Args:
        model: The checkpoint.
        data: Data yaml, whose training images calibrate.
        options: The tool's options.
        kept: Where it is kept; read if it is there.
    """
    if kept is not None and kept.is_file():
        return Artifact.load(kept)
    chosen = QuantizeOptions(
        imgsz=int(options["imgsz"]), calibration=CalibrationOptions(images=int(options["calibration"]))
    )
    artifact = quantize(model, data=data, schemes=resolve_schemes(",".join(SCHEMES)), options=chosen)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        artifact.save(kept)
    return artifact


def artifacts(artifact: Artifact, other: str | None, data: str) -> dict[str, Runner]:
    """FP32, quantized and mistaken artifacts of one model.

    Args:
        artifact: The quantized model.
        other: Checkpoint of another one of the same task and classes, if there is one.
        data: Data yaml, on whose training images activations are clipped.
    """
    graph, info = artifact.graph, artifact.info
    plain = TorchRunner(graph.module, info)
    images = list(calibration_set(data, CalibrationOptions(images=8)).tensors(info.imgsz))
    plans = {n: simulate(graph, artifact.plans[n], bias=dict(artifact.bias.get(n, {}))) for n in SCHEMES}
    found: dict[str, Runner] = {
        "fp32": plain,
        "weights rounded": TorchRunner(_rounded(graph), info),
        **{f"{name} plan": TorchRunner(module, info) for name, module in plans.items()},
        **{twin(f"{n} plan"): TorchRunner(_behind(graph, module, Bfloat16), info) for n, module in plans.items()},
        twin("fp32"): TorchRunner(_behind(graph, graph.module, Bfloat16), info),
        **{f"weights of {bits} bits": TorchRunner(_rounded(graph, bits=bits), info) for bits in (6, 5, 4)},
        **{f"every range cut to {s:.0%}": TorchRunner(_clipped(graph, images, s), info) for s in (0.8, 0.6, 0.4)},
        "wrong range of one layer": TorchRunner(_clipped(graph, images, 0.1, only=0), info),
        "stale calibration (night images)": TorchRunner(_clipped(graph, [0.03 * i for i in images], 1.0), info),
        "saturating weights": TorchRunner(_rounded(graph, share=0.5), info),
        "letterbox shifted by 4 pixels": Changed(plain, image=lambda x: np.roll(x, 4, axis=3)),
        "BGR for RGB": Changed(plain, image=lambda x: x[:, ::-1]),
        "division by 255 missing": Changed(plain, image=lambda x: x * 255),
    }
    if len(info.names) > 2:
        found["two classes swapped"] = Changed(plain, output=_swapped)
    if other is not None:
        foreign = _float(other, info.imgsz)
        found["another checkpoint"] = TorchRunner(foreign.graph.module, foreign.info)
    return found


def _float(model: str, imgsz: tuple[int, int]) -> Artifact:
    return Artifact(TracedModel.of(load_model(model), imgsz))


def _convolutions(graph: Graph, module: fx.GraphModule) -> list[fx.Node]:
    """Nodes of the convolutions in a copy of a graph's module."""
    nodes = {node.name: node for node in module.graph.nodes}
    found = [nodes[graph.fx_name(op.name)] for op in graph.ops.values() if op.kind is OpKind.CONV and op.weight]
    if not found:
        raise RuntimeError("no convolution was found: nothing would be changed")
    return found


def _rounded(graph: Graph, share: float = 1.0, bits: int = 8) -> fx.GraphModule:
    """A copy with the convolutions' weights on a signed grid, which reaches to a share of each channel's peak."""
    result, steps = copy.deepcopy(graph.module), 2 ** (bits - 1) - 1
    with torch.no_grad():
        for node in _convolutions(graph, result):
            weight = result.get_parameter(str(node.args[1].target))  # type: ignore[union-attr]
            peak = weight.abs().flatten(1).amax(1).view(-1, 1, 1, 1).clamp(min=1e-9) * share
            weight.copy_((weight / peak * steps).round().clamp(-steps, steps) * peak / steps)
    return result


def _behind(
    graph: Graph, module: fx.GraphModule, make: Callable[[], nn.Module], only: int | None = None
) -> fx.GraphModule:
    """A copy of a graph's module in which results of convolutions are changed.

    Args:
        graph: The graph.
        module: Its module, or a simulation of a plan.
        make: Makes what changes the result of one convolution.
        only: Index of the one convolution that is changed; all of them if None.
    """
    result = copy.deepcopy(module)
    nodes = _convolutions(graph, result)
    for index, node in enumerate(nodes if only is None else nodes[only : only + 1]):
        readers = list(node.users)
        result.add_submodule(f"changed_{index}", make())
        with result.graph.inserting_after(node):
            changed = result.graph.call_module(f"changed_{index}", (node,))
        for reader in readers:
            reader.replace_input_with(node, changed)
    result.graph.lint()
    result.recompile()
    return result


class Clip(nn.Module):
    """Notes the largest value that it sees, and ends values at a share of it once that is set."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0.0
        self.share: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Observe or clip."""
        if self.share is None:
            self.peak = max(self.peak, float(x.abs().max()))
            return x
        return x.clamp(-self.peak * self.share, self.peak * self.share)


class Bfloat16(nn.Module):
    """Keeps values as a processor does that computes what is float in bfloat16, OpenVINO's default on such CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """Round."""
        return x.bfloat16().float()


def _clipped(graph: Graph, images: Sequence[np.ndarray], share: float, only: int | None = None) -> fx.GraphModule:
    """A copy in which outputs of convolutions end at a share of the largest value that some images gave.

    Args:
        graph: The float graph.
        images: float32 (1, 3, height, width) each.
        share: Share of the observed range that is kept.
        only: Index of the one convolution that is clipped; all of them if None.
    """
    result = _behind(graph, graph.module, Clip, only)
    with torch.inference_mode():
        for image in images:
            result(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)))
    for module in result.modules():
        if isinstance(module, Clip):
            module.share = share
    return result


def _swapped(output: np.ndarray) -> np.ndarray:
    """The first and the third class change places: on COCO, persons and cars."""
    if output.shape[1] == 300:  # end to end: rows of box, confidence and class
        first, third = output[..., 5] == 0, output[..., 5] == 2
        output[..., 5][first], output[..., 5][third] = 2, 0
    else:
        output[:, [4, 6]] = output[:, [6, 4]]
    return output


def sample_weights(images: int, size: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """A sample drawn from the population (row 0), and resamples of that sample (the other rows)."""
    sample = rng.multinomial(size, np.full(images, 1 / images))
    return np.concatenate([sample[None], rng.multinomial(size, sample / size, size=replicates)]).astype(np.float64)


def verdict_of(gate: Gate, measured: Measurements) -> tuple[Verdict, list[str]]:
    """Verdict on one sample, and the checks that did not pass; latency and size are not simulated."""
    checks = [check for check in gate.check("simulated", measured)[0] if check.value is not None]
    bad = [f"{check.name} {check.verdict.value}" for check in checks if check.verdict is not Verdict.PASS]
    return overall_verdict(check.verdict for check in checks), bad


def without_labels(measured: Measurements) -> Measurements:
    """What remains of a measurement where there are no labels."""
    kept = {name: value for name, value in measured.intervals.items() if name in {"fidelity", "confidence_shift"}}
    return replace(measured, intervals=kept, class_drops={}, class_boxes={}, baseline_map=None)


def judge_samples(
    comparer: Comparer, gate: Gate, names: Sequence[str], options: Mapping[str, str]
) -> dict[str, list[Counter[str]]]:
    """Verdicts on many samples, by artifact: with labels, without, and why those with labels did not pass."""
    images = len(comparer.evaluation.data)
    size = int(options["size"] or images)
    counts = {name: [Counter[str](), Counter[str](), Counter[str]()] for name in names}
    for trial in range(int(options["trials"])):
        rng = np.random.default_rng([int(options["seed"]), size, trial])
        # The same samples for every artifact, and the same array: what is known of the float model on it is kept.
        weights = sample_weights(images, size, int(options["replicates"]), rng)
        for name in names:
            found: Resampled = comparer.resampled(name, weights)
            measured = comparer.measurements(Comparison(None, None, found.intervals["fidelity"]), found, weights)
            verdict, bad = verdict_of(gate, measured)
            counts[name][0][verdict.value] += 1
            counts[name][1][verdict_of(gate, without_labels(measured))[0].value] += 1
            counts[name][2].update(bad)
        if sys.stderr.isatty() or trial % 20 == 19:
            print(f"judged {trial + 1} of {options['trials']} samples", file=sys.stderr, flush=True)
    return counts


def simulate_gate(name: str, evaluation: Evaluation, gate: Gate, options: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row for every artifact of a model."""
    comparer = Comparer(evaluation, BootstrapOptions(replicates=2), keep=len(evaluation.records))
    artifacts = [artifact for artifact in evaluation.records if artifact != evaluation.options.baseline]
    judged = judge_samples(comparer, gate, artifacts, options)
    rows = []
    for artifact in artifacts:
        comparison = comparer.compare(artifact).comparison
        drop = comparison.map_drop.value if comparison.map_drop else 0.0
        with_labels, without, why = judged[artifact]
        rows.append(
            {
                "model": name,
                "artifact": artifact,
                "kind": kind_of(artifact, drop, comparison.confidence_shift),
                "drop": drop,
                "fidelity": comparison.fidelity.value,
                "shift": comparison.confidence_shift,
                "labelled": with_labels,
                "unlabelled": without,
                "why": ", ".join(reason for reason, _ in why.most_common(2)),
            }
        )
    return rows


def table(rows: Sequence[Mapping[str, Any]], trials: int) -> list[str]:
    """The rows as Markdown."""
    lines = [
        "| model | artifact | | true drop | fidelity | shift | labelled | unlabelled | what decided |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        shares = [
            " / ".join(f"{100 * row[kind][v] / trials:.0f}" for v in ("pass", "fail", "inconclusive"))
            for kind in ("labelled", "unlabelled")
        ]
        lines.append(
            f"| {row['model']} | {row['artifact']} | {row['kind']} | {row['drop'] * 100:+.2f} | "
            f"{row['fidelity']:.3f} | {row['shift']:+.3f} | {' | '.join(shares)} | {row['why'] or '-'} |"
        )
    return lines


def summary(rows: Sequence[Mapping[str, Any]], trials: int) -> list[str]:
    """False passes and false fails over all artifacts, in percent."""
    lines = []
    for kind in ("labelled", "unlabelled"):
        harmful = [row[kind]["pass"] for row in rows if row["kind"] == "harmful"]
        harmless = [row[kind] for row in rows if row["kind"] == "harmless"]
        passes = 100 * sum(harmful) / max(1, trials * len(harmful))
        fails = 100 * sum(c["fail"] for c in harmless) / max(1, trials * len(harmless))
        unsure = 100 * sum(c["inconclusive"] for c in harmless) / max(1, trials * len(harmless))
        lines.append(
            f"- {kind}: false pass {passes:.1f} % of {len(harmful)} harmful artifacts' samples, false fail {fails:.1f} "
            f"% of {len(harmless)} harmless ones' ({unsure:.1f} % inconclusive)"
        )
    return lines


def noise(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What computing in bfloat16 alone moves, which no resampling of images shows: root mean square and largest."""
    found = {(row["model"], row["artifact"]): row for row in rows}
    pairs = [
        (found[model, name], row)
        for (model, each), row in found.items()
        if each.endswith(TWIN) and (model, name := each.removesuffix(TWIN)) in found
    ]
    if not pairs:
        return []
    parts = []
    for key, title, factor in (
        ("drop", "mAP50-95 by {} points", 100),
        ("fidelity", "fidelity by {}", 1),
        ("shift", "confidences by {}", 1),
    ):
        gaps = np.array([before[key] - after[key] for before, after in pairs]) * factor
        parts.append(title.format(f"{np.sqrt((gaps**2).mean()):.3f} (at most {np.abs(gaps).max():.3f})"))
    return [f"- noise: the same plan with what is float in bfloat16 moves {', '.join(parts)}, over {len(pairs)} pairs"]


def detections(model: str, other: str | None, data: str, options: Mapping[str, str]) -> Evaluation:
    """What every artifact of a model finds, a few images at a time; those in the cache are not run again."""
    name = Path(model).stem
    key = "-".join((name, Path(data).stem, Path(data).parent.name, options["imgsz"]))
    cache = Path(options["cache"]) / key if options["cache"] else None
    host = load_model(model)
    info = model_info(host, host.resolve_imgsz(int(options["imgsz"])))
    images = ValidationSet.open(data, info, split=options["split"]).for_classes(info.names)
    images = images.take(int(options["limit"]) if options["limit"] else None)
    found: dict[str, Runner] = {}
    parts = []
    for start in range(0, len(images), CHUNK):
        path = cache / f"{start}.pickle" if cache else None
        if path is None or not path.is_file():
            if not found:
                found = artifacts(quantized(model, data, options, cache and cache / "quantized.pt"), other, data)
            chunk = replace(images, images=images.images[start : start + CHUNK])
            part = evaluate(found, chunk, EvaluateOptions())
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as temporary:
                    temporary.write_bytes(pickle.dumps(part))
        else:
            part = pickle.loads(path.read_bytes())  # written by this tool
        parts.append(part)
        print(f"{name}: {min(start + CHUNK, len(images))} of {len(images)} images", file=sys.stderr, flush=True)
    return joined(parts, images)


def joined(parts: Sequence[Evaluation], images: ValidationSet) -> Evaluation:
    """One evaluation of several on parts of the images; artifacts that failed on one of them are left out."""
    names = [name for name in parts[0].records if all(name in part.records for part in parts)]
    for part in parts:
        for failed, error in part.errors.items():
            print(f"{failed}: {error}", file=sys.stderr)
    records = {name: _records([part.records[name] for part in parts]) for name in names}
    return replace(
        parts[0],
        data=images,
        letterboxes=[x for part in parts for x in part.letterboxes],
        labels=[x for part in parts for x in part.labels],
        references=[x for part in parts for x in part.references],
        records=records,
    )


def _records(parts: Sequence[RunnerRecord]) -> RunnerRecord:
    """One record of several on parts of the images; times are left out."""

    def further(each: Sequence[Mapping[str, Sequence[Any]]]) -> dict[str, list[Any]]:
        return {prefix: [m for found in each for m in found[prefix]] for prefix in each[0]}

    return RunnerRecord(
        [d for part in parts for d in part.detections],
        [m for part in parts for m in part.label_matches],
        [m for part in parts for m in part.reference_matches],
        further([part.further_label_matches for part in parts]),
        further([part.further_reference_matches for part in parts]),
    )


def main(arguments: Sequence[str]) -> int:
    """Run the simulation."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    models = [path for path in options["models"].split(",") if path]
    sets = [path for path in options["data"].split(",") if path]
    if len(sets) not in {1, len(models)}:
        raise SystemExit(f"error: {len(models)} models and {len(sets)} data sets; give one yaml, or one for each model")
    sets = sets if len(sets) == len(models) else sets * len(models)
    gate, trials = load_gate(options["gate"]), int(options["trials"])
    rows: list[dict[str, Any]] = []
    for index, (model, data) in enumerate(zip(models, sets, strict=True)):
        beside = [*range(index + 1, len(models)), *range(index)]
        others = [models[i] for i in beside if sets[i] == data]
        evaluation = detections(model, others[0] if others else None, data, options)
        if boolean(options["judge"]):
            rows += simulate_gate(Path(model).stem, evaluation, gate, options)
    if not rows:
        return 0
    head = (
        f"Gate `{gate.name}`, {trials} samples of {options['size'] or 'as many images as the set has'} at "
        f"{options['imgsz']} px: pass / fail / inconclusive in percent."
    )
    text = "\n".join([head, "", *table(rows, trials), "", *summary(rows, trials), *noise(rows)])
    print(text)
    if options["out"]:
        Path(options["out"]).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
