"""What the comparison of artifacts with the FP32 model costs as images and classes grow, on synthetic detections.

    python tools/benchmark_comparison.py images=5000 classes=80,1203 old=../before

Detections of a baseline and of some artifacts are made up: 7.3 labels an image as in COCO, few frequent and many rare
classes, scores with the ties of an INT8 head. Then every artifact is held against the baseline as a verdict does it,
with estimates, sizes, classes and bootstrap, in a process of its own. With ``old`` another checkout of this project
does the same, and every figure must be equal to 1e-12. Ends with 0 if it is, else with 1.

Options (``key=value`` or ``--key value``): images (128,5000), classes (80), artifacts (5), found (300; detections an
image), replicates (1000), old (another checkout), output (runs/benchmark_comparison).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.options import parse_options, positive

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).resolve().parent / "bench" / "comparison_worker.py"
DEFAULTS = {
    "images": "128,5000",
    "classes": "80",
    "artifacts": "5",
    "found": "300",
    "replicates": "1000",
    "old": "",
    "output": "runs/benchmark_comparison",
}
_SECONDS = 3600
_EQUAL = 1e-12


def measure(checkout: Path, numbers: Sequence[int], output: Path) -> dict[str, Any]:
    """Let a checkout compare, in a process of its own.

    Raises:
        SystemExit: It failed; its output was printed.
    """
    line = [sys.executable, str(WORKER), str(output), *map(str, numbers)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        print(f"{checkout} could not compare:\n{done.stdout}{done.stderr}", file=sys.stderr)
        raise SystemExit(2)
    result: dict[str, Any] = json.loads(output.read_text())
    return result


def differences(one: Any, other: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Every figure's place and how far apart the two are; infinity where one is missing."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from differences(one.get(key), other.get(key), f"{place}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            yield from differences(mine, theirs, f"{place}/{index}")
    elif isinstance(one, (int, float)) and isinstance(other, (int, float)):
        yield place, abs(one - other)
    else:
        yield place, 0.0 if one == other else float("inf")


def row(name: str, numbers: Sequence[int], found: dict[str, Any]) -> str:
    """One line of the table."""
    images, classes, artifacts, *_ = numbers
    memory = f"{found['memory_before'] / 1e9:.2f} -> {found['peak_memory'] / 1e9:.2f}"
    costs = f"{found['seconds']:.1f} | {found['cpu_seconds']:.1f}"
    return f"| {name} | {images} | {classes} | {artifacts} | {costs} | {memory} |"


def main(arguments: Sequence[str]) -> int:
    """Measure every number of images with every number of classes, and print a table."""
    settings = parse_options(arguments, DEFAULTS, str(__doc__))
    artifacts, found, replicates = (positive(settings[key]) for key in ("artifacts", "found", "replicates"))
    folder = Path(settings["output"])
    folder.mkdir(parents=True, exist_ok=True)
    print("| checkout | images | classes | artifacts | seconds | processor seconds | GB, detections -> peak |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    worst = 0.0
    for classes in map(positive, settings["classes"].split(",")):
        for images in map(positive, settings["images"].split(",")):
            numbers = (images, classes, artifacts, found, replicates)
            new = measure(ROOT, numbers, folder / f"new-{images}-{classes}.json")
            print(row("this", numbers, new), flush=True)
            if settings["old"]:
                old = measure(Path(settings["old"]).absolute(), numbers, folder / f"old-{images}-{classes}.json")
                print(row("old", numbers, old), flush=True)
                place, apart = max(differences(old["figures"], new["figures"]), key=lambda pair: pair[1])
                print(f"largest difference {apart:.3g} at {place or 'nowhere'}")
                worst = max(worst, apart)
    return 0 if worst <= _EQUAL else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
