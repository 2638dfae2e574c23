"""How far do kernels of one runtime differ? The measurement behind the tolerances of bundles.

    python tools/compare_kernels.py exports=best_exports data=mydata.yaml

Each artifact's golden inputs are run as a bundle's are made, on one thread, and again with two threads, with other
kernels of the same runtime, and with inputs that a wrong preprocessing would make: red and blue exchanged, blurred, and
six pixels beside their place. ONNX Runtime's file is also run with the weight scale of one layer off by 2 %, for five
layers from the first to the last: what a faulty export would do. Each row compares one of these with the first run the
way ``verify`` does. Tolerances must lie above every row of the first kind and below every row of the second.

Options (``key=value`` or ``--key value``): exports (an export folder), data (yaml or folder; the photos inside the
ultralytics package and drawn scenes if not given), images (3), cpu_root (aarch64 root, or
that processor is left out).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import cv2
import numpy as np

from tools.options import parse_options
from yoloquant.bundle import device_named
from yoloquant.bundle.images import candidates
from yoloquant.bundle.tolerances import TOLERANCES
from yoloquant.errors import YoloquantError
from yoloquant.evaluation.emulated_runner import EmulatedRunner
from yoloquant.evaluation.processors import AARCH64, AVX2, Launch, launch
from yoloquant.runtime.apps.golden import SELECTION, GoldenOutcome, compare_detections, output_errors, pooled, run
from yoloquant.runtime.backends import Backend, BackendOptions, open_backend
from yoloquant.runtime.core.detector import Detector
from yoloquant.runtime.core.model_info import ModelInfo
from yoloquant.runtime.tasks import spec_of
from yoloquant.targets.exports import load_exports
from yoloquant.types import ExportedModel, HeadLayout

DEFAULTS: dict[str, str] = {"exports": "", "data": "", "images": "3", "cpu_root": ""}
Images = Sequence[np.ndarray]
Run = Callable[[Images], list[GoldenOutcome]]

DISTURBANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "red and blue exchanged": lambda image: np.ascontiguousarray(image[..., ::-1]),
    "blurred": lambda image: cv2.resize(cv2.resize(image, None, fx=0.5, fy=0.5), image.shape[1::-1]),
    "six pixels aside": lambda image: np.roll(image, 6, axis=1),
}


def kernels(exported: ExportedModel) -> Iterator[tuple[str, Run]]:
    """Other ways to run an artifact on this machine."""
    base = first_options(exported)
    yield "two threads", partial(outcomes, exported, replace(base, threads=2))
    backend = backend_of(exported)
    if backend == "onnxruntime":
        yield "fusion the other way round", partial(outcomes, exported, replace(base, optimize=not base.optimize))
    if backend == "openvino":
        yield "the precision it chooses", partial(outcomes, exported, replace(base, precision=""))
    if backend == "openvino":
        yield "every pair in float", partial(outcomes, exported, replace(base, optimize=False))
    if backend == "litert":
        for kind in ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF"):
            yield kind, partial(with_resolver, kind, exported, base)


def backend_of(exported: ExportedModel) -> str:
    """TensorRT is simulated, as for a bundle's expected results."""
    backend = device_named(exported.target).backend
    return "onnxruntime" if backend == "tensorrt" else backend


def first_options(exported: ExportedModel) -> BackendOptions:
    """How expected results are made."""
    raw, simulated = exported.layout is HeadLayout.RAW, exported.target == "tensorrt"
    return BackendOptions(threads=1, raw=raw, optimize=not simulated)


def outcomes(exported: ExportedModel, options: BackendOptions, images: Images) -> list[GoldenOutcome]:
    """Run every image; the outputs are decoded."""
    backend = open_backend(backend_of(exported), exported.path, exported.info, options)
    with Detector(backend, SELECTION) as detector:
        found = [run(detector, image) for image in images]
        return [replace(o, outputs=tuple(np.array(x) for x in backend.decode(o.outputs))) for o in found]


def with_resolver(kind: str, exported: ExportedModel, options: BackendOptions, images: Images) -> list[GoldenOutcome]:
    """The same with kernels of LiteRT that are not XNNPACK's."""
    with _resolver(kind):
        return outcomes(exported, options, images)


@contextmanager
def _resolver(kind: str) -> Iterator[None]:
    from ai_edge_litert import interpreter

    original = interpreter.Interpreter
    chosen = getattr(interpreter.OpResolverType, kind)
    interpreter.Interpreter = partial(original, experimental_op_resolver_type=chosen)
    try:
        yield
    finally:
        interpreter.Interpreter = original


