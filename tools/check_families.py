"""Does every model family survive quantization? Trains a small one of each, quantizes, exports and scores it.

    python tools/check_families.py families=yolov10n,yolo26n,yolov8n,yolo12n,yolov9t,yolov5n,yolo11n

Every family is built from Ultralytics' description and trained from scratch on drawn scenes (the demo set's generator
with a seed of its own), since random weights hide what range finding and end-to-end heads do to real detections. The
checkpoint is quantized on training scenes, exported to every target, and scored on other scenes; Ultralytics' own
validator is asked about each file as well. Checkpoints and results stay in the work folder, so that a second run goes
on where the first one stopped. A family or target that fails is reported, the rest continue, and the exit code is 4.

Options (``key=value`` or ``--key value``): families, targets (all), scheme (auto: each target's own; or portable), work
(runs/families), imgsz (160), scenes (1200), val (160), epochs (20), batch (16), images (64, calibration), threads (1),
bootstrap (500), agree (true), out (a Markdown file; default: printed only).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yoloquant import QuantizeOptions, ValidateOptions, targets

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine

from datasets.demo import write_demo_set
from tools.bench.agreement import ask
from tools.bench.families import Training, trained
from tools.bench.integers import integers
from tools.bench.table import table
from tools.options import boolean, parse_options, positive
from yoloquant import api
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.errors import YoloquantError
from yoloquant.evaluation.results import Interval, TargetResult, ValidationResult
from yoloquant.io import output_folder, write_text
from yoloquant.types import ExportedModel

logger = logging.getLogger("families")

DEFAULTS = {
    "families": "yolov10n,yolo26n,yolov8n,yolo12n,yolov9t,yolov5n,yolo11n",
    "targets": "all",
    "scheme": "auto",
    "work": "runs/families",
    "imgsz": "160",
    "scenes": "1200",
    "val": "160",
    "epochs": "20",
    "batch": "16",
    "images": "64",
    "threads": "1",
    "bootstrap": "500",
    "agree": "true",
    "out": "",
}
SEED = 2
"""Of the scenes: 0 is the demo set's own, 1 the one that the demo's checkpoint was trained on."""

HEAD = ("family", "target", "mAP50-95", "drop, points [95 %]", "fidelity [95 %]", "integer convolutions", "val() gap")
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What is trained and measured; see the module's description."""

    families: tuple[str, ...]
    targets: str
    scheme: str
    work: Path
    training: Training
    val: int
    images: int
    bootstrap: int
    agree: bool

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Settings:
        """Read the options.

        Raises:
            argparse.ArgumentTypeError: A value is of the wrong type.
            UsageError: A target is unknown.
        """
        numbers = {key: positive(values[key]) for key in ("imgsz", "scenes", "epochs", "batch", "threads")}
        targets.resolve(values["targets"])
        return cls(
            families=tuple(filter(None, (name.strip() for name in values["families"].split(",")))),
            targets=values["targets"],
            scheme=values["scheme"],
            work=Path(values["work"]),
            training=Training(**numbers),
            val=positive(values["val"]),
            images=positive(values["images"]),
            bootstrap=positive(values["bootstrap"]),
            agree=boolean(values["agree"]),
        )


def scenes(settings: Settings) -> Path:
    """Draw the scenes, or find them drawn; returns their data yaml."""
    size = settings.training.imgsz
    folder = settings.work / f"scenes-{settings.training.scenes}-{settings.val}-{size}"
    return write_demo_set(folder, train=settings.training.scenes, val=settings.val, imgsz=size, seed=SEED)


def check(family: str, settings: Settings, data: Path) -> list[Row]:
    """Train, quantize, export and score one family.

    Returns:
        A row for the float model and one for each target; the failed ones with their error.
    """
    checkpoint = trained(family, settings.training, data, output_folder(settings.work / "checkpoints"))
    kept = settings.work / "results" / settings.scheme / checkpoint.stem
    logger.info("%s: quantizing %s", family, checkpoint.name)
    options = QuantizeOptions(imgsz=settings.training.imgsz, calibration=CalibrationOptions(images=settings.images))
    artifact = api.quantize(checkpoint, data=data, scheme=settings.scheme, options=options)
    exported = api.export(artifact, targets=settings.targets, output=kept, keep_going=True)
    judged = api.validate(
        artifact,
        exported,
        data=data,
        options=ValidateOptions(
            threads=settings.training.threads, latency=False, memory=False, bootstrap=settings.bootstrap
        ),
    )
    files = {e.target: e for e in exported.exports}
    rows = [_row(family, r, files.get(r.target), settings, data) for r in (judged.baseline, *judged.targets)]
    _remember(kept / "rows.json", rows, judged)
    return rows


