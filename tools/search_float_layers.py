"""Find which layers must stay in float, or are faster there, and prove it on the real export, as Markdown.

    python tools/search_float_layers.py model=yolo26n.pt data=coco256.yaml scheme=tensorrt fidelity=0.97 imgsz=320
    python tools/search_float_layers.py model=yolo11n.pt data=coco256.yaml spoil=model.4.cv1 fidelity=0.95
    python tools/search_float_layers.py model=yolo26n.pt data=coco256.yaml scheme=portable target=onnxruntime \
        ranges=minmax score_shift=false fidelity=none map_drop=1
    python tools/search_float_layers.py model=yolo11n.pt data=coco256.yaml goal=latency scheme=onnxruntime threads=1

The model is calibrated on training images. With ``spoil=`` the weights of one layer are put on a grid 100 times too
coarse first, of which the search knows nothing. The plan that is found and the one without float layers are then
exported and scored on the val split.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"

import yoloquant
from tools.bench.tell import tell
from tools.options import parse_options
from yoloquant import CalibrationOptions, QuantizeOptions
from yoloquant.evaluation.validate_options import ValidateOptions
from yoloquant.options import build
from yoloquant.quantization.artifact import Artifact
from yoloquant.quantization.float_layers import layer_of
from yoloquant.quantization.plan import PointKind
from yoloquant.quantization.qparams import QParams
from yoloquant.quantization.range_options import CalibrationRecipe
from yoloquant.runtime.tasks import spec_of
from yoloquant.sensitivity.float_search_options import FloatSearchOptions, SearchGoal
from yoloquant.sensitivity.float_search_results import FloatSearch
from yoloquant.sensitivity.slow_layers import LatencySearch

USAGE = """\
usage: python tools/search_float_layers.py model=<checkpoint> data=<data yaml> [key=value ...]

  scheme          tensorrt, onnxruntime, openvino, executorch or portable; default tensorrt (simulated)
  target          what the plans are exported to; default the one called as the scheme
  goal            accuracy, or latency: layers that are slower in integers (onnxruntime, openvino); default accuracy
  threads         of the runtime with goal=latency or slower=, default 1
  fidelity        budget, default 0.97; none to leave it out
  map_drop        budget in points, default none
  slower          at most so many percent slower than without float layers, default none
  share           largest share of the multiplications in float, default 0.03
  spoil           layer whose weights are spoiled first, default none
  ranges          algorithm for all ranges, for instance minmax; default the usual ones
  score_shift     move class scores back to the float model's, default true
  imgsz           input size, default the checkpoint's
  images          images of the budget, and calibration images, default 64
  ranking_images  images that rank the layers, default 8
  out             file that the result is appended to
"""
DEFAULTS = {
    **{"model": "", "data": "", "scheme": "tensorrt", "fidelity": "0.97", "share": "0.03", "spoil": "", "imgsz": ""},
    **{"images": "64", "ranking_images": "8", "out": "", "target": "", "map_drop": "none", "ranges": ""},
    **{"score_shift": "true", "goal": "accuracy", "threads": "1", "slower": "none"},
}
RANGES = ("range_activation", "range_pre_activation", "range_score", "range_head", "range_weight")
COARSER = 100


def recipe(options: dict[str, str]) -> CalibrationRecipe:
    """How ranges are found: as usual, or all by one algorithm."""
    values = {"score_shift": options["score_shift"]}
    if options["ranges"]:
        values |= dict.fromkeys(RANGES, options["ranges"])
    return build(CalibrationRecipe, values, "search_float_layers")


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


def proof(before: Artifact, found: FloatSearch | LatencySearch, options: dict[str, str], folder: Path) -> list[str]:
    """Rows of the table: real exports of both plans."""
    lines = ["| | mAP50-95 | drop, points | fidelity | MB |", "|---|---:|---:|---:|---:|"]
    how = ValidateOptions(latency=False, memory=False, threads=1)
    for name, artifact in (("all layers in integers", before), ("layers found in float", found.artifact)):
        exports = yoloquant.export(artifact, targets=options["target"] or found.scheme, output=folder / name.split()[0])
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
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = parse_options(sys.argv[1:] if arguments is None else arguments, DEFAULTS, USAGE)
    if not options["model"] or not options["data"]:
        print(USAGE)
        return 2
    count = int(options["images"])
    how = QuantizeOptions(
        imgsz=int(options["imgsz"]) if options["imgsz"] else None,
        calibration=CalibrationOptions(images=count),
        ranges=recipe(options),
    )
    artifact = yoloquant.quantize(options["model"], data=options["data"], scheme=options["scheme"], options=how)
    if options["spoil"]:
        artifact = spoiled(artifact, options["scheme"], options["spoil"])
    wanted = FloatSearchOptions(
        scheme=options["scheme"],
        goal=SearchGoal(options["goal"]),
        threads=int(options["threads"]),
        fidelity=None if options["fidelity"] == "none" else float(options["fidelity"]),
        map_drop=None if options["map_drop"] == "none" else float(options["map_drop"]),
        share=float(options["share"]),
        slower=None if options["slower"] == "none" else float(options["slower"]),
        images=count,
        ranking_images=int(options["ranking_images"]),
    )
    found = yoloquant.search(artifact, data=options["data"], options=wanted)
    lines = [f"### {Path(options['model']).name}, {options['scheme']}", "", *found.summary().splitlines(), ""]
    with tempfile.TemporaryDirectory(prefix="yoloquant-") as folder:
        lines += proof(artifact, found, options, Path(folder))
    text = "\n".join(lines) + "\n"
    tell(text, options["out"])
    return 0 if found.met else 1


if __name__ == "__main__":
    raise SystemExit(main())
