"""Find which layers must stay in float, and prove it on the real export, as Markdown.

    python tools/search_float_layers.py model=yolo26n.pt data=coco256.yaml scheme=tensorrt fidelity=0.97 imgsz=320
    python tools/search_float_layers.py model=yolo11n.pt data=coco256.yaml spoil=model.4.cv1 fidelity=0.95

The model is calibrated on training images. With ``spoil=`` the weights of one layer are put on a grid 100 times too
coarse first, of which the search knows nothing. The plan that is found and the one without float layers are then
exported and scored on the val split.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"

import yoloquant
from tools.options import parse_options
from yoloquant import CalibrationOptions, QuantizeOptions
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.float_layers import layer_of
from yoloquant.quantization.plan import PointKind
from yoloquant.quantization.qparams import QParams
from yoloquant.runtime.tasks import spec_of
from yoloquant.sensitivity.float_search import FloatSearch, search_float_layers
from yoloquant.sensitivity.float_search_options import FloatSearchOptions

USAGE = """\
usage: python tools/search_float_layers.py model=<checkpoint> data=<data yaml> [key=value ...]

  scheme          tensorrt, onnxruntime, openvino or executorch; default tensorrt (simulated)
  fidelity        budget, default 0.97
  share           largest share of the multiplications in float, default 0.03
  spoil           layer whose weights are spoiled first, default none
  imgsz           input size, default the checkpoint's
  images          images of the budget, and calibration images, default 64
  ranking_images  images that rank the layers, default 8
  out             file that the result is appended to
"""
DEFAULTS = {
    **{"model": "", "data": "", "scheme": "tensorrt", "fidelity": "0.97", "share": "0.03", "spoil": "", "imgsz": ""},
    **{"images": "64", "ranking_images": "8", "out": ""},
}
COARSER = 100


def spoiled(artifact: Artifact, scheme: str, layer: str) -> Artifact:
    """The artifact with one layer's weights on a coarse grid."""
    plan = artifact.plans[scheme]
    points = tuple(
        replace(p, params=QParams(p.params.scale * COARSER, p.params.zero_point))
        if p.params is not None and p.kind is PointKind.WEIGHT and layer_of(p.name) == layer
        else p
        for p in plan.points
    )
    if points == plan.points:
        raise SystemExit(f"spoil='{layer}' is no layer with quantized weights of this model")
    return replace(artifact, plans={scheme: replace(plan, points=points)})


def proof(before: Artifact, found: FloatSearch, options: dict[str, str], folder: Path) -> list[str]:
    """Rows of the table: real exports of both plans."""
    lines = ["| | mAP50-95 | drop, points | fidelity | MB |", "|---|---:|---:|---:|---:|"]
    how = ValidateOptions(latency=False, memory=False, threads=1)
    for name, artifact in (("all layers in integers", before), ("layers found in float", found.artifact)):
        exports = yoloquant.export(artifact, targets=found.scheme, output=folder / name.split()[0])
        result = yoloquant.validate(artifact, exports, data=options["data"], options=how)
        (target,) = result.targets
        if target.comparison is None or target.accuracy is None:
            lines.append(f"| {name} | {target.error} |")
            continue
        metric, intervals = spec_of(artifact.info.task).metrics[0], target.comparison.intervals
        drop, score = intervals[metric.drop], target.accuracy.metrics[metric.name]
        interval = f"{drop.value * 100:+.2f} [{drop.low * 100:+.2f}, {drop.high * 100:+.2f}]"
        fidelity = f"{intervals['fidelity'].value:.3f}" if "fidelity" in intervals else ""
        lines.append(f"| {name} | {score:.4f} | {interval} | {fidelity} | {target.size_bytes / 1e6:.2f} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns 1 if nothing meets the budget."""
    options = parse_options(sys.argv[1:] if arguments is None else arguments, DEFAULTS, USAGE)
    if not options["model"] or not options["data"]:
        print(USAGE)
        return 2
    count = int(options["images"])
    how = QuantizeOptions(
        imgsz=int(options["imgsz"]) if options["imgsz"] else None, calibration=CalibrationOptions(images=count)
    )
    artifact = yoloquant.quantize(options["model"], data=options["data"], scheme=options["scheme"], options=how)
    if options["spoil"]:
        artifact = spoiled(artifact, options["scheme"], options["spoil"])
    wanted = FloatSearchOptions(
        scheme=options["scheme"],
        fidelity=float(options["fidelity"]),
        share=float(options["share"]),
        images=count,
        ranking_images=int(options["ranking_images"]),
    )
    found = search_float_layers(artifact, data=options["data"], options=wanted)
    lines = [f"### {Path(options['model']).name}, {options['scheme']}", "", *found.summary().splitlines(), ""]
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as folder:
        lines += proof(artifact, found, options, Path(folder))
    text = "\n".join(lines) + "\n"
    print(text)
    if options["out"]:
        with Path(options["out"]).open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")
    return 0 if found.met else 1


if __name__ == "__main__":
    raise SystemExit(main())
