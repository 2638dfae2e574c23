"""How often does a gate pass a harmful artifact, and fail a harmless one?

For every model it runs FP32, harmless and harmful artifacts once over all images of a data set. The images are then the
population. It draws many samples of a size (with replacement), judges each of them exactly as ``yoloquant validate``
would, with labels and without, and counts the verdicts. True drop, fidelity and shift are those on all images.

    python tools/simulate_gate.py models=yolo11n.pt,yolov8n.pt data=coco256.yaml

Options (``key=value`` or ``--key value``): models, data, split (val), gate (default), imgsz (320), limit (images of the
population; all by default), size (images of a sample; as many as the population if not given), trials (200), replicates
(200), seed (0), calibration (16 images), cache (folder that keeps the detections), out (a Markdown file).
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.options import parse_options
from yoloquant.data.calibration import CalibrationOptions, calibration_set
from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer, Measurements, Resampled
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from yoloquant.evaluation.gate import Gate, load_gate, worst
from yoloquant.evaluation.results import Comparison
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.graph.traced_model import TracedModel
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
    "out": "",
}
SCHEMES = ("openvino", "tensorrt")
HARMLESS = ("weights rounded", *(f"{name} plan" for name in SCHEMES))
"""What any quantization does; everything else that is simulated is a mistake."""
MAX_DROP = 0.01
"""Users call a loss of more than a point harm: a harmless artifact that loses more is counted as harmful."""


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


def artifacts(models: Sequence[str], index: int, data: str, options: Mapping[str, str]) -> dict[str, Runner]:
    """FP32, harmless and harmful artifacts of one model."""
    imgsz, count = int(options["imgsz"]), int(options["calibration"])
    chosen = QuantizeOptions(imgsz=imgsz, calibration=CalibrationOptions(images=count))
    artifact = quantize(models[index], data=data, schemes=resolve_schemes(",".join(SCHEMES)), options=chosen)
    graph, info = artifact.graph, artifact.info
    plain = TorchRunner(graph.module, info)
    images = list(calibration_set(data, CalibrationOptions(images=8)).tensors(info.imgsz))
    other = models[(index + 1) % len(models)]
    foreign = _float(other, imgsz)
    found: dict[str, Runner] = {
        "fp32": plain,
        "weights rounded": TorchRunner(_rounded(graph.module, 1.0), info),
        **{f"{name} plan": TorchRunner(simulate(graph, artifact.plans[name]), info) for name in SCHEMES},
        "wrong range of one layer": TorchRunner(_clipped(graph.module, images, 0.25, only=3), info),
        "stale calibration (dark images)": TorchRunner(_clipped(graph.module, [0.25 * i for i in images], 1.0), info),
        "saturating weights": TorchRunner(_rounded(graph.module, 0.5), info),
        "two classes swapped": Changed(plain, output=_swapped),
        "another checkpoint": TorchRunner(foreign.graph.module, foreign.info),
        "letterbox shifted by 4 pixels": Changed(plain, image=lambda x: np.roll(x, 4, axis=3)),
        "BGR for RGB": Changed(plain, image=lambda x: x[:, ::-1]),
        "division by 255 missing": Changed(plain, image=lambda x: x * 255),
    }
    return found


def _float(model: str, imgsz: int) -> Artifact:
    from yoloquant.bridge.checkpoint import load_model

    return Artifact(TracedModel.of(load_model(model), (imgsz, imgsz)))


def _convolutions(module: Any) -> list[Any]:
    import torch

    return [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]


def _rounded(module: Any, share: float) -> Any:
    """A copy with the convolutions' weights on a grid of 127 steps, which reaches to a share of each channel's peak."""
    result = copy.deepcopy(module)
    for layer in _convolutions(result):
        weight = layer.weight.data
        peak = weight.abs().flatten(1).amax(1).view(-1, 1, 1, 1).clamp(min=1e-9) * share
        layer.weight.data = (weight / peak * 127).round().clamp(-127, 127) * peak / 127
    return result


def _clipped(module: Any, images: Sequence[np.ndarray], share: float, only: int | None = None) -> Any:
    """A copy in which outputs of convolutions end at a share of the largest value that some images gave.

    Args:
        module: The float graph.
        images: float32 (1, 3, height, width) each.
        share: Share of the observed range that is kept.
        only: Index of the one convolution that is clipped; all of them if None.
    """
    import torch

    result = copy.deepcopy(module)
    layers = _convolutions(result) if only is None else _convolutions(result)[only : only + 1]
    peaks = [0.0] * len(layers)
    hooks = [
        layer.register_forward_hook(lambda m, i, out, k=k: peaks.__setitem__(k, max(peaks[k], float(out.abs().max()))))
        for k, layer in enumerate(layers)
    ]
    with torch.inference_mode():
        for image in images:
            result(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)))
    for hook in hooks:
        hook.remove()
    for layer, peak in zip(layers, peaks, strict=True):
        layer.register_forward_hook(lambda m, i, out, p=peak * share: out.clamp(-p, p))
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
    checks = [check for check in gate.judge("simulated", measured)[0] if check.value is not None]
    bad = [f"{check.name} {check.verdict.value}" for check in checks if check.verdict is not Verdict.PASS]
    return worst(check.verdict for check in checks), bad


def without_labels(measured: Measurements) -> Measurements:
    """What remains of a measurement where there are no labels."""
    kept = {name: value for name, value in measured.intervals.items() if name in {"fidelity", "confidence_shift"}}
    return replace(measured, intervals=kept, class_drops={}, class_boxes={}, baseline_map=None)


def judge_samples(comparer: Comparer, gate: Gate, name: str, options: Mapping[str, str]) -> list[Counter[str]]:
    """Verdicts on many samples of one artifact: with labels, without, and why those with labels did not pass."""
    images = len(comparer.evaluation.data)
    size = int(options["size"] or images)
    counts = [Counter[str](), Counter[str](), Counter[str]()]
    for trial in range(int(options["trials"])):
        # The same samples for every artifact.
        rng = np.random.default_rng([int(options["seed"]), size, trial])
        weights = sample_weights(images, size, int(options["replicates"]), rng)
        found: Resampled = comparer.resampled(name, weights)
        measured = comparer.measurements(Comparison(None, None, found.intervals["fidelity"]), found, weights)
        verdict, bad = verdict_of(gate, measured)
        counts[0][verdict.value] += 1
        counts[1][verdict_of(gate, without_labels(measured))[0].value] += 1
        counts[2].update(bad)
    return counts


def simulate_gate(name: str, evaluation: Evaluation, gate: Gate, options: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row for every artifact of a model."""
    comparer = Comparer(evaluation, BootstrapOptions(replicates=2))
    rows = []
    for artifact in evaluation.records:
        if artifact == evaluation.options.baseline:
            continue
        comparison = comparer.compare(artifact).comparison
        drop = comparison.map_drop.value if comparison.map_drop else 0.0
        with_labels, without, why = judge_samples(comparer, gate, artifact, options)
        rows.append(
            {
                "model": name,
                "artifact": artifact,
                "harmless": artifact in HARMLESS and drop <= MAX_DROP,
                "drop": drop,
                "fidelity": comparison.fidelity.value,
                "shift": comparison.confidence_shift,
                "labelled": with_labels,
                "unlabelled": without,
                "why": ", ".join(reason for reason, _ in why.most_common(2)),
            }
        )
        print(table(rows[-1:], int(options["trials"]))[-1], file=sys.stderr, flush=True)
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
        kind = "harmless" if row["harmless"] else "harmful"
        lines.append(
            f"| {row['model']} | {row['artifact']} | {kind} | {row['drop'] * 100:+.2f} | {row['fidelity']:.3f} | "
            f"{row['shift']:+.3f} | {' | '.join(shares)} | {row['why'] or '-'} |"
        )
    return lines


