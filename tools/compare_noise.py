"""How far does a drop move when nothing changes but a level of noise in the pixels? One within that is no plan's fault.

Every file runs in its own runtime over the same images several times: as they are, and with every value of every
pixel one level up, one down or as it was, each as likely. The float model runs beside it on the same pixels. What
differs between the drops is the luck of where values round; intervals by resampling images say nothing of it, since
all of an interval is of one rounding.

    python tools/compare_noise.py model=yolo11n-seg.pt data=coco_seg/data.yaml targets=onnxruntime,litert

The drop of a row is the float model's figure on those pixels less the file's, in points of the task's main metric; the
last two columns hold how much more the file loses than the first of ``targets=`` on the same pixels, and the 95 %
interval of that mean by Student's t. The float model's row is its figure less that on the images as they are.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from tools.bench.table import table
from tools.bench.tell import tell
from tools.benchmark_pooled import opened
from tools.benchmark_tasks import calibrated
from tools.options import boolean, parse_options, positive
from yoloquant import targets
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import YoloquantError
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import evaluate
from yoloquant.evaluation.judged_models import BASELINE
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.quantization.simulate import simulate
from yoloquant.runtime.core.runner import Runner

USAGE = """\
usage: python tools/compare_noise.py model=<checkpoint> data=<data yaml> [key=value ...]

  targets   onnxruntime,litert
  images    calibration images, of data's train split, default 128
  limit     scored images, default all
  imgsz     input size, default the checkpoint's
  threads   threads of every runtime, default 2
  seeds     times that the images are disturbed, default 5
  level     how far a value moves at most, in levels of 255, default 1
  simulated also run every plan in PyTorch, default false
  artifact  checkpoint (.pt) of the calibrated model, read if it is there, else written; default none
  out       file that the table is appended to
"""
DEFAULTS = {
    **{"model": "", "data": "", "targets": "onnxruntime,litert", "images": "128", "limit": "", "imgsz": ""},
    **{"threads": "2", "seeds": "5", "level": "1", "simulated": "false", "artifact": "", "out": ""},
}
LEVELS = 255
HEAD = ("", "as they are", "disturbed: mean", "s.d.", "least and most", "more than the first", "")


class Disturbed(Runner):
    """A model that sees other pixels than it is given: the same ones for every model with its seed.

    Args:
        inner: The model.
        seed: Which disturbance; None for none.
        level: How far a value moves at most.
    """

    def __init__(self, inner: Runner, seed: int | None, level: int) -> None:
        self.info, self.layout, self._inner, self._seed, self._level = inner.info, inner.layout, inner, seed, level

    def infer(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """See ``Runner.infer``."""
        return self._inner.infer(image if self._seed is None else disturbed(image, self._seed, self._level))

    def decode(self, outputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """See ``Runner.decode``."""
        return self._inner.decode(outputs)


def disturbed(image: np.ndarray, seed: int, level: int) -> np.ndarray:
    """An image with every value moved by up to so many levels, each as likely, by seed and image alone.

    Args:
        image: float32, 0 to 1, of whole levels.
        seed: Which disturbance.
        level: How far.
    """
    levels = np.rint(image * LEVELS).astype(np.int32)
    # of the image too, or all images would get one and the same pattern
    random = np.random.default_rng((seed, int(levels.sum(dtype=np.int64))))
    moved = np.clip(levels + random.integers(-level, level + 1, levels.shape, dtype=np.int32), 0, LEVELS)
    return (moved / np.float32(LEVELS)).astype(np.float32)


def figures(runners: Mapping[str, Runner], data: ValidationSet, seed: int | None, level: int) -> dict[str, float]:
    """The main metric of every model on the images with one disturbance, in points."""
    seen = {name: Disturbed(runner, seed, level) for name, runner in runners.items()}
    comparer = Comparer(evaluate(seen, data), BootstrapOptions(replicates=1))
    accuracies = {name: comparer.accuracy(name) for name in runners}
    return {name: 100 * found.map50_95 for name, found in accuracies.items() if found is not None}


def rows(plain: Mapping[str, float], noisy: Sequence[Mapping[str, float]]) -> list[tuple[str, ...]]:
    """The table: every model's drop on the images as they are, and disturbed.

    Args:
        plain: Figures in points on the images as they are, the float model's under its name, by model.
        noisy: The same of each disturbance.
    """
    first, *_ = (name for name in plain if name != BASELINE)
    lines = []
    for name in plain:
        if name == BASELINE:
            values = [each[name] - plain[name] for each in noisy]
            lines.append((f"{name}, its own change", "0", *_spread(values), "", ""))
            continue
        drops = [each[BASELINE] - each[name] for each in noisy]
        cells = (name, f"{plain[BASELINE] - plain[name]:+.2f}", *_spread(drops))
        if name == first:
            lines.append((*cells, "", ""))
            continue
        beside = [each[first] - each[name] for each in noisy]
        mean, half = (
            float(np.mean(beside)),
            student(len(beside)) * float(np.std(beside, ddof=1)) / math.sqrt(len(beside)),
        )
        lines.append((*cells, f"{mean:+.2f}", f"[{mean - half:+.2f}, {mean + half:+.2f}]"))
    return lines


def _spread(values: Sequence[float]) -> tuple[str, str, str]:
    return f"{np.mean(values):+.2f}", f"{np.std(values, ddof=1):.2f}", f"{min(values):+.2f} .. {max(values):+.2f}"


def student(count: int) -> float:
    """The factor of a standard error that gives the 95 % interval of a mean of so many values."""
    from scipy.stats import t

    return float(t.ppf(0.975, count - 1))


def measure(options: dict[str, str], folder: Path) -> tuple[int, list[tuple[str, ...]]]:
    """Calibrate, export, run: the number of images, and the table."""
    names = options["targets"].split(",")
    artifact = calibrated(options, names)
    limit = positive(options["limit"]) if options["limit"] else None
    data = ValidationSet.open(options["data"], artifact.info).take(limit).for_classes(artifact.info.names)
    threads = positive(options["threads"])
    runners = opened(artifact, names, folder, threads)
    if boolean(options["simulated"]):
        for name in names:
            scheme = targets.get(name).scheme
            module = simulate(artifact.graph, artifact.plan_for(scheme), bias=artifact.bias_for(scheme))
            runners[f"{name}, simulated"] = TorchRunner(module, artifact.info, threads)
    level, seeds = positive(options["level"]), positive(options["seeds"])
    try:
        plain = figures(runners, data.require_labels(), None, level)
        noisy = [figures(runners, data, seed, level) for seed in range(seeds)]
    finally:
        for runner in runners.values():
            runner.close()
    return len(data), rows(plain, noisy)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments, DEFAULTS, USAGE)
    if not options["model"] or not options["data"]:
        print(USAGE)
        return 2
    try:
        if positive(options["seeds"]) < 2:
            raise argparse.ArgumentTypeError("seeds=1 has no spread, allowed is a whole number above 1")
        positive(options["level"]), boolean(options["simulated"])
        with tempfile.TemporaryDirectory(prefix="yoloquant-") as scratch:
            images, found = measure(options, Path(scratch) / "exports")
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    what = f"{images} images, {options['seeds']} disturbances of {options['level']} level"
    tell(f"### {Path(options['model']).name}, {what}\n\n{table(HEAD, found)}\n", options["out"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
