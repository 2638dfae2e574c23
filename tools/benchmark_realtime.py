"""The whole loop over a video (read, preprocess, infer, postprocess, draw): ours, Ultralytics', and inference alone.

    python tools/benchmark_realtime.py model=../shared/weights/yolo11n.pt data=../shared/data/coco256/coco256.yaml

It makes a video of images of a data set, quantizes and exports the checkpoint (or takes ``exports=``), and lets four
loops over that video take turns in an order drawn anew for every round: the network alone on prepared frames, one after
the other and by as many workers as our ``predict`` has; our ``predict`` with drawing; and
``YOLO(artifact).predict(stream=True)`` with ``plot()``; each side in its own process.
Ratios are taken within a round. ``realtime.md`` and ``realtime.json`` are written. Exit code 4 if a loop failed.

Options (``key=value`` or ``--key value``): model, data (demo: drawn scenes), exports (a folder that yoloquant export
wrote, instead of model), targets (onnxruntime,openvino,litert), imgsz (640), images (64, calibration), frames (100),
size (640x480), codec (mp4v; also MJPG), rounds (7), threads (2), workers (auto: as ``predict`` chooses; or how many
share the threads), conf (0.25), precision (f32; also auto: what OpenVINO computes float operations in, in our loop;
Ultralytics leaves it to OpenVINO), output (runs/realtime).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yoloquant import QuantizeOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["YOLO_VERBOSE"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine
os.environ.setdefault("YOLO_OFFLINE", "true")

from tools.bench.realtime import OVERHEAD_GOAL, SPEED_GOAL, compare, table
from tools.bench.realtime_video import write_video
from tools.bench.realtime_worker import Job
from tools.options import parse_options, positive
from yoloquant.errors import UsageError, YoloquantError
from yoloquant.io import output_folder, write_text

logger = logging.getLogger("benchmark_realtime")

DEFAULTS = {
    "model": "yolo11n.pt",
    "data": "demo",
    "exports": "",
    "targets": "onnxruntime,openvino,litert",
    "imgsz": "640",
    "images": "64",
    "frames": "100",
    "size": "640x480",
    "codec": "mp4v",
    "rounds": "7",
    "threads": "2",
    "workers": "auto",
    "conf": "0.25",
    "precision": "f32",
    "output": "runs/realtime",
}
CODECS = {"mp4v": ".mp4", "MJPG": ".avi"}


@dataclass(frozen=True)
class Settings:
    """What is measured, and how; see the module's description."""

    model: Path
    data: str
    exports: str
    targets: tuple[str, ...]
    imgsz: int
    images: int
    frames: int
    size: tuple[int, int]
    codec: str
    rounds: int
    threads: int
    workers: int | None
    conf: float
    precision: str
    output: Path

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Settings:
        """Read the command line.

        Raises:
            UsageError: A value that is not allowed.
            argparse.ArgumentTypeError: A number that is none.
        """
        values = parse_options(arguments, DEFAULTS, __doc__ or "")
        if values["codec"] not in CODECS:
            raise UsageError(f"codec={values['codec']} is not supported; allowed are {', '.join(CODECS)}")
        if values["precision"] not in {"f32", "auto"}:
            raise UsageError(f"precision={values['precision']} is not supported; allowed are f32 and auto")
        sides = values["size"].split("x")
        if len(sides) != 2:
            raise UsageError(f"size={values['size']} is not supported; allowed is widthxheight, for instance 640x480")
        try:
            conf = float(values["conf"])
        except ValueError:
            raise UsageError(f"conf={values['conf']} is not a number") from None
        return cls(
            model=Path(values["model"]),
            size=(positive(sides[0]), positive(sides[1])),
            conf=conf,
            workers=None if values["workers"] == "auto" else positive(values["workers"]),
            targets=tuple(n.strip() for n in values["targets"].split(",") if n.strip()),
            output=Path(values["output"]),
            **{key: values[key] for key in ("data", "exports", "codec", "precision")},
            **{key: positive(values[key]) for key in ("imgsz", "images", "frames", "rounds", "threads")},
        )


def artifacts(settings: Settings, data: str) -> dict[str, Path]:
    """The artifacts that are measured, by target; exported here unless they were given.

    Raises:
        YoloquantError: They cannot be made or read.
    """
    from yoloquant import api
    from yoloquant.data.calibration import CalibrationOptions
    from yoloquant.targets.exports import load_exports

    if settings.exports:
        found = {e.target: e.path for e in load_exports(settings.exports)}
    else:
        options = QuantizeOptions(imgsz=settings.imgsz, calibration=CalibrationOptions(images=settings.images))
        artifact = api.quantize(settings.model, data=data, options=options)
        exported = api.export(artifact, targets=settings.targets, output=settings.output / "exports")
        found = {e.target: e.path for e in exported.exports}
    chosen = {name: found[name] for name in settings.targets if name in found}
    if not chosen:
        raise UsageError(f"none of {', '.join(settings.targets)} is among {', '.join(found)}; choose other targets=")
    return chosen


def dataset(settings: Settings) -> str:
    """The data yaml; that of the drawn demo scenes if none is named."""
    if settings.data != "demo":
        return settings.data
    from datasets.demo import write_demo_set

    return str(write_demo_set(settings.output / "demo", train=settings.images, val=32, imgsz=640))


def run(settings: Settings) -> dict[str, Any]:
    """The whole benchmark.

    Returns:
        What is written to ``realtime.json``.

    Raises:
        YoloquantError: The model or the data cannot be used.
    """
    from yoloquant.runtime.apps.bench import cpu_name
    from yoloquant.runtime.device.processors import affinity
    from yoloquant.runtime.device.sensors import load_average

    output_folder(settings.output)
    data = dataset(settings)
    video = settings.output / f"video{CODECS[settings.codec]}"
    images = write_video(data, video, settings.frames, settings.size, settings.codec)
    found = artifacts(settings, data)
    jobs = {
        (name, theirs): Job(
            path.resolve(),
            video.resolve(),
            settings.threads,
            settings.workers,
            settings.conf,
            settings.precision,
            theirs,
            settings.output / "logs" / f"{name}{'-ultralytics' if theirs else ''}.log",
        )
        for name, path in found.items()
        for theirs in (False, True)
    }
    load = load_average()
    rows = compare(jobs, settings.rounds, _progress)
    result = {
        "format": 1,
        "environment": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "affinity": list(affinity()),
            "load": load,
            "load_after": load_average(),
            "images": images,
            **{k: v for k, v in asdict(settings).items() if k not in {"output", "exports", "model", "data", "targets"}},
            "model": Path(settings.exports or settings.model).name,
            "data": Path(settings.data).name,
        },
        "goals": {"overhead": OVERHEAD_GOAL, "speed": SPEED_GOAL},
        "rows": [row.to_dict() for row in rows],
    }
    write_text(settings.output / "realtime.json", json.dumps(result, indent=1))
    write_text(settings.output / "realtime.md", table(result["environment"], rows))
    return result


def _progress(done: int, total: int, what: str) -> None:
    print(f"\r{done}/{total} {what:<40.40}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and print its table."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        settings = Settings.parse(arguments)
        result = run(settings)
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print((settings.output / "realtime.md").read_text(encoding="utf-8"))
    return 4 if any(row["error"] for row in result["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
