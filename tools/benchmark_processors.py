"""The same files on several processors: accuracy with exact sums, on x86 without VNNI, and on aarch64.

    python tools/benchmark_processors.py model=best.pt exports=best_exports data=mydata.yaml cpu_root=/var/tmp/aarch64

One row per target: mAP50-95 and fidelity (mAP50-95 against the float model's own detections above 0.25) for every
processor, all on the same images in one pass. *Exact* is what a processor with VNNI computes: this one where it has
VNNI; elsewhere ONNX Runtime with its exact kernels (``session.x64quantprecision=1``, which is bit-equal) and OpenVINO
with its own FakeQuantize computed in float32 (``LP_TRANSFORMS_MODE=NO``, which follows the same grid). *No VNNI* is the
file as anybody's program opens it, on this processor if it has no VNNI, otherwise emulated or, for OpenVINO, capped.

Options (``key=value`` or ``--key value``): model (float checkpoint), exports (export folder), data (labelled data
yaml), split (val), limit (images, all if empty), targets (litert,openvino,onnxruntime), cpu_root (aarch64 root; that
column is left out without one), bootstrap (1000), label (what the row is called; the model's name).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tools.options import parse_options
from yoloquant.bridge.checkpoint import load_model
from yoloquant.data.dataset import ValidationSet
from yoloquant.errors import YoloquantError
from yoloquant.evaluation.bootstrap import BootstrapOptions
from yoloquant.evaluation.compare import Comparer
from yoloquant.evaluation.emulated_runner import EmulatedRunner
from yoloquant.evaluation.evaluate import EvaluateOptions, evaluate
from yoloquant.evaluation.processors import AARCH64, AVX2, launch
from yoloquant.evaluation.torch_runner import TorchRunner
from yoloquant.graph.traced_model import TracedModel
from yoloquant.runtime.backends import BackendOptions
from yoloquant.runtime.device.processors import has_vnni
from yoloquant.targets import registry as targets
from yoloquant.targets.exports import load_exports
from yoloquant.types import ExportedModel, HeadLayout

DEFAULTS: dict[str, str] = {
    "model": "",
    "exports": "",
    "data": "",
    "split": "val",
    "limit": "",
    "targets": "litert,openvino,onnxruntime",
    "cpu_root": "",
    "bootstrap": "1000",
    "label": "",
}
EXACT, NO_VNNI = "exact", "no VNNI"
THREADS = os.cpu_count() or 1


def runners(exported: ExportedModel, root: str) -> Iterator[tuple[str, object]]:
    """One artifact on every processor; one that it cannot be run on is left out with a remark."""
    target = targets.get(exported.target)
    exact = (
        exported.target == "openvino" and has_vnni() is False
    )  # it has no kernels that are both integer and exact there
    options = BackendOptions(threads=THREADS, raw=exported.layout is HeadLayout.RAW, optimize=not exact)
    yield EXACT, target.open(exported, options)
    for name, processor in ((NO_VNNI, AVX2), (AARCH64, AARCH64)):
        if processor == AARCH64 and not root:
            continue
        try:
            yield name, EmulatedRunner(exported, target.backend, launch(processor, target.backend, root=root), THREADS)
        except YoloquantError as exc:
            print(f"# {exported.target} on {name}: {exc}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the comparison and print its table."""
    values = parse_options(arguments, DEFAULTS, __doc__ or "")
    wanted = values["targets"].split(",")
    exports = [e for e in load_exports(values["exports"]) if e.target in wanted]
    traced = TracedModel.of(load_model(values["model"]), exports[0].info.imgsz)
    images = ValidationSet.open(values["data"], traced.info, split=values["split"])
    images = images.take(int(values["limit"]) if values["limit"] else None)
    every: dict[str, object] = {"fp32": TorchRunner(traced.graph.module, traced.info, THREADS)}
    for exported in exports:
        every.update({f"{exported.target}@{name}": runner for name, runner in runners(exported, values["cpu_root"])})
    found = evaluate(every, images, EvaluateOptions(baseline="fp32"))  # type: ignore[arg-type]
    comparer = Comparer(found, BootstrapOptions(replicates=int(values["bootstrap"])))
    label = values["label"] or Path(values["model"]).stem
    size = "x".join(str(s) for s in exports[0].info.imgsz)
    base = comparer.accuracy("fp32")
    float_map = f"{100 * base.map50_95:.2f}" if base else "not known without labels"
    print(f"{label}, {Path(values['data']).stem}, {len(images)} images at {size}; FP32 mAP50-95 {float_map}")
    print(f"| target | {EXACT}: mAP, fidelity | {NO_VNNI}: mAP, fidelity | {AARCH64}: mAP, fidelity |")
    print("|---|---|---|---|")
    for exported in exports:
        cells = [_cell(comparer, f"{exported.target}@{name}") for name in (EXACT, NO_VNNI, AARCH64)]
        print(f"| {exported.target} | {' | '.join(cells)} |", flush=True)
    for name, error in found.errors.items():
        print(f"# {name}: {error}", file=sys.stderr)
    return 1 if found.errors else 0


def _cell(comparer: Comparer, name: str) -> str:
    if name not in comparer.evaluation.records:
        return "not run"
    accuracy = comparer.accuracy(name)
    fidelity = comparer.compare(name).comparison.fidelity.value
    return f"{100 * accuracy.map50_95:.2f}, {fidelity:.3f}" if accuracy else f"{fidelity:.3f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
