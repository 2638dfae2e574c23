"""Pruned models against the unpruned one, random pruning and a narrower model, in accuracy and in time.

    python tools/benchmark_pruning.py model=best.pt data=../shared/data/bccd/data.yaml imgsz=320 epochs=30

Every share of the multiplications is removed by the criterion and at random, scored before and after fine-tuning with
distillation from the unpruned model; a narrower model of the same family is trained from scratch for as many epochs as
the unpruned one and the fine-tuning had together. Ultralytics chooses the best epoch of every run on the val split, the
unpruned model's too. The pruned models of ``int8`` shares are then quantized (and trained, with ``qat=``), exported to
every target, and scored in one interleaved pass with paired intervals; float and INT8 models are timed beside the
unpruned ones, taking turns, each after some inferences of its own. Writes ``pruning.md`` and ``pruning.json``;
finished runs are kept in the output folder and used again. Exit code 4 if something could not be measured.

Options (``key=value`` or ``--key value``): model, data, imgsz (640), batch (16), epochs (30), shares (0.3,0.5,0.7),
methods (taylor,random), narrow (0.5; shares of narrower models, none for none), base_epochs (30; of the unpruned
model), int8 (0.5), qat (none; a preset such as fast), prune (more options of pruning, such as ``round_to=8``), train
(more training arguments), threads (2), rounds (40), targets (onnxruntime,openvino,litert), bootstrap (1000), stage
(all; ``train`` only trains; ``time`` does not score, and writes ``times-<size>``), time_imgsz (imgsz; size of
``stage=time``), output (runs/benchmark_pruning).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yoloquant import QuantizeOptions
from yoloquant.graph.traced_model import TracedModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine

from tools.bench.latency import Timing, measure, ratio
from tools.bench.pruned import Job, Variant, fine_tuned, macs, one_shot
from tools.bench.qat import BASELINE, Entry, score, table
from tools.options import extras, parse_options, positive
from yoloquant import api, targets
from yoloquant.bridge.checkpoint import load_model
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import UsageError, YoloquantError
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.io import output_folder, write_text
from yoloquant.quantization.artifact import Artifact, versions
from yoloquant.runtime.core.letterbox import letterbox
from yoloquant.runtime.core.runner import Runner
from yoloquant.types import ExportedModel

logger = logging.getLogger("benchmark_pruning")

DEFAULTS = {
    "model": "best.pt",
    "data": "coco8.yaml",
    "imgsz": "640",
    "batch": "16",
    "epochs": "30",
    "shares": "0.3,0.5,0.7",
    "methods": "taylor,random",
    "narrow": "0.5",
    "base_epochs": "30",
    "int8": "0.5",
    "qat": "none",
    "prune": "",
    "train": "",
    "threads": "2",
    "rounds": "40",
    "targets": "onnxruntime,openvino,litert",
    "bootstrap": "1000",
    "stage": "all",
    "time_imgsz": "",
    "output": "runs/benchmark_pruning",
}
IMAGES_TIMED = 8
SETTLE_MS = 60  # others' threads spin for a while, and their weights fill the caches
STAGES = ("all", "train", "time")


@dataclass(frozen=True)
class Settings:
    """What is measured, and how; see the module's description."""

    job: Job
    imgsz: int
    shares: tuple[float, ...]
    methods: tuple[str, ...]
    narrow: tuple[float, ...]
    int8: tuple[float, ...]
    qat: str | None
    threads: int
    rounds: int
    targets: tuple[str, ...]
    bootstrap: int
    stage: str
    time_imgsz: int
    output: Path

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Settings:
        """Read the command line."""
        values = parse_options(arguments, DEFAULTS, __doc__ or "")
        imgsz, epochs = positive(values["imgsz"]), positive(values["epochs"])
        train = {"imgsz": imgsz, "batch": positive(values["batch"]), "epochs": epochs, "seed": 0, "plots": False}
        train.update(extras([t for t in values["train"].split(",") if t]))
        job = Job(
            Path(values["model"]),
            values["data"],
            train,
            extras([t for t in values["prune"].split(",") if t]),
            positive(values["base_epochs"]) + epochs,
        )
        return cls(
            job=job,
            imgsz=imgsz,
            shares=_shares(values["shares"]),
            methods=tuple(m for m in values["methods"].split(",") if m),
            narrow=_shares(values["narrow"]),
            int8=_shares(values["int8"]),
            qat=None if values["qat"] == "none" else values["qat"],
            threads=positive(values["threads"]),
            rounds=positive(values["rounds"]),
            targets=tuple(t.name for t in targets.resolve(values["targets"])),
            bootstrap=positive(values["bootstrap"]),
            stage=_stage(values["stage"]),
            time_imgsz=positive(values["time_imgsz"] or values["imgsz"]),
            output=Path(values["output"]),
        )

    @property
    def report(self) -> str:
        """Name of the files that are written."""
        return f"times-{self.time_imgsz}" if self.stage == "time" else "pruning"

    @property
    def variants(self) -> list[Variant]:
        """Every model of the comparison."""
        pruned = [Variant(m, s) for s in self.shares for m in self.methods]
        return pruned + [Variant("narrow", s) for s in self.narrow]


