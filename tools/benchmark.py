"""Our INT8 exports and Ultralytics' own, of one checkpoint, side by side in one run: the table in the README.

    python tools/benchmark.py model=../shared/weights/yolo11n.pt data=../shared/data/coco256/coco256.yaml

It quantizes the checkpoint on the train split and exports it to every target with the target's own plan and with the
portable one; has Ultralytics make its INT8 exports (once per checkpoint and data, kept in the output folder); scores
all of them in one interleaved pass over the val split; times them in interleaved rounds; asks Ultralytics' own
validator about every file that it can load; and writes ``benchmark.md`` and ``benchmark.json``. Exit code 4 if a
contender could not be measured.

Options (``key=value`` or ``--key value``): model, data, imgsz (640), images (128, calibration), limit (none; score only
so many images), threads (2), output (runs/benchmark), targets (onnxruntime,openvino,litert,tensorrt), rounds (60),
bootstrap (1000), agree (true), skip_ultralytics (false).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yoloquant import QuantizeOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine
os.environ["YOLO_VERBOSE"] = "false"  # read once, when Ultralytics is imported

from tools.bench.agreement import Agreement, agree
from tools.bench.contenders import (
    BASELINE,
    Contender,
    Field,
    Kind,
    add_auto,
    add_floats,
    add_fused,
    add_ours,
    add_theirs,
    latency_groups,
)
from tools.bench.goals import goals
from tools.bench.latency import Timing, measure
from tools.bench.mirror import mirror
from tools.bench.rows import build_rows, overhead
from tools.bench.table import markdown
from tools.bench.theirs import export_theirs
from tools.options import boolean, parse_options, positive
from yoloquant import api, targets
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import YoloquantError
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.io import output_folder, write_text
from yoloquant.quantization.artifact import Artifact, versions
from yoloquant.runtime.core.letterbox import letterbox

logger = logging.getLogger("benchmark")

DEFAULTS = {
    "model": "yolo11n.pt",
    "data": "coco8.yaml",
    "imgsz": "640",
    "images": "128",
    "limit": "none",
    "threads": "2",
    "output": "runs/benchmark",
    "targets": "onnxruntime,openvino,litert,tensorrt",
    "rounds": "60",
    "bootstrap": "1000",
    "agree": "true",
    "skip_ultralytics": "false",
}
LATENCY_IMAGES = 4


@dataclass(frozen=True)
class Settings:
    """What is measured, and how; see the module's description."""

    model: Path
    data: str
    imgsz: int
    images: int
    limit: int | None
    threads: int
    output: Path
    targets: tuple[str, ...]
    rounds: int
    bootstrap: int
    agree: bool
    skip_ultralytics: bool

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Settings:
        """Read the command line.

        Raises:
            YoloquantError: A path does not exist.
            argparse.ArgumentTypeError: A value is of the wrong type.
        """
        values = parse_options(arguments, DEFAULTS, __doc__ or "")
        numbers = {key: positive(values[key]) for key in ("imgsz", "images", "threads", "rounds", "bootstrap")}
        return cls(
            model=Path(values["model"]),
            data=values["data"],
            limit=None if values["limit"] == "none" else positive(values["limit"]),
            output=Path(values["output"]),
            targets=_known(values["targets"].split(",")),
            agree=boolean(values["agree"]),
            skip_ultralytics=boolean(values["skip_ultralytics"]),
            **numbers,
        )


def _known(names: Sequence[str]) -> tuple[str, ...]:
    """The targets that exist here; the others are named on standard error."""
    found = []
    for name in filter(None, (n.strip() for n in names)):
        if name in targets.names():
            found.append(name)
        else:
            print(f"target '{name}' does not exist here; known are {', '.join(targets.names())}", file=sys.stderr)
    return tuple(found)


def quantize(settings: Settings) -> Artifact:
    """Plans for every runtime and the portable one, from one pass over training images."""
    options = QuantizeOptions(imgsz=settings.imgsz, calibration=CalibrationOptions(images=settings.images))
    return api.quantize(settings.model, data=settings.data, options=options, progress=_progress)


def enter(settings: Settings, artifact: Artifact, data: ValidationSet, mirrored: Path) -> Field:
    """Make and load every contender."""
    module = artifact.model.module
    entered = Field()
    entered.add(
        Contender(
            BASELINE, "", Kind.BASELINE, settings.model, sum(4 * parameter.numel() for parameter in module.parameters())
        ),
        TorchRunner(artifact.graph.module, artifact.info, settings.threads),
    )
    if not settings.skip_ultralytics:
        logger.info("Ultralytics' exports")
        theirs = export_theirs(
            settings.model,
            mirrored,
            settings.imgsz,
            settings.output / "ultralytics",
            settings.targets,
            data_sha256=data.data_hash,
        )
        add_theirs(entered, theirs, artifact, settings.threads)
    add_ours(entered, artifact, settings.targets, settings.output, settings.threads)
    add_floats(entered, artifact, settings.targets, settings.output / "float", settings.threads)
    add_auto(entered, settings.threads)
    add_fused(entered, settings.threads)
    return entered


