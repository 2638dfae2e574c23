"""One checkpoint in every runtime with the same scales: read back from each artifact, and each artifact scored.

    yoloquant train model=yolo11n.pt data=coco256.yaml imgsz=320 preset=fast
    python tools/compare_scales.py model=runs/detect/train/weights/best.pt data=coco256.yaml

A checkpoint with a plan keeps its ranges; a plain one is calibrated first, with the portable scheme unless another is
named. It is exported to all targets, and the scale and zero-point of every point are read from the files and held, bit
by bit, against the checkpoint's plan. The exports are then scored on the val split, in one pass. Exits with 1 if a
scale differs or a target fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl on a busy machine

import numpy as np

import yoloquant
from tools.options import parse_options, positive
from yoloquant import CalibrationOptions, QuantizeOptions, targets
from yoloquant.bridge.checkpoint import load_model
from yoloquant.evaluation.results import TargetResult
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.io import output_folder, write_text
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.plan import Plan
from yoloquant.quantization.scheme import PORTABLE
from yoloquant.runtime.tasks import spec_of
from yoloquant.targets.check_scales import Scales, same_scale

USAGE = """\
usage: python tools/compare_scales.py model=<checkpoint> data=<data yaml> [key=value ...]

  targets  default onnxruntime,openvino,litert,tensorrt,executorch,qnn
  scheme   plan of a plain checkpoint, default portable; a runtime's own, such as executorch, for that runtime alone
  imgsz    input size of a plain checkpoint, default 320
  images   calibration images of a plain checkpoint, default 128
  limit    score so many images of the val split, default 32; none for all
  threads  default 1
  output   folder of the exports and of scales.md, default runs/compare_scales
"""
DEFAULTS = {
    **{"model": "", "data": "", "targets": "onnxruntime,openvino,litert,tensorrt,executorch,qnn", "imgsz": "320"},
    **{"images": "128", "limit": "32", "threads": "1", "scheme": "portable", "output": "runs/compare_scales"},
}
SHOWN = 3


@dataclass(frozen=True)
class Equality:
    """What an artifact holds, beside the checkpoint's plan.

    Attributes:
        points: Points in the artifact.
        values: Scales that they have: one for each channel, or for the tensor.
        different: Points that the plan has not, or with another scale or zero-point.
    """

    points: int
    values: int
    different: tuple[str, ...]


def equality(plan: Plan, scales: Scales) -> Equality:
    """Hold the scales of an artifact against a plan, bit by bit."""
    different = tuple(name for name, found in scales.items() if not same_scale(plan.by_name.get(name), found))
    return Equality(len(scales), sum(scale.size for scale, _ in scales.values()), different)


def fingerprint(scales: Scales, names: Sequence[str]) -> str:
    """The first digits of a hash of some points' scales and zero-points: alike where all bits are."""
    digest = sha256()
    for name in names:
        scale, zero = scales[name]
        digest.update(name.encode() + np.asarray(scale, np.float32).tobytes() + np.asarray(zero, np.int64).tobytes())
    return digest.hexdigest()[:12]


def artifact_of(options: Mapping[str, str]) -> Artifact:
    """The checkpoint with its plan; a plain one gets the portable plan, or the one that is asked for."""
    host = load_model(options["model"])
    if host.state.get("plans"):
        return Artifact.from_host(host)
    how = QuantizeOptions(
        imgsz=positive(options["imgsz"]), calibration=CalibrationOptions(images=positive(options["images"]))
    )
    return yoloquant.quantize(options["model"], data=options["data"], scheme=options["scheme"], options=how)


def table(
    artifact: Artifact,
    plan: Plan,
    found: Mapping[str, Scales],
    scored: Mapping[str, TargetResult],
    errors: Sequence[str],
) -> str:
    """The table, and what is common to all rows."""
    metric = spec_of(artifact.info.task).metrics[0]
    common = sorted(set.intersection(*(set(scales) for scales in found.values()))) if found else []
    lines = [
        f"| target | points | scales | differ | hash of the common | {metric.name} | drop, points [95 %] | fidelity |",
        "|---|---:|---:|---:|---|---:|---|---:|",
    ]
    for name, scales in found.items():
        held = equality(plan, scales)
        cells = [name, held.points, held.values, len(held.different), fingerprint(scales, common)]
        lines.append("| " + " | ".join(map(str, [*cells, *_score(scored.get(name), metric.name, metric.drop)])) + " |")
        if held.different:
            errors = [*errors, f"{name}: {', '.join(held.different[:SHOWN])} differ from the checkpoint's plan"]
    learned = sum(point.algorithm == "learned" for point in plan.points)
    lines += [
        "",
        f"- plan '{plan.scheme}' of {Path(str(artifact.model.source)).name}: {len(plan.points)} points, {learned} of "
        f"them learned; {len(common)} are in every artifact",
        *(f"- {error}" for error in errors),
    ]
    return "\n".join(lines) + "\n"


def _score(result: TargetResult | None, metric: str, drop: str) -> tuple[str, str, str]:
    if result is None or result.accuracy is None or result.comparison is None:
        return ("", "", "")
    intervals = result.comparison.intervals
    lost = intervals[drop]
    fidelity = f"{intervals['fidelity'].value:.3f}" if "fidelity" in intervals else ""
    interval = f"{lost.value * 100:+.2f} [{lost.low * 100:+.2f}, {lost.high * 100:+.2f}]"
    return (f"{result.accuracy.metrics[metric]:.4f}", interval, fidelity)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns 1 if a scale differs or a target fails."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments, DEFAULTS, USAGE)
    if not options["model"] or not options["data"]:
        print(USAGE)
        return 2
    folder = output_folder(options["output"])
    artifact = artifact_of(options)
    plan = artifact.source_plan(PORTABLE)
    # one plan for all: a checkpoint may hold other schemes' plans beside it, which their targets would take
    artifact = replace(artifact, plans={plan.scheme: plan})
    exports = yoloquant.export(artifact, targets=options["targets"], output=folder, keep_going=True)
    found = {each.name: targets.get(each.name).read_scales(each) for each in exports.exports}
    how = ValidateOptions(
        latency=False,
        memory=False,
        threads=positive(options["threads"]),
        limit=None if options["limit"] == "none" else positive(options["limit"]),
    )
    result = yoloquant.validate(artifact, exports, data=options["data"], options=how)
    errors = [f"{name}: {error}" for name, error in exports.errors.items()]
    errors += [f"{row.target}: {row.error}" for row in result.targets if row.error and row.target in found]
    scored = {row.target: row for row in result.targets}
    text = table(artifact, plan, found, scored, errors)
    print(text)
    write_text(folder / "scales.md", text)
    return 1 if errors or any(equality(plan, scales).different for scales in found.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
