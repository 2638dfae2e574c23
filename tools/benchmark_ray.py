"""What a Ray cluster costs and wins: a validation by one process, and by workers of a cluster on this machine.

One process and each number of workers take turns; the report's figures are compared to the last bit on the way. Wall
times of the whole call, cluster's start included, and of the pass over the images alone; and the processor time of the
whole call in this process and in all that it started, which other work on the machine hardly changes.

    python tools/benchmark_ray.py model=yolo11n.pt data=coco256.yaml imgsz=320 workers=1,2 rounds=3

Options (``key=value`` or ``--key value``): model, exports (what is judged; the model itself once more if empty), data,
imgsz (320; where nothing but checkpoints is judged), limit (images; all if empty), workers (1,2), rounds (3), threads
(1; of every worker).
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

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
    times: dict[int, list[tuple[float, ...]]] = {way: [] for way in ways}
    first: ValidationResult | None = None
    for number in range(int(options["rounds"])):
        for way in ways:
            start, spent = time.perf_counter(), Processors()
            with spent:
                result = _validated(way, options)
            times[way].append((time.perf_counter() - start, result.seconds, spent.seconds))
            first = first or result
            if (result.baseline, result.targets) != (first.baseline, first.targets):
                print(f"round {number + 1}: {way} workers give another report than one process", file=sys.stderr)
                return 1
            print(f"  round {number + 1}, {way} workers: {times[way][-1]}", file=sys.stderr, flush=True)
    print(table(_HEAD, [_row(way, times) for way in ways]))
    return 0


class Processors:
    """Processor time of this process and of all that it starts, as long as this context lasts."""

    _EVERY = 0.25  # seconds; what a process does after its last look is lost

    def __init__(self) -> None:
        self._own, self._over = psutil.Process(), threading.Event()
        self._seen: dict[tuple[int, float], float] = {}
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._before = 0.0

    @property
    def seconds(self) -> float:
        """How much it was."""
        return sum(self._seen.values()) - self._before

    def __enter__(self) -> None:
        self._note(self._own)
        self._before = sum(self._seen.values())
        self._watch.start()

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._watch.join()
        self._note(self._own)

    def _look(self) -> None:
        while not self._over.wait(self._EVERY):
            for process in self._own.children(recursive=True):
                self._note(process)

    def _note(self, process: psutil.Process) -> None:
        try:
            spent = process.cpu_times()
            # a number may come again, for another process
            self._seen[process.pid, process.create_time()] = spent.user + spent.system
        except psutil.Error:  # it has ended
            pass


_HEAD = (
    "",
    *("whole call, s", "against one process"),
    *("pass alone, s", "against one process"),
    *("processor, s", "against one process"),
)


def _row(way: int, times: Mapping[int, list[tuple[float, ...]]]) -> list[str]:
    """Medians; ratios are medians over the rounds, in which all ways took turns."""
    cells = ["one process" if way == 0 else f"Ray, {way} workers"]
    for part in range(3):
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
