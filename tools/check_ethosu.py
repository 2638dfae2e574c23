"""Which operators of a detector an Arm Ethos-U runs, and what Vela estimates, as a Markdown table.

    python tools/check_ethosu.py model=yolo11n.pt data=coco256.yaml imgsz=320 attention=fitted

The model is calibrated, converted once, and compiled by Vela for every accelerator that is named; what would stay on
the CPU is listed instead of refused. Cycles and memory are Vela's estimates for its reference systems.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"

from tools.bench.tell import tell
from tools.options import parse_options
from yoloquant import CalibrationOptions, QuantizeOptions, quantize
from yoloquant.errors import TargetError
from yoloquant.targets.ethosu.accelerators import accelerator
from yoloquant.targets.ethosu.target import EthosUTarget
from yoloquant.targets.ethosu.vela import VelaReport, run_vela
from yoloquant.targets.litert.metadata import read
from yoloquant.targets.litert.target import LiteRTTarget

USAGE = """\
usage: python tools/check_ethosu.py model=<checkpoint> data=<data yaml> [key=value ...]

  accelerators  default u55-128,u55-256,u65-512,u85-256,u85-512
  attention     keep, or fitted: self-attention is replaced by convolutions first; default keep
  imgsz         input size, default the checkpoint's
  images        calibration images, default 32
  out           file that the table is appended to
"""
DEFAULTS = {
    **{"model": "", "data": "", "accelerators": "u55-128,u55-256,u65-512,u85-256,u85-512", "attention": "keep"},
    **{"imgsz": "", "images": "32", "out": ""},
}
HEADER = (
    "| model | accelerator | operators on the NPU | on the CPU | SRAM, KiB | DRAM, KiB | Mcycles | ms |",
    "|---|---|---:|---|---:|---:|---:|---:|",
)


def converted(options: dict[str, str], folder: Path) -> bytes:
    """The integer network of a checkpoint.

    Args:
        options: See ``USAGE``.
        folder: For the files between.
    """
    size = int(options["imgsz"]) if options["imgsz"] else None
    model = Path(options["model"])
    calibration = CalibrationOptions(images=int(options["images"]))
    if options["attention"] == "fitted":
        (prepared,) = EthosUTarget.preparations
        changed = folder / model.name
        prepared(model, changed, data=options["data"], imgsz=size, calibration=calibration)
        model = changed
    how = QuantizeOptions(imgsz=size, calibration=calibration)
    artifact = quantize(model, data=options["data"], scheme=EthosUTarget.scheme.name, options=how)
    exported = LiteRTTarget.export(EthosUTarget(), artifact, folder, "network")
    return read(exported.path)[1]


def row(model: str, report: VelaReport) -> str:
    """A line of the table."""
    left = ", ".join(f"{count} {kind}" for kind, count in Counter(kind for kind, _ in report.on_cpu).most_common())
    return (
        f"| {model} | {report.accelerator} | {report.operators - len(report.on_cpu)} of {report.operators} | {left} | "
        f"{report.sram_kib:.0f} | {report.dram_kib:.0f} | {report.cycles / 1e6:.2f} | {report.milliseconds:.1f} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments, DEFAULTS, USAGE)
    if not options["model"] or not options["data"] or options["attention"] not in {"keep", "fitted"}:
        print(USAGE)
        return 2
    chosen = [accelerator(name) for name in options["accelerators"].split(",")]
    name = Path(options["model"]).stem + (", attention fitted" if options["attention"] == "fitted" else "")
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as folder:
        content = converted(options, Path(folder))
    lines = [*HEADER]
    for each in chosen:
        try:
            lines.append(row(name, run_vela(each, content).report))
        except TargetError as exc:
            lines.append(f"| {name} | {each.name} | {exc} | | | | | |")
    text = "\n".join(lines) + "\n"
    tell(text, options["out"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