def _stage(text: str) -> str:
    if text not in STAGES:
        raise UsageError(f"stage={text} is unknown; allowed are {', '.join(STAGES)}")
    return text


def _shares(text: str) -> tuple[float, ...]:
    return () if text == "none" else tuple(float(part) for part in text.split(",") if part)


def run(settings: Settings) -> dict[str, Any]:
    """The whole benchmark; returns what is written to ``pruning.json``."""
    import torch

    torch.set_num_threads(settings.threads)
    folder = output_folder(settings.output)
    best = {v: fine_tuned(settings.job, v, folder) for v in settings.variants}
    if settings.stage == "train":
        return {"rows": []}
    if settings.stage == "time":
        settings = replace(settings, imgsz=settings.time_imgsz)
    full = macs(settings.job.model, settings.imgsz)
    sizes = {v.name: 1 - macs(path, settings.imgsz) / full for v, path in best.items()}
    data = ValidationSet.from_yaml(settings.job.data)
    exports = exported(settings, best)
    rows = [] if settings.stage == "time" else score(enter(settings, best, exports), data, settings.bootstrap)
    result = {
        "format": 1,
        "environment": {
            **{"model": settings.job.model.name, "data": Path(settings.job.data).name, "images": len(data)},
            **{"imgsz": settings.imgsz, "threads": settings.threads, "epochs": settings.job.arguments["epochs"]},
            **{"narrow_epochs": settings.job.narrow_epochs, "versions": versions()},
        },
        "sizes": sizes,
        "rows": rows,
        "times": times(settings, best, exports, data),
    }
    for suffix, text in (("json", json.dumps(result, indent=1)), ("md", markdown(result))):
        write_text(folder / f"{settings.report}.{suffix}", text)
    return result


Exports = Mapping[str, Mapping[str, ExportedModel | str]]
"""What was exported, or why it was not: by the model's label and by target."""


def exported(settings: Settings, best: Mapping[Variant, Path]) -> Exports:
    """Every quantized model on every target."""
    found: dict[str, dict[str, ExportedModel | str]] = {}
    for label, artifact in _quantized(settings, best).items():
        found[label] = {}
        for name in settings.targets:
            try:
                folder = _folder(settings, label)
                found[label][name] = api.export(artifact, targets=[name], output=folder).exports[0]
            except YoloquantError as exc:
                found[label][name] = str(exc)
    return found


def enter(settings: Settings, best: Mapping[Variant, Path], exports: Exports) -> list[Entry]:
    """Everything that is scored."""
    entries = [Entry("", BASELINE, _float(settings.job.model, settings))]
    for variant, path in best.items():
        if variant.method != "narrow":
            untrained = one_shot(settings.job, variant, settings.imgsz, settings.output)
            entries.append(Entry("", f"{variant.name}, before training", _float(untrained, settings)))
        entries.append(Entry("", variant.name, _float(path, settings)))
    for label, by_target in exports.items():
        for name, found in by_target.items():
            entry = Entry(name, label)
            entries.append(entry)
            try:
                if isinstance(found, str):
                    entry.error = found
                else:
                    entry.runner = targets.get(name).load(found, settings.threads)
            except YoloquantError as exc:
                entry.error = str(exc)
    return entries


