"""How often does a gate pass a harmful artifact, and fail a harmless one, on so many images?

Runs the FP32 model and a ladder of artifacts of falling quality once over all images of a data set: its weights rounded
to fewer and fewer steps, and any exported files that are named. The images are then the population. For each sample
size it draws many samples (with replacement), judges each of them exactly as ``yoloquant validate`` would, and counts
the verdicts. An artifact's true drop and fidelity are those on the whole population.

    python tools/simulate_gate.py model=yolo11n.pt data=coco256.yaml artifacts=a_int8.onnx,b_openvino_model

Options (``key=value`` or ``--key value``): model, data, splits (val,train), artifacts, gates (default), imgsz (640),
sizes (64,128,256,512), trials (200), replicates (300), seed (0), out (a Markdown file; default: printed only).
"""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.options import parse_options
from yoloquant.data.dataset import ValidationSet
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer, Measurements
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from yoloquant.evaluation.gate import Gate, load_gate, worst
from yoloquant.evaluation.results import Comparison
from yoloquant.runtime.core.runner import Runner
from yoloquant.types import ModelInfo, Task, Verdict

DEFAULTS = {
    "model": "yolo11n.pt",
    "data": "coco8.yaml",
    "splits": "val,train",
    "artifacts": "",
    "gates": "default",
    "imgsz": "640",
    "sizes": "64,128,256,512",
    "trials": "200",
    "replicates": "300",
    "seed": "0",
    "out": "",
}
LADDER = (
    ("channel", 127),
    ("channel", 63),
    ("channel", 47),
    ("channel", 31),
    ("tensor", 190),
    ("tensor", 127),
    ("tensor", 63),
)
"""Artifacts of falling quality: weights rounded to +- so many steps, one scale per output channel or per tensor."""


class ModuleRunner(Runner):
    """Runs a torch module that returns the decoded head output first."""

    def __init__(self, module: Any, info: ModelInfo) -> None:
        self.module, self.info, self.layout = module.eval(), info, info.layout

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the module."""
        import torch

        with torch.inference_mode():
            output = self.module(torch.from_numpy(image))
        return ((output[0] if isinstance(output, (list, tuple)) else output).numpy(),)


def build_runners(model: str, artifacts: Sequence[str], imgsz: int) -> dict[str, Runner]:
    """The FP32 model, copies with rounded weights, and exported files through Ultralytics' own backends."""
    import torch
    from ultralytics import YOLO
    from ultralytics.nn.autobackend import AutoBackend

    host = YOLO(model)
    module = host.model.float().eval().fuse()
    end2end = bool(getattr(module.model[-1], "end2end", False))
    info = ModelInfo(Task.DETECT, tuple(host.names.values()), (imgsz, imgsz), end2end=end2end)
    runners: dict[str, Runner] = {"fp32": ModuleRunner(module, info)}
    for scope, steps in LADDER:
        module_here = _rounded(module, steps, per_channel=scope == "channel")
        runners[f"weights, {steps} steps per {scope}"] = ModuleRunner(module_here, info)
    for path in artifacts:
        runners[Path(path).name] = ModuleRunner(AutoBackend(path, device=torch.device("cpu")), info)
    return runners


def _rounded(module: Any, steps: int, *, per_channel: bool) -> Any:
    """A copy with every convolution's weights rounded to a symmetric grid."""
    import torch

    result = copy.deepcopy(module)
    for layer in result.modules():
        if isinstance(layer, torch.nn.Conv2d):
            weight = layer.weight.data
            peak = weight.abs().flatten(1).amax(1).view(-1, 1, 1, 1) if per_channel else weight.abs().max()
            scale = peak.clamp(min=1e-9) / steps
            layer.weight.data = (weight / scale).round() * scale
    return result


def population(data: str, splits: Sequence[str]) -> ValidationSet:
    """All images of some splits as one set."""
    parts = [ValidationSet.from_yaml(data, split=split) for split in splits]
    return ValidationSet(tuple(i for part in parts for i in part.images), parts[0].names, data, "+".join(splits))


