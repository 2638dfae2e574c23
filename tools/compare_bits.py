"""Where calibration fails, training must earn its keep: fewer bits and bad ranges, calibrated against trained.

    python tools/compare_bits.py model=../shared/weights/yolo11n.pt data=../shared/data/coco256/coco256.yaml

For each variant the checkpoint is calibrated, then trained from there with distillation on part of the train split, and
both are scored in simulation on the val split, side by side with the float model. Writes ``bits.md`` and ``bits.json``;
finished runs are kept in the output folder and used again.

Variants: w4a8 (portable plan, four-bit weights), w4a4 (TensorRT's plan, four-bit weights and convolution inputs; the
first and last layers keep eight bits in both), minmax (LiteRT's plan at eight bits from min-max ranges, each of which
learns from its own error too).

Options (``key=value`` or ``--key value``): model, data, imgsz (640), batch (4), variants (w4a8,w4a4,minmax), preset
(standard), train (more training arguments, such as ``epochs=5,lr0=1e-4``), qat (more of ours), select_images (24),
threads (2), output (runs/compare_bits), limit (none; score only so many images), bootstrap (1000).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine

from tools.bench.qat import BASELINE, Entry, Run, score, table, train
from tools.options import extras, parse_options, positive
from yoloquant.bridge.checkpoint import load_model
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import UsageError, YoloquantError
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.io import output_folder, write_text
from yoloquant.quantization.artifact import versions
from yoloquant.quantization.ptq import quantize
from yoloquant.quantization.quantize_options import QuantizeOptions
from yoloquant.quantization.range_options import Algorithm, CalibrationRecipe
from yoloquant.quantization.simulate import simulate
from yoloquant.targets.schemes import resolve_schemes

DEFAULTS = {
    "model": "yolo11n.pt",
    "data": "coco8.yaml",
    "imgsz": "640",
    "batch": "4",
    "variants": "w4a8,w4a4,minmax",
    "preset": "standard",
    "train": "",
    "qat": "",
    "select_images": "24",
    "threads": "2",
    "output": "runs/compare_bits",
    "limit": "none",
    "bootstrap": "1000",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "w4a8": {"scheme": "portable", "weight_bits": 4},
    "w4a4": {"scheme": "tensorrt", "weight_bits": 4, "activation_bits": 4},
    "minmax": {"scheme": "litert", "learn_offset": True, "range_lr": 0.05, "local_weight": 1.0},
}
RANGES = {  # of a variant that training starts from bad ranges
    "minmax": CalibrationRecipe(
        **dict.fromkeys(("activation", "pre_activation", "score", "head", "weight"), Algorithm.MINMAX)
    )
}
PTQ, QAT = "PTQ", "QAT"
CEILING = 0.995  # fidelity of the float model to itself


def compare(values: dict[str, str]) -> dict[str, Any]:
    """Run every variant; returns what is written to ``bits.json``."""
    import torch

    from yoloquant.training.qat.calibrate_start import calibrated
    from yoloquant.training.qat.qat_options import parse

    threads = positive(values["threads"])
    torch.set_num_threads(threads)
    output = output_folder(values["output"])
    names = [v.strip() for v in values["variants"].split(",") if v.strip()]
    unknown = [n for n in names if n not in VARIANTS]
    if unknown or not names:
        raise UsageError(f"variant {', '.join(unknown)} is unknown; allowed are {', '.join(VARIANTS)}")
    data = ValidationSet.from_yaml(values["data"])
    data = data if values["limit"] == "none" else data.take(positive(values["limit"]))
    more = extras([t for t in values["qat"].split(",") if t])
    arguments = {
        "imgsz": positive(values["imgsz"]),
        "batch": positive(values["batch"]),
        **extras([t for t in values["train"].split(",") if t]),
    }
    entries: list[Entry] = []
    training: dict[str, Any] = {}
    for name in names:
        options = {"preset": values["preset"], **VARIANTS[name], **more}
        model = _start(name, values, output / name, arguments["imgsz"])
        run = Run(model, values["data"], options, arguments, positive(values["select_images"]))
        trained = train(run, output / name)
        training[name] = trained.provenance["qat"]
        source = load_model(model)
        start, plan = calibrated(source, parse(dict(options)), values["data"], arguments["imgsz"])
        if not entries:
            entries.append(Entry("", BASELINE, TorchRunner(start.graph.module, start.info, threads)))
        for method, artifact, points in ((PTQ, start, plan), (QAT, trained, trained.plans[plan.scheme])):
            module = simulate(artifact.graph, points)
            entries.append(Entry("", f"{name} {method}", TorchRunner(module, start.info, threads)))
    rows = score(entries, data, positive(values["bootstrap"]))
    result = {
        "format": 1,
        "environment": {
            "model": Path(values["model"]).name,
            "data": Path(values["data"]).name,
            "images": len(data),
            "imgsz": arguments["imgsz"],
            "training": training,
            "versions": versions(),
        },
        "rows": rows,
        "recovered": {name: _recovered(rows, name) for name in names},
    }
    for file, text in (("bits.json", json.dumps(result, indent=1)), ("bits.md", markdown(result))):
        write_text(output / file, text)
    return result


def _start(name: str, values: dict[str, str], folder: Path, imgsz: int) -> Path:
    """The checkpoint that training starts from: the user's, or one that was calibrated as the variant wants it."""
    if name not in RANGES:
        return Path(values["model"])
    path = folder / "calibrated.pt"
    if not path.is_file():
        options = QuantizeOptions(imgsz=imgsz, ranges=RANGES[name])
        schemes = resolve_schemes(VARIANTS[name]["scheme"])
        artifact = quantize(values["model"], data=values["data"], schemes=schemes, options=options)
        artifact.save(output_folder(folder) / path.name)
    return path


def _recovered(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """Share of the fidelity that calibration loses and training wins back."""
    found = {r["method"]: (r.get("fidelity") or {}).get("value") for r in rows}
    before, after = found.get(f"{name} {PTQ}"), found.get(f"{name} {QAT}")
    return None if before is None or after is None else (after - before) / max(CEILING - before, 1e-9)


def markdown(result: dict[str, Any]) -> str:
    """The table, and the share of lost fidelity that training wins back."""
    e = result["environment"]
    lines = [table(result["rows"])]
    for name, share in result["recovered"].items():
        t = e["training"][name]
        won = "" if share is None else f"wins back {share * 100:.0f} % of the fidelity that calibration loses"
        lines.append(f"- {name}: training {won} ({t['epoch']} of {t['epochs']} epochs)\n")
    lines.append(f"\n{e['model']}, {e['images']} images of {e['data']}, {e['imgsz']} px, in simulation\n")
    return "".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run the comparison and print its table."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        values = parse_options(arguments, DEFAULTS, __doc__ or "")
        result = compare(values)
    except (YoloquantError, argparse.ArgumentTypeError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    print((Path(values["output"]) / "bits.md").read_text(encoding="utf-8"))
    return 4 if any(row["error"] for row in result["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