def score(entered: Field, data: ValidationSet) -> Evaluation:
    """One pass of everything but the runtimes' float models, which only latency is compared with."""
    runners = {n: r for n, r in entered.runners.items() if entered.contenders[n].kind is not Kind.FLOAT}
    evaluation = evaluate(runners, data, EvaluateOptions(warmup=2), progress=_progress)
    for name, error in evaluation.errors.items():
        entered.fail(name, error)
    return evaluation


def validation_time(settings: Settings, entered: Field, data: ValidationSet) -> dict[str, Any]:
    """Validate the baseline and our exports alone, as a user does, and see where the time goes."""
    ours = [BASELINE, *(n for n in settings.targets if n in entered.runners)]
    evaluation = evaluate({n: entered.runners[n] for n in ours}, data, EvaluateOptions(warmup=2), progress=_progress)
    start = time.perf_counter()
    comparer = Comparer(evaluation, BootstrapOptions(replicates=settings.bootstrap))
    for name in evaluation.records:
        comparer.accuracy(name)
        if name != BASELINE:
            comparer.compare(name)
    return overhead(evaluation, time.perf_counter() - start)


def _load() -> float:
    """Processes that wanted a core in the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def time_all(settings: Settings, entered: Field, data: ValidationSet) -> dict[str, Timing]:
    """Latency of whatever runs here."""
    size = (settings.imgsz, settings.imgsz)
    images = [letterbox(data.read(i), size)[0] for i in range(min(LATENCY_IMAGES, len(data)))]
    return measure(
        latency_groups(entered),
        images,
        rounds=settings.rounds,
        progress=lambda done, total: _progress(done, total, "latency"),
    )


def run(settings: Settings) -> dict[str, Any]:
    """The whole benchmark.

    Returns:
        What is written to ``benchmark.json``.

    Raises:
        YoloquantError: The model or the data cannot be used.
    """
    import torch

    torch.set_num_threads(settings.threads)
    output_folder(settings.output)
    data = ValidationSet.from_yaml(settings.data).take(settings.limit)
    mirrored = mirror(data, settings.output / "data")
    artifact = quantize(settings)
    entered = enter(settings, artifact, data, mirrored)
    try:
        evaluation = score(entered, data)
        spent = validation_time(settings, entered, data)
        load = _load()
        timings = time_all(settings, entered, data)
    finally:
        entered.close()
    comparer = Comparer(evaluation, BootstrapOptions(replicates=settings.bootstrap))
    agreements: dict[str, Agreement] = {}
    if settings.agree and data.labelled:
        scored = {n: a for n in evaluation.records if (a := comparer.accuracy(n)) is not None}
        maps = {name: (a.map50_95, a.map50) for name, a in scored.items()}
        agreements = agree(entered, maps, mirrored, settings.imgsz, settings.output / "val")
    rows = build_rows(entered, comparer, timings, agreements)
    held = goals(rows, spent, agreed=settings.agree)
    result = {
        "format": 1,
        "environment": {**_environment(settings, artifact, data), "load": load},
        "rows": rows,
        "overhead": spent,
        "goals": [{**asdict(g), "verdict": g.verdict.value} for g in held],
    }
    write_text(settings.output / "benchmark.json", json.dumps(result, indent=1))
    write_text(settings.output / "benchmark.md", markdown(result, held))
    return result


def _environment(settings: Settings, artifact: Artifact, data: ValidationSet) -> dict[str, Any]:
    return {
        "model": settings.model.name,
        "model_sha256": artifact.model.sha256,
        "data": Path(settings.data).name,
        "split": data.split,
        "images": len(data),
        "boxes": data.boxes,
        "data_sha256": data.data_hash,
        "imgsz": settings.imgsz,
        "threads": settings.threads,
        "rounds": settings.rounds,
        "bootstrap_replicates": settings.bootstrap,
        "calibration_images": artifact.provenance["calibration"]["images"],
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "versions": versions(),
    }


def _cpu() -> str:
    """The processor, with the instruction sets that decide the speed of INT8."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    known = [
        f for f in ("avx2", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8") if f in facts.get("flags", "").split()
    ]
    name = facts.get("model name") or platform.machine()
    return f"{name} ({', '.join(known)})" if known else name


def _progress(done: int, total: int, what: str) -> None:
    print(f"\r{done}/{total} {what:<40.40}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and print its table."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    logging.getLogger("tools").setLevel(logging.INFO)
    try:
        settings = Settings.parse(arguments)
        result = run(settings)
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print((settings.output / "benchmark.md").read_text(encoding="utf-8"))
    return 4 if any(row["error"] for row in result["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
