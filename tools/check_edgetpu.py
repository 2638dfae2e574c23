"""How much of a detector an Edge TPU runs, at which input size, and what keeping it there costs.

    python tools/check_edgetpu.py model=../shared/weights/yolo11n.pt data=../shared/data/coco256/coco256.yaml
    python tools/check_edgetpu.py file=best-edgetpu.tflite

At every size the model is exported for the Edge TPU as it is ("kept") and with its self-attention replaced by
convolutions fitted to the calibration images ("fitted"; see ``targets/litert/edgetpu_attention.py``), and each file is
checked operator by operator. If ``edgetpu_compiler`` is installed, its own verdict stands beside it. All files of one
size are scored in one pass with the float model at that size, and with two float models that show where a loss comes
from: the fitted one, and one whose attention is simply left out. The first column of drops is against the float model
at the same size, the last against that at the largest size.

Scores come from this machine's CPU: the file is the same, an Edge TPU may round differently. Nothing here is a speed.

Options (``key=value`` or ``--key value``): model, data, file (a ``.tflite``: check it and stop), imgsz (320,416,640),
variants (kept,fitted), images (128, calibration), split (val), limit (none; score only so many images), threads (2),
bootstrap (1000), tables (no; ``yes`` prints every operator group), work (a folder for the files; default: temporary),
out (a Markdown file; default: printed only).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine

import torch
from torch import Tensor, fx, nn

from tools.bench import simulated
from tools.bench.simulated import BASELINE, print_report, progress
from tools.bench.table import table
from tools.options import positive
from yoloquant import QuantizeOptions, quantize
from yoloquant.bridge.checkpoint import load_model
from yoloquant.bridge.exportable import exportable
from yoloquant.bridge.host_model import HostModel, model_info
from yoloquant.bridge.input_size import check_imgsz
from yoloquant.data.calibration import CalibrationOptions
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import UsageError
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.evaluate import evaluate
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.graph.trace import trace
from yoloquant.runtime.core.runner import Runner
from yoloquant.targets.edgetpu.attention import attention_blocks
from yoloquant.targets.edgetpu.check import check
from yoloquant.targets.edgetpu.companions import KEY
from yoloquant.targets.edgetpu.cost import memory
from yoloquant.targets.edgetpu.fit_attention import fit_attention
from yoloquant.targets.edgetpu.report import ON_CHIP_BYTES, EdgeTPUReport, Place
from yoloquant.targets.edgetpu.target import EdgeTPUTarget
from yoloquant.targets.litert.flatbuffer import Flatbuffer
from yoloquant.types import ExportedModel, ModelInfo

KEPT, FITTED = "kept", "fitted"
DEFAULTS = {
    **{key: simulated.DEFAULTS[key] for key in ("model", "data", "images", "split", "limit", "threads", "bootstrap")},
    "file": "",
    "imgsz": "320,416,640",
    "variants": f"{KEPT},{FITTED}",
    "tables": "no",
    "work": "",
    "out": "",
}
STATIC = (
    "imgsz",
    "attention",
    "operators on TPU",
    "MMAC",
    "on TPU",
    "undecided",
    "any partition",
    "parameters on TPU, MiB",
    "activations, MiB",
    "file, MiB",
    "compiler",
)
SCORES = ("imgsz", "model", "mAP50-95", "drop, points [95 %]", "fidelity [95 %]", "below largest FP32, points")


@dataclass(frozen=True)
class Job:
    """What is measured.

    Attributes:
        model: The original model.
        source: Its path.
        data: Data yaml.
        sizes: Input sizes, ascending.
        variants: ``kept``, ``fitted`` or both.
        images: Number of calibration images.
        scored: The images that are scored.
        threads: Threads of every runtime.
        bootstrap: Replicates of the bootstrap.
        work: Folder for the files.
    """

    model: HostModel
    source: str
    data: str
    sizes: tuple[int, ...]
    variants: tuple[str, ...]
    images: int
    scored: ValidationSet
    threads: int
    bootstrap: int
    work: Path

    @classmethod
    def load(cls, options: Mapping[str, str], work: Path) -> Job:
        """Read the options.

        Raises:
            YoloquantError: The model or the data cannot be used.
            argparse.ArgumentTypeError: A value is of the wrong type.
        """
        variants = tuple(dict.fromkeys(v.strip() for v in options["variants"].split(",")))
        unknown = [v for v in variants if v not in {KEPT, FITTED}]
        if unknown:
            raise UsageError(f"variants '{', '.join(unknown)}' are unknown; allowed are {KEPT}, {FITTED}")
        model = load_model(options["model"])
        if not attention_blocks(model.module):
            variants = (KEPT,)
        limit = None if options["limit"] == "none" else positive(options["limit"])
        return cls(
            model=model,
            source=options["model"],
            data=options["data"],
            sizes=tuple(sorted({positive(size) for size in options["imgsz"].split(",")})),
            variants=variants,
            images=positive(options["images"]),
            scored=ValidationSet.from_yaml(options["data"], split=options["split"]).take(limit),
            threads=positive(options["threads"]),
            bootstrap=positive(options["bootstrap"]),
            work=work,
        )

    @property
    def calibration(self) -> CalibrationOptions:
        """Which images calibrate and fit."""
        return CalibrationOptions(images=self.images, scored_split=self.scored.split)


class LeftOut(nn.Module):
    """Attention that contributes nothing."""

    def forward(self, image: Tensor) -> Tensor:
        """Zeros of the same shape."""
        return torch.zeros_like(image)


def left_out(model: HostModel, info: ModelInfo) -> fx.GraphModule:
    """The float model without its attention."""
    module = exportable(model, info)
    for path in attention_blocks(model.module):
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent), name, LeftOut())
    return trace(module, info).module


def floating(model: HostModel, info: ModelInfo) -> fx.GraphModule:
    """The float model."""
    return trace(exportable(model, info), info).module


def export(job: Job, size: int, variant: str) -> tuple[ExportedModel, HostModel]:
    """One Coral file, and the float model that it was made from."""
    source = job.source
    if variant == FITTED:
        path = job.work / f"{Path(job.source).stem}_{size}_fitted.pt"
        fit_attention(job.source, path, data=job.data, imgsz=size, calibration=job.calibration)
        source = str(path)
    options = QuantizeOptions(imgsz=size, calibration=job.calibration)
    artifact = quantize(source, data=job.data, scheme=EdgeTPUTarget.scheme.name, options=options)
    exported = EdgeTPUTarget().export(artifact, job.work, f"{Path(job.source).stem}_{size}_{variant}")
    return exported, artifact.model


def static_row(size: int, variant: str, exported: ExportedModel) -> tuple[str, ...]:
    """What the check says about one file."""
    facts = exported.metadata[KEY]
    report = EdgeTPUReport.from_dict(facts["check"])
    whole = all_parameters(exported.path)
    compiler = facts["compiler"]
    verdict = "not installed" if compiler is None else f"{compiler['mapped']}/{compiler['total']}"
    return (
        str(size),
        variant,
        f"{report.count(Place.TPU)}/{len(report.operators)}",
        f"{report.macs / 1e6:.0f}",
        f"{report.share(Place.TPU):.1%}",
        f"{report.share(Place.UNSURE):.1%}",
        f"{report.supported_share:.1%}",
        f"{report.memory.parameters / 2**20:.2f} of {whole / 2**20:.2f}",
        f"{report.memory.activations / 2**20:.2f}",
        f"{exported.size_bytes / 2**20:.2f}",
        verdict if compiler is None or compiler["succeeded"] else "failed",
    )


def all_parameters(path: Path) -> int:
    """Bytes of weights and biases in a file, wherever they are used."""
    file = Flatbuffer.read(path)
    return memory(file, range(len(file.ops))).parameters


def score(job: Job, size: int, files: Mapping[str, tuple[ExportedModel, HostModel]]) -> Comparer:
    """All models of one size in one pass."""
    info = model_info(job.model, check_imgsz(size, job.model.stride))
    runners: dict[str, Runner] = {BASELINE: TorchRunner(floating(job.model, info), info, job.threads)}
    if FITTED in files:
        runners["fp32, attention left out"] = TorchRunner(left_out(job.model, info), info, job.threads)
        runners["fp32, attention fitted"] = TorchRunner(floating(files[FITTED][1], info), info, job.threads)
    for variant, (exported, _) in files.items():
        runners[f"int8, attention {variant}"] = EdgeTPUTarget().load(exported, job.threads)
    evaluation = evaluate(runners, job.scored, progress=progress)
    return Comparer(evaluation, BootstrapOptions(replicates=job.bootstrap))


def score_rows(size: int, comparer: Comparer, best: float) -> list[tuple[str, ...]]:
    """Accuracy of every model of one size, against the float model there and against a float mAP."""
    rows: list[tuple[str, ...]] = []
    for name in comparer.evaluation.records:
        accuracy = comparer.accuracy(name)
        found = None if name == BASELINE else comparer.compare(name).comparison
        value = f"{accuracy.map50_95:.4f}" if accuracy else ""
        loss = f"{(best - accuracy.map50_95) * 100:+.2f}" if accuracy else ""
        rows.append((str(size), name, value, *_against(found), loss))
    rows += [(str(size), name, f"failed: {error}", "", "", "") for name, error in comparer.evaluation.errors.items()]
    return rows


def _against(found: Any) -> tuple[str, str]:
    if found is None:
        return "", ""
    drop, kept = found.map_drop, found.fidelity
    points = f"{drop.value * 100:+.2f} [{drop.low * 100:+.2f}, {drop.high * 100:+.2f}]" if drop else ""
    return points, f"{kept.value:.3f} [{kept.low:.3f}, {kept.high:.3f}]"


def measure(job: Job, *, tables: bool) -> str:
    """Export, check and score at every size.

    Returns:
        The report.
    """
    static: list[tuple[str, ...]] = []
    comparers: dict[int, Comparer] = {}
    details: list[str] = []
    for size in job.sizes:
        files = {variant: export(job, size, variant) for variant in job.variants}
        static += [static_row(size, variant, exported) for variant, (exported, _) in files.items()]
        for variant, (exported, _) in files.items():
            report = EdgeTPUReport.from_dict(exported.metadata[KEY]["check"])
            text = report.table() if tables else "\n".join(report.summary())
            details.append(f"### {size} px, attention {variant}\n\n```\n{text}\n```")
        comparers[size] = score(job, size, files)
    accuracy = comparers[max(job.sizes)].accuracy(BASELINE)
    best = accuracy.map50_95 if accuracy else float("nan")
    scores = [row for size, comparer in comparers.items() for row in score_rows(size, comparer, best)]
    return "\n\n".join([_introduction(job), table(STATIC, static), table(SCORES, scores), *details]) + "\n"


def _introduction(job: Job) -> str:
    return (
        f"{Path(job.source).name}, scheme {EdgeTPUTarget.scheme.name}, calibrated and fitted on {job.images} training "
        f"images, scored on {len(job.scored)} images of {Path(job.data).name} ({job.scored.split}). The chip has "
        f"{ON_CHIP_BYTES / 2**20:.0f} MB for parameters and activations."
    )


def run(options: Mapping[str, str]) -> str:
    """Check a file, or measure a model.

    Raises:
        YoloquantError: The model, the data, the file or an option cannot be used.
        argparse.ArgumentTypeError: A value is of the wrong type.
    """
    if options["file"]:
        return check(Path(options["file"])).table(every=options["tables"] == "yes")
    torch.set_num_threads(positive(options["threads"]))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(options["work"] or temporary)
        work.mkdir(parents=True, exist_ok=True)
        return measure(Job.load(options, work), tables=options["tables"] == "yes")


def main(arguments: Sequence[str]) -> int:
    """Run the check and print its report."""
    return print_report(arguments, DEFAULTS, __doc__ or "", run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