def _row(family: str, found: TargetResult, file: ExportedModel | None, settings: Settings, data: Path) -> Row:
    compared = found.comparison
    row: Row = {
        "family": Path(family).stem,
        "target": found.target,
        "error": found.error,
        "map50_95": found.accuracy.map50_95 if found.accuracy else None,
        "map50": found.accuracy.map50 if found.accuracy else None,
        "drop": _interval(compared.map_drop) if compared else None,
        "fidelity": _interval(compared.fidelity) if compared else None,
        "matched": compared.matched if compared else None,
        "integers": "",
        "gap": None,
        "gap_error": "",
    }
    if file is None or found.error or found.accuracy is None:
        return row
    try:
        row["integers"] = integers(file)
    except Exception as exc:  # a statistic must not cost the row
        logger.exception("%s: the operators of %s cannot be counted", family, found.target)
        row["integers"] = f"not counted: {type(exc).__name__}"
    if settings.agree and file.drop_in:
        ours = (found.accuracy.map50_95, found.accuracy.map50)
        theirs = ask(file.path, ours, data, settings.training.imgsz, settings.work / "val" / file.path.stem)
        row["gap"], row["gap_error"] = theirs.difference, theirs.error
    return row


def _interval(value: Interval | None) -> tuple[float, float, float] | None:
    return None if value is None else (value.value, value.low, value.high)


def _remember(path: Path, rows: Sequence[Row], judged: ValidationResult) -> None:
    content = {"rows": rows, "images": judged.images, "labels": judged.labels, "environment": judged.environment}
    write_text(path, json.dumps(content, indent=1, default=str))


def report(rows: Sequence[Row], settings: Settings) -> str:
    """The Markdown table."""
    how = settings.training
    intro = (
        f"Trained from scratch on {how.scenes} drawn scenes for {how.epochs} epochs at imgsz {how.imgsz}, quantized "
        f"(scheme {settings.scheme}) on {settings.images} of them, scored on {settings.val} others. `val() gap`: "
        "points of mAP50-95 that `YOLO(file).val()` says more; it runs OpenVINO at the precision that it chooses and "
        "the TensorRT file with ONNX Runtime's optimizations, the other columns do not."
    )
    return f"{intro}\n\n{table(HEAD, [_cells(row) for row in rows])}\n"


def _cells(row: Row) -> tuple[str, ...]:
    if row["error"]:
        said = " ".join(row["error"].split()).replace("|", "/")[:200]
        return (row["family"], row["target"], f"failed: {said}", *[""] * (len(HEAD) - 3))
    gap = "failed: " + row["gap_error"].replace("|", "/")[:80] if row["gap_error"] else _points(row["gap"])
    return (
        row["family"],
        row["target"],
        "" if row["map50_95"] is None else f"{row['map50_95']:.4f}",
        _span(row["drop"], 100, "+.2f"),
        _span(row["fidelity"], 1, ".3f"),
        row["integers"],
        gap,
    )


def _points(value: float | None) -> str:
    return "" if value is None else f"{value * 100:+.3f}"


def _span(value: tuple[float, float, float] | None, factor: float, form: str) -> str:
    if value is None:
        return ""
    middle, low, high = (format(v * factor, form) for v in value)
    return f"{middle} [{low}, {high}]"


def run(settings: Settings) -> list[Row]:
    """Check every family; a failure becomes a row.

    Raises:
        YoloquantError: The work folder cannot be written.
    """
    import torch

    torch.set_num_threads(settings.training.threads)
    data = scenes(settings)
    rows: list[Row] = []
    for family in settings.families:
        try:
            rows += check(family, settings, data)
        except Exception as exc:  # whatever one family raises is its result
            logger.exception("%s failed", family)
            where = traceback.extract_tb(exc.__traceback__)[-1]
            error = f"{type(exc).__name__}: {exc} ({Path(where.filename).name}:{where.lineno})"
            rows.append({"family": Path(family).stem, "target": "", "error": error})
        print(report(rows, settings), flush=True)
    return rows


def main(arguments: Sequence[str]) -> int:
    """Run the check and print its table, again after every family."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logger.setLevel(logging.INFO)
    options = parse_options(arguments, DEFAULTS, __doc__ or "")
    try:
        settings = Settings.parse(options)
        output_folder(settings.work)
        rows = run(settings)
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    if options["out"]:
        write_text(Path(options["out"]), report(rows, settings))
    return 4 if any(row["error"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