class Elsewhere(Backend):
    """An artifact on another processor, whose outputs come back decoded."""

    name = "elsewhere"
    version = ""

    def __init__(self, runner: EmulatedRunner) -> None:
        self.runner, self.info, self.layout = runner, runner.info, runner.layout
        self.input_shape, self.input_dtype = (1, self.info.channels, *self.info.imgsz), np.dtype(np.float32)

    def run(self, tensor: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the network there."""
        return self.runner.infer(tensor)

    def close(self) -> None:
        """End its process."""
        self.runner.close()


def elsewhere(exported: ExportedModel, start: Launch, images: Images) -> list[GoldenOutcome]:
    """Run every image on another processor."""
    with Detector(Elsewhere(EmulatedRunner(exported, backend_of(exported), start, 1)), SELECTION) as detector:
        return [run(detector, image) for image in images]


def processors(exported: ExportedModel, root: str) -> Iterator[tuple[str, Run]]:
    """The processors that can be had here."""
    for name in (AVX2, AARCH64) if root else (AVX2,):
        try:
            start = launch(name, backend_of(exported), root=root)
        except YoloquantError as exc:
            print(f"# {exported.target} on {name}: {exc}", file=sys.stderr)
            continue
        yield name, partial(elsewhere, exported, start)


def compare(expected: Sequence[GoldenOutcome], got: Sequence[GoldenOutcome], info: ModelInfo) -> str:
    """One row: differences of outputs and agreement of detections, as ``verify`` computes them."""
    task, both = spec_of(info.task), list(zip(expected, got, strict=True))
    parts = [[task.output_parts(o.outputs, info.layout, info) for o in pair] for pair in both]
    values = pooled([output_errors(*pair) for pair in parts])
    pairs = [compare_detections(e.detections, g.detections, TOLERANCES, task) for e, g in both]
    same, total = sum(p.same for p in pairs), sum(p.total for p in pairs)
    return f"{values.get('boxes', 0):8.4f} {values['scores']:8.4f}   {same} of {total}"


def report(exported: ExportedModel, data: str | None, count: int, root: str) -> Iterator[str]:
    """The rows of one artifact, on the images on which most is found."""
    alone = partial(outcomes, exported, first_options(exported))
    images = [image for _, image in candidates(data, exported.info.imgsz)]
    found = alone(images)
    order = sorted(range(len(images)), key=lambda i: -int((found[i].detections.confidence >= TOLERANCES.conf).sum()))
    chosen, expected = [images[i] for i in order[:count]], [found[i] for i in order[:count]]
    for name, again in (*kernels(exported), *processors(exported, root)):
        yield f"{exported.target:<12} {name:<36} {compare(expected, again(chosen), exported.info)}"
    for name, again in scaled_layers(exported):
        yield f"{exported.target:<12} {name:<36} {compare(expected, again(chosen), exported.info)}"
    for name, disturb in DISTURBANCES.items():
        row = compare(expected, alone([disturb(image) for image in chosen]), exported.info)
        yield f"{exported.target:<12} {name:<36} {row}"


def scaled_layers(exported: ExportedModel, share: float = 0.02, count: int = 5) -> Iterator[tuple[str, Run]]:
    """The same model with one layer's weight scales off by a share, for some layers."""
    if exported.target != "onnxruntime":
        return
    import onnx
    from onnx import numpy_helper

    model = onnx.load(exported.path)
    scales = [i for i in model.graph.initializer if i.name.endswith(":weight/scale")]
    for index in np.linspace(0, len(scales) - 1, count).astype(int):
        kept = scales[index].SerializeToString()
        value = numpy_helper.to_array(scales[index]) * np.float32(1 + share)
        scales[index].CopyFrom(numpy_helper.from_array(value, scales[index].name))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scaled.onnx"
            onnx.save(model, path)
            name = f"{share:.0%} off: {scales[index].name.removesuffix(':weight/scale')}"
            yield name, partial(outcomes, replace(exported, path=path), first_options(exported))
        scales[index].ParseFromString(kept)


def main(arguments: Sequence[str]) -> int:
    """Run the comparison and print its table."""
    values = parse_options(arguments, DEFAULTS, __doc__ or "")
    print(f"{'target':<12} {'against one thread':<36} {'boxes':>8} {'scores':>8}   detections")
    for exported in load_exports(values["exports"]):
        for row in report(exported, values["data"] or None, int(values["images"]), values["cpu_root"]):
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
