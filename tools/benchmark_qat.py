"""Calibration, our QAT and Ultralytics' own, in every runtime, side by side in one run: the QAT tables in the README.

    python tools/benchmark_qat.py model=../shared/weights/yolo11n.pt data=../shared/data/coco256/coco256.yaml

It calibrates the checkpoint and trains it (the portable plan, or ``qat=scheme=...``) on part of the train split; the
rest chooses the best epoch, so that the val split is seen by nobody. Both are exported to every target; Ultralytics
makes its INT8 exports and, where nvidia-modelopt is installed, its native QAT. Everything is scored in one interleaved
pass over the val split with paired intervals, and every learned scale is read back. Writes ``qat.md``
and ``qat.json``; finished training runs are kept in the output folder and used again. Exit code 4 if something could
not be measured.

Options (``key=value`` or ``--key value``): model, data, imgsz (640), batch (4), preset (standard), train (more training
arguments, such as ``epochs=5,lr0=1e-5``), qat (more of ours, such as ``range_lr=1e-3``), select_images (24), threads
(2), output (runs/benchmark_qat), targets (onnxruntime,openvino,litert,tensorrt), limit (none; score only so many
images), bootstrap (1000), native_epochs (3), skip_ultralytics (false).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yoloquant import QuantizeOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine


from tools.bench.contenders import only
from tools.bench.mirror import mirror
from tools.bench.native import native_export
from tools.bench.qat import BASELINE, Entry, Run, score, table, train
from tools.bench.theirs import export_theirs, load_theirs
from tools.options import boolean, extras, parse_options, positive
from yoloquant import api, targets
from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.host_model import model_info
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import YoloquantError
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.io import output_folder, write_text
from yoloquant.quantization.artifact import Artifact, versions
from yoloquant.quantization.simulate import simulate
from yoloquant.targets.base import Target
from yoloquant.targets.check_scales import same_scale
from yoloquant.types import ExportedModel

logger = logging.getLogger("benchmark_qat")

DEFAULTS = {
    "model": "yolo11n.pt",
    "data": "coco8.yaml",
    "imgsz": "640",
    "batch": "4",
    "preset": "standard",
    "train": "",
    "qat": "",
    "select_images": "24",
    "threads": "2",
    "output": "runs/benchmark_qat",
    "targets": "onnxruntime,openvino,litert,tensorrt",
    "limit": "none",
    "bootstrap": "1000",
    "native_epochs": "3",
    "skip_ultralytics": "false",
}
OWN = "PTQ, own plan"
SIMULATED = "fake-quantized (PyTorch)"


@dataclass(frozen=True)
class Settings:
    """What is measured, and how; see the module's description."""

    model: Path
    data: str
    imgsz: int
    batch: int
    preset: str
    train: dict[str, Any]
    qat: dict[str, Any]
    select_images: int
    threads: int
    output: Path
    targets: tuple[str, ...]
    limit: int | None
    bootstrap: int
    native_epochs: int
    skip_ultralytics: bool

    @property
    def scheme(self) -> str:
        """The scheme whose plan is trained."""
        return str(self.qat.get("scheme", "portable"))

    @property
    def calibrated(self) -> str:
        """The method's name."""
        return f"PTQ, {self.scheme}"

    @property
    def trained(self) -> str:
        """The method's name."""
        return f"QAT, {self.scheme}"

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Settings:
        """Read the command line."""
        values = parse_options(arguments, DEFAULTS, __doc__ or "")
        numbers = ("imgsz", "batch", "select_images", "threads", "bootstrap", "native_epochs")
        return cls(
            model=Path(values["model"]),
            data=values["data"],
            preset=values["preset"],
            train=extras([t for t in values["train"].split(",") if t]),
            qat=extras([t for t in values["qat"].split(",") if t]),
            output=Path(values["output"]),
            targets=tuple(t.name for t in targets.resolve(values["targets"])),
            limit=None if values["limit"] == "none" else positive(values["limit"]),
            skip_ultralytics=boolean(values["skip_ultralytics"]),
            **{key: positive(values[key]) for key in numbers},
        )


def trained(settings: Settings) -> Artifact:
    """The trained artifact; a finished run in the output folder is used again."""
    arguments = {"imgsz": settings.imgsz, "batch": settings.batch, **settings.train}
    qat = {"preset": settings.preset, **settings.qat}
    run = Run(settings.model, settings.data, qat, arguments, settings.select_images)
    return train(run, settings.output / "train")


def calibrate(settings: Settings) -> dict[str, Artifact]:
    """Our calibration alone: every runtime's own plan, and the one that is trained."""
    # of the targets that are measured alone: every further plan takes minutes
    schemes = dict.fromkeys([*(targets.get(name).scheme.name for name in settings.targets), settings.scheme])
    how = QuantizeOptions(imgsz=settings.imgsz)
    own = api.quantize(settings.model, data=settings.data, scheme=list(schemes), options=how)
    return {OWN: own, settings.calibrated: only(own, settings.scheme)}