def sample_weights(images: int, size: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """A sample drawn from the population (row 0), and resamples of that sample (the other rows)."""
    sample = rng.multinomial(size, np.full(images, 1 / images))
    return np.concatenate([sample[None], rng.multinomial(size, sample / size, size=replicates)]).astype(np.float64)


def verdict_of(comparer: Comparer, gate: Gate, name: str, weights: np.ndarray) -> tuple[Verdict, list[str]]:
    """Verdict on one sample, and the checks that did not pass."""
    found = comparer.resampled(name, weights)
    comparison = Comparison(None, None, found.intervals["fidelity"])
    boxes = comparer.class_boxes(weights[0])
    size = round(float(weights[0].sum()))
    checks, _ = gate.judge(name, Measurements(comparison, found.intervals, found.class_drops, boxes, size))
    checks = tuple(check for check in checks if check.value is not None)  # latency and size are not simulated
    bad = [f"{check.name} {check.verdict.value}" for check in checks if check.verdict is not Verdict.PASS]
    return worst(check.verdict for check in checks), bad


def simulate(evaluation: Evaluation, gates: Sequence[Gate], options: dict[str, str]) -> list[str]:
    """Judge many samples of every size; returns the lines of a Markdown report."""
    comparer = Comparer(evaluation, BootstrapOptions(replicates=2))
    images, trials = len(evaluation.data), int(options["trials"])
    names = sorted(
        (name for name in evaluation.records if name != evaluation.options.baseline),
        key=lambda name: -comparer.compare(name).comparison.fidelity.value,
    )
    lines = []
    for gate in gates:
        lines += [
            f"Gate `{gate.name}`: pass / fail / inconclusive, in percent of {trials} samples.",
            "",
            f"| artifact | true drop | fidelity | {' | '.join(options['sizes'].split(','))} images | what decided |",
            f"|---|---|---|{'---|' * len(options['sizes'].split(','))}---|",
        ]
        lines += [_row(comparer, gate, name, images, options) for name in names]
        lines.append("")
    return lines


def _row(comparer: Comparer, gate: Gate, name: str, images: int, options: dict[str, str]) -> str:
    comparison = comparer.compare(name).comparison
    drop = f"{comparison.map_drop.value * 100:+.2f}" if comparison.map_drop else "-"
    cells, reasons = [], Counter[str]()
    for size in map(int, options["sizes"].split(",")):
        counts = Counter[Verdict]()
        # The same samples for every artifact and gate.
        for trial in range(int(options["trials"])):
            rng = np.random.default_rng([int(options["seed"]), size, trial])
            weights = sample_weights(images, size, int(options["replicates"]), rng)
            verdict, bad = verdict_of(comparer, gate, name, weights)
            counts[verdict] += 1
            reasons.update(bad)
        share = [100 * counts[v] / int(options["trials"]) for v in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)]
        cells.append(" / ".join(f"{value:.0f}" for value in share))
    why = ", ".join(f"{reason} x{count}" for reason, count in reasons.most_common(3)) or "-"
    row = f"| {name} | {drop} | {comparison.fidelity.value:.3f} | {' | '.join(cells)} | {why} |"
    print(row, file=sys.stderr, flush=True)
    return row


def main(arguments: Sequence[str]) -> int:
    """Run the simulation."""
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    artifacts = [path for path in options["artifacts"].split(",") if path]
    runners = build_runners(options["model"], artifacts, int(options["imgsz"]))
    data = population(options["data"], options["splits"].split(","))
    evaluation = evaluate(
        runners,
        data,
        EvaluateOptions(warmup=0),
        progress=lambda done, total, name: print(f"\r{done}/{total} {name}   ", end="", file=sys.stderr),
    )
    print(file=sys.stderr)
    for name, error in evaluation.errors.items():
        print(f"{name}: {error}", file=sys.stderr)
    gates = [load_gate(gate) for gate in options["gates"].split(",")]
    lines = [f"Population: {len(data)} images, {data.boxes} boxes of {options['data']} ({data.split}).", ""]
    text = "\n".join(lines + simulate(evaluation, gates, options))
    print(text)
    if options["out"]:
        Path(options["out"]).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
