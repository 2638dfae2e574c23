"""Does the calibration audit tell good calibration images from bad ones?

Audits a model's calibration on its own data, on eight images of it, on each foreign data set and on black images,
always against the same images to be scored, and prints what it says.

    python tools/check_audit.py model=yolo11n.pt data=coco.yaml foreign=cells.yaml

Options (``key=value`` or ``--key value``): model, data, foreign (data sets of another domain, separated by commas;
none), imgsz (320), images (128), threads (2), out (a Markdown file; default: printed only).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tools.bench.simulated import print_report, progress
from tools.bench.table import table
from tools.options import positive
from yoloquant.bridge.checkpoint import load_model
from yoloquant.data.calibration import CalibrationOptions, calibration_set
from yoloquant.graph.traced_model import TracedModel
from yoloquant.quantization.calibrate import observe
from yoloquant.quantization.calibration_audit import CalibrationAudit, ImageStatistics, audit
from yoloquant.quantization.ptq import SCORED_IMAGES
from yoloquant.quantization.scheme import PORTABLE, derive

DEFAULTS = {
    "model": "yolo11n.pt",
    "data": "coco8.yaml",
    "foreign": "none",
    "imgsz": "320",
    "images": "128",
    "threads": "2",
    "out": "",
}
FEW = 8
HEAD = ("calibration", "images", "growth", "settled at", "sees objects", "classes", "spread", "distance", "warnings")


def statistics(traced: TracedModel, images: Iterable[np.ndarray], label: str) -> ImageStatistics:
    """What images do inside the network."""
    plan = derive(traced.graph, PORTABLE)
    seen = observe(traced.graph, [plan], images, gradients=0, progress=lambda done, _: progress(done, 0, label))
    assert seen.statistics is not None
    return seen.statistics


def row(label: str, found: CalibrationAudit) -> tuple[str, ...]:
    """One line of the table."""
    return (
        label,
        str(found.images),
        f"{found.growth:.1%}",
        str(found.settled_at or "more"),
        "" if found.seeing is None else f"{found.seeing:.0%}",
        "" if found.classes is None else f"{found.classes} of {found.all_classes}",
        f"{found.spread:.1%}",
        "" if found.distance is None else f"{found.distance:.2f}",
        "; ".join(found.warnings) or "none",
    )


def run(options: Mapping[str, str]) -> str:
    """Audit every set.

    Returns:
        The report.

    Raises:
        YoloquantError: The model, the data or an option cannot be used.
    """
    import torch

    torch.set_num_threads(positive(options["threads"]))
    count = positive(options["images"])
    traced = TracedModel.of(load_model(options["model"]), positive(options["imgsz"]))
    size, task = traced.info.imgsz, traced.info.task
    foreign = [] if options["foreign"] == "none" else options["foreign"].split(",")
    chosen = [(options["data"], count), (options["data"], FEW), *((data, count) for data in foreign)]
    scored = calibration_set(options["data"], CalibrationOptions(images=SCORED_IMAGES, split="val", allow_scored=True))
    held = statistics(traced, scored.tensors(size, task), "scored")
    lines = []
    for data, images in chosen:
        sample = calibration_set(data, CalibrationOptions(images=images))
        found = audit(statistics(traced, sample.tensors(size, task), Path(data).stem), traced.info.names, held)
        lines.append(row(f"{Path(data).stem}", found))
    black = (np.zeros((1, traced.info.channels, *size), np.float32) for _ in range(count))
    lines.append(row("black", audit(statistics(traced, black, "black"), traced.info.names, held)))
    return f"{Path(options['model']).name} at {size[0]} pixels.\n\n{table(HEAD, lines)}\n"


def main(arguments: Sequence[str]) -> int:
    """Run the check and print its table."""
    return print_report(arguments, DEFAULTS, __doc__ or "", run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