def _quantized(settings: Settings, best: Mapping[Variant, Path]) -> dict[str, Artifact]:
    """The unpruned and the pruned models with plans: calibrated, and trained where that is asked for."""
    options = QuantizeOptions(imgsz=settings.imgsz)
    models = {"unpruned": settings.job.model}
    models |= {v.name: p for v, p in best.items() if v.method == settings.methods[0] and v.share in settings.int8}
    found = {f"{n}, INT8": api.quantize(p, data=settings.job.data, options=options) for n, p in models.items()}
    for name, path in models.items():
        if settings.qat is not None and name != "unpruned":
            folder = (settings.output / f"{name}-qat").resolve()
            trained = folder / "weights" / "best.pt"
            if not trained.is_file():
                arguments = {k: settings.job.arguments[k] for k in ("imgsz", "batch", "seed")}
                where = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
                api.train(path, data=settings.job.data, qat=settings.qat, **arguments, **where)
            found[f"{name}, QAT"] = Artifact.load(trained)
    return found


def _folder(settings: Settings, label: str) -> Path:
    return settings.output / f"exports-{settings.imgsz}" / label.replace(", ", "-").lower()


def _float(path: Path, settings: Settings) -> Runner:
    source = load_model(path)
    artifact = Artifact(TracedModel.of(replace(source, state={}), settings.imgsz))
    return TorchRunner(artifact.graph.module, artifact.info, settings.threads)


def times(
    settings: Settings, best: Mapping[Variant, Path], exports: Exports, data: ValidationSet
) -> dict[str, dict[str, Any]]:
    """Median times by runtime and model, and their ratios to the unpruned float model within the same rounds."""
    models = {"unpruned": settings.job.model}
    models |= {v.name: p for v, p in best.items() if v.method == settings.methods[0]}
    size = settings.imgsz, settings.imgsz
    few = data.take(IMAGES_TIMED)
    images = [letterbox(few.read(i), size)[0] for i in range(len(few))]
    groups: dict[str, dict[str, Runner]] = {}
    for name in settings.targets:
        target = targets.get(name)
        if not target.capabilities.runs_here:
            continue
        runners: dict[str, Runner] = {}
        for label, path in models.items():
            source = load_model(path)
            artifact = Artifact(TracedModel.of(replace(source, state={}), size))
            plain = target.export_float(artifact, _folder(settings, f"{label}, fp32"), label)
            runners[f"{name}: {label}"] = target.load(plain, settings.threads)
            integers = exports.get(f"{label}, INT8", {}).get(name)
            if isinstance(integers, ExportedModel):
                runners[f"{name}: {label}, INT8"] = target.load(integers, settings.threads)
        groups[name] = runners
    timings = measure(groups, images, rounds=settings.rounds, settle_ms=SETTLE_MS)
    for runners in groups.values():
        for runner in runners.values():
            runner.close()
    return {label: _time(label, timings) for label in timings}


def _time(label: str, timings: Mapping[str, Timing]) -> dict[str, Any]:
    mine = timings[label]
    unpruned = f"{mine.runtime}: unpruned"
    found = {"runtime": mine.runtime, "ms": mine.median_ms, "ratio": ratio(mine, timings[unpruned])}
    if label.endswith("INT8") and f"{unpruned}, INT8" in timings:
        found["ratio_int8"] = ratio(mine, timings[f"{unpruned}, INT8"])
    return found


def markdown(result: dict[str, Any]) -> str:
    """The tables with what they were measured on."""
    e = result["environment"]
    lines = [*([table(result["rows"])] if result["rows"] else []), "| model | multiplications gone |", "|---|---|"]
    lines += [f"| {name} | {share:.1%} |" for name, share in result["sizes"].items()]
    lines += ["", "| runtime: model | ms | / unpruned FP32 | / unpruned INT8 |", "|---|---|---|---|"]
    for label, t in result["times"].items():
        integer = f"{t['ratio_int8']:.2f}" if "ratio_int8" in t else ""
        lines.append(f"| {label} | {t['ms']:.2f} | {t['ratio']:.2f} | {integer} |")
    lines.append(
        f"\n{e['model']}, {e['images']} images of {e['data']}, {e['imgsz']} px, {e['threads']} threads; pruned models "
        f"fine-tuned for {e['epochs']} epochs, narrower ones trained for {e['narrow_epochs']} from scratch\n"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and print its tables."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    try:
        settings = Settings.parse(arguments)
        result = run(settings)
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    if settings.stage == "train":
        return 0
    print((settings.output / f"{settings.report}.md").read_text(encoding="utf-8"))
    return 4 if any(row["error"] for row in result["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