def enter_ours(settings: Settings, artifacts: dict[str, Artifact]) -> list[Entry]:
    """Export every artifact to every target."""
    entries = []
    for method, artifact in artifacts.items():
        for name in settings.targets:
            entry = Entry(name, method)
            entries.append(entry)
            try:
                target = targets.get(name)
                folder = settings.output / "ours" / method.split(",")[0] / method.split()[-1] / name
                exported = api.export(artifact, targets=[name], output=folder).exports[0]
                entry.runner = target.load(exported, settings.threads)
                if method == settings.trained:
                    entry.scales = read_back(target, exported, artifact)
            except YoloquantError as exc:
                entry.error = str(exc)
    return entries


def read_back(target: Target, exported: ExportedModel, artifact: Artifact) -> tuple[int, int]:
    """How many learned points the artifact holds with exactly their scale and zero_point, and how many it has."""
    found = target.read_scales(exported)
    learned = [p for p in artifact.plan_for(target.scheme).points if p.algorithm == "learned" and p.name in found]
    return sum(same_scale(p, found[p.name]) for p in learned), len(learned)


def enter_theirs(settings: Settings, artifact: Artifact, data: ValidationSet, mirrored: Path) -> list[Entry]:
    """Ultralytics' INT8 exports, and its native QAT where that is installed."""
    entries = []
    folder = settings.output / "ultralytics"
    exports = export_theirs(
        settings.model, mirrored, settings.imgsz, folder, settings.targets, data_sha256=data.data_hash
    )
    for export in exports:
        entry = Entry(export.runtime, "PTQ, Ultralytics", error=export.error)
        entries.append(entry)
        if export.path is not None:
            entry.runner = load_theirs(export, artifact.info, settings.threads)
    native = native_export(
        settings.model,
        settings.data,
        settings.output / "native",
        {"imgsz": settings.imgsz, "batch": settings.batch, "epochs": settings.native_epochs},
    )
    for runtime, optimize in (("onnxruntime", True), ("tensorrt", False)):
        entry = Entry(runtime, f"QAT, Ultralytics ({settings.native_epochs} epochs)", error=native.error)
        entries.append(entry)
        if native.path is not None:
            from yoloquant.runtime.backends import BackendOptions, open_backend

            options = BackendOptions(settings.threads, optimize=optimize)
            entry.runner = open_backend("onnxruntime", native.path, artifact.info, options)
    return entries


def run(settings: Settings) -> dict[str, Any]:
    """The whole benchmark; returns what is written to ``qat.json``."""
    import torch

    torch.set_num_threads(settings.threads)
    output_folder(settings.output)
    # before calibration and training, which take minutes
    info = model_info(load_model(settings.model), (settings.imgsz, settings.imgsz))
    data = ValidationSet.open(settings.data, info).take(settings.limit)
    artifacts = {**calibrate(settings), settings.trained: trained(settings)}
    baseline = artifacts[OWN]
    entries = [Entry("", BASELINE, TorchRunner(baseline.graph.module, baseline.info, settings.threads))]
    for method in (settings.calibrated, settings.trained):
        module = simulate(
            artifacts[method].graph,
            artifacts[method].plans[settings.scheme],
            bias=dict(artifacts[method].bias.get(settings.scheme, {})),
        )
        label = f"{method}, {SIMULATED}"
        entries.append(Entry("", label, TorchRunner(module, baseline.info, settings.threads)))
    entries += enter_ours(settings, artifacts)
    if not settings.skip_ultralytics:
        mirrored = mirror(data, settings.output / "data", info.kpt_shape)
        entries += enter_theirs(settings, baseline, data, mirrored)
    rows = score(entries, data, settings.bootstrap)
    result = {
        "format": 1,
        "environment": {
            "model": settings.model.name,
            "data": Path(settings.data).name,
            "images": len(data),
            "imgsz": settings.imgsz,
            "threads": settings.threads,
            "training": artifacts[settings.trained].provenance["qat"],
            "versions": versions(),
        },
        "rows": rows,
    }
    for name, text in (("qat.json", json.dumps(result, indent=1)), ("qat.md", markdown(result))):
        write_text(settings.output / name, text)
    return result


def markdown(result: dict[str, Any]) -> str:
    """The table with what it was measured on."""
    e = result["environment"]
    t = e["training"]
    return table(result["rows"]) + (
        f"\n{e['model']}, {e['images']} images of {e['data']}, {e['imgsz']} px; trained {t['epoch']} of {t['epochs']} "
        f"epochs ({t['preset']}, loss {t['loss']}), chosen by {t['score_kind']} on held-back training images: "
        f"{t['score_calibrated']:.4f} -> {t['score']:.4f}\n"
    )


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and print its table."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    try:
        settings = Settings.parse(arguments)
        result = run(settings)
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print((settings.output / "qat.md").read_text(encoding="utf-8"))
    return 4 if any(row["error"] for row in result["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