def summary(rows: Sequence[Mapping[str, Any]], trials: int) -> list[str]:
    """False passes and false fails over all artifacts, in percent."""
    lines = []
    for kind in ("labelled", "unlabelled"):
        harmful = [row[kind]["pass"] for row in rows if not row["harmless"]]
        harmless = [row[kind] for row in rows if row["harmless"]]
        passes = 100 * sum(harmful) / max(1, trials * len(harmful))
        fails = 100 * sum(c["fail"] for c in harmless) / max(1, trials * len(harmless))
        unsure = 100 * sum(c["inconclusive"] for c in harmless) / max(1, trials * len(harmless))
        lines.append(
            f"- {kind}: false pass {passes:.1f} % of {len(harmful)} harmful artifacts' samples, false fail {fails:.1f} "
            f"% of {len(harmless)} harmless ones' ({unsure:.1f} % inconclusive)"
        )
    return lines


def detections(models: Sequence[str], index: int, options: Mapping[str, str]) -> Evaluation:
    """What every artifact of a model finds, from the cache where it is there."""
    name = Path(models[index]).stem
    path = Path(options["cache"]) / f"{name}-{options['imgsz']}.pickle" if options["cache"] else None
    if path is not None and path.is_file():
        evaluation: Evaluation = pickle.loads(path.read_bytes())  # written by this tool
        return evaluation
    data = ValidationSet.from_yaml(options["data"], split=options["split"])
    data = data.take(int(options["limit"]) if options["limit"] else None)
    evaluation = evaluate(
        artifacts(models, index, options["data"], options),
        data,
        EvaluateOptions(warmup=0),
        progress=lambda done, total, image: print(f"\r{name} {done}/{total}   ", end="", file=sys.stderr, flush=True),
    )
    print(file=sys.stderr)
    for failed, error in evaluation.errors.items():
        print(f"{failed}: {error}", file=sys.stderr)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(evaluation))
    return evaluation


def main(arguments: Sequence[str]) -> int:
    """Run the simulation."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    models = [path for path in options["models"].split(",") if path]
    gate, trials = load_gate(options["gate"]), int(options["trials"])
    rows: list[dict[str, Any]] = []
    for index, model in enumerate(models):
        evaluation = detections(models, index, options)
        rows += simulate_gate(Path(model).stem, evaluation, gate, options)
    size = options["size"] or str(len(evaluation.data))
    head = (
        f"Gate `{gate.name}`, {trials} samples of {size} images from {len(evaluation.data)} at {options['imgsz']} px: "
        "pass / fail / inconclusive in percent."
    )
    text = "\n".join([head, "", *table(rows, trials), "", *summary(rows, trials)])
    print(text)
    if options["out"]:
        Path(options["out"]).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
