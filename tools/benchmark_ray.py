"""What a Ray cluster costs and wins: a validation by one process, and by workers of a cluster on this machine.

One process and each number of workers take turns; the report's figures are compared to the last bit on the way. Wall
times of the whole call, cluster's start included, and of the pass over the images alone.

    python tools/benchmark_ray.py model=yolo11n.pt data=coco256.yaml imgsz=320 workers=1,2 rounds=3

Options (``key=value`` or ``--key value``): model, exports (what is judged; the model itself once more if empty), data,
imgsz (320; where nothing but checkpoints is judged), limit (images; all if empty), workers (1,2), rounds (3), threads
(1; of every worker).
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"

from tools.bench.table import table
from tools.options import parse_options
from yoloquant.evaluation.results import ValidationResult
from yoloquant.evaluation.validate import validate
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.predictions.prediction_options import PredictionOptions

DEFAULTS = {
    "model": "yolo11n.pt",
    "exports": "",
    "data": "coco8.yaml",
    "imgsz": "320",
    "limit": "",
    "workers": "1,2",
    "rounds": "3",
    "threads": "1",
}


def main() -> int:
    """Measure, compare and print the table; 1 if a figure differs."""
    options = parse_options(sys.argv[1:], DEFAULTS, str(__doc__))
    import torch

    torch.set_num_threads(int(options["threads"]))
    ways = [0, *(int(n) for n in options["workers"].split(","))]
    times: dict[int, list[tuple[float, float]]] = {way: [] for way in ways}
    first: ValidationResult | None = None
    for number in range(int(options["rounds"])):
        for way in ways:
            start = time.perf_counter()
            result = _validated(way, options)
            times[way].append((time.perf_counter() - start, result.seconds))
            first = first or result
            if (result.baseline, result.targets) != (first.baseline, first.targets):
                print(f"round {number + 1}: {way} workers give another report than one process", file=sys.stderr)
                return 1
            print(f"  round {number + 1}, {way} workers: {times[way][-1]}", file=sys.stderr, flush=True)
    print(table(_HEAD, [_row(way, times) for way in ways]))
    return 0


_HEAD = ("", "whole call, s", "against one process", "pass alone, s", "against one process")


def _row(way: int, times: Mapping[int, list[tuple[float, float]]]) -> list[str]:
    """Medians; ratios are medians over the rounds, in which all ways took turns."""
    cells = ["one process" if way == 0 else f"Ray, {way} workers"]
    for part in (0, 1):
        ratios = [mine[part] / alone[part] for mine, alone in zip(times[way], times[0], strict=True)]
        cells += [f"{statistics.median(t[part] for t in times[way]):.1f}", f"{statistics.median(ratios):.2f}"]
    return cells


def _validated(workers: int, options: Mapping[str, str]) -> ValidationResult:
    where: dict[str, Any] = {} if workers == 0 else {"on": "ray", "shards": workers}
    how = ValidateOptions(
        threads=int(options["threads"]),
        latency=False,
        memory=False,
        cache=False,  # a pass that is recalled takes no time
        limit=int(options["limit"]) if options["limit"] else None,
        # artifacts have a size of their own
        recorded=PredictionOptions(imgsz=None if options["exports"] else options["imgsz"]),
        **where,
    )
    return validate(options["model"], options["exports"] or options["model"], data=options["data"], options=how)


if __name__ == "__main__":
    sys.exit(main())
